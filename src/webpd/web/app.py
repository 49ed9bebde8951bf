"""Health on one address, metrics on another. Nothing here waits for a file system, a codec or a lock."""

from collections.abc import Callable, Mapping
from typing import Any, Protocol

from prometheus_client import CONTENT_TYPE_LATEST
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import Route


class Subject(Protocol):
    """What is asked for its health."""

    @property
    def ready(self) -> bool:
        """Whether every root is well and watched, and the codec processes have started."""

    def health(self) -> Mapping[str, Any]:
        """How things stand, ready for JSON. ``status`` is ``ok`` or ``degraded``."""


def health_app(subject: Subject) -> Starlette:
    """Return what answers for the service's health."""

    async def livez(_: Request) -> Response:
        return PlainTextResponse("alive\n")

    async def readyz(_: Request) -> Response:
        return PlainTextResponse("ready\n") if subject.ready else PlainTextResponse("not ready\n", 503)

    async def health(_: Request) -> Response:
        body = subject.health()
        return JSONResponse(body, 200 if body["status"] == "ok" else 503)

    return Starlette(routes=[Route("/livez", livez), Route("/readyz", readyz), Route("/health", health)])


def metrics_app(exposition: Callable[[], bytes]) -> Starlette:
    """Return what answers Prometheus."""

    async def metrics(_: Request) -> Response:
        return Response(exposition(), media_type=CONTENT_TYPE_LATEST)

    return Starlette(routes=[Route("/metrics", metrics)])
