"""Health on one address, metrics on another, orders by a socket that only our own user may open.

Nothing here waits for a file system, a codec or a lock.
"""

import os
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import Route

from webpd.web.body import paths_in, read_body

_LONGEST_ORDER = 1 << 20
"""Bytes: some thousand paths."""


class Subject(Protocol):
    """What is asked for its health."""

    @property
    def hindrances(self) -> Sequence[str]:
        """Why the service is not ready, in words; nothing where every root is well and watched, and codecs start."""

    def health(self) -> Mapping[str, Any]:
        """How things stand, ready for JSON, as ``docs/health.schema.json`` has it."""


class Controlled(Subject, Protocol):
    """What takes orders."""

    async def retry(self, paths: Sequence[str]) -> int:
        """Try failed images at and below these absolute paths again (none: all); return how many they are."""


def health_app(subject: Subject, extra: Sequence[Route] = ()) -> Starlette:
    """Return what answers for the service's health, and at the ``extra`` addresses."""

    async def livez(_: Request) -> Response:
        return PlainTextResponse("alive\n")

    async def readyz(_: Request) -> Response:
        if reasons := subject.hindrances:
            return PlainTextResponse("\n".join(("not ready", *reasons, "")), 503)
        return PlainTextResponse("ready\n")

    return Starlette(routes=[Route("/livez", livez), Route("/readyz", readyz), _health_of(subject), *extra])


def control_app(subject: Controlled) -> Starlette:
    """Return what answers the commands.

    ``POST /retry`` takes ``{"paths": [absolute paths]}`` as JSON: bytes that are not UTF-8 are written as Python's
    ``os.fsdecode`` has them, ``\\udc80`` to ``\\udcff``. It answers ``{"retried": n}``.
    """

    async def retry(request: Request) -> Response:
        body = await read_body(request, _LONGEST_ORDER)
        if body is None:
            return JSONResponse({"error": f"more than {_LONGEST_ORDER} bytes: name folders, or fewer paths"}, 413)
        try:
            paths = paths_in(body)
            _check(paths)
        except (ValueError, RecursionError) as error:
            return JSONResponse({"error": str(error)}, 400)
        return JSONResponse({"retried": await subject.retry(paths)})

    return Starlette(routes=[_health_of(subject), Route("/retry", retry, methods=["POST"])])


def metrics_app(exposition: Callable[[str], tuple[bytes, str]]) -> Starlette:
    """Return what answers Prometheus; ``exposition`` takes the ``Accept`` header, and gives a body and its type."""

    async def metrics(request: Request) -> Response:
        body, media_type = exposition(request.headers.get("accept", ""))
        return Response(body, media_type=media_type)

    return Starlette(routes=[Route("/metrics", metrics)])


def _health_of(subject: Subject) -> Route:
    async def health(_: Request) -> Response:
        body = subject.health()
        return JSONResponse(body, 200 if body["status"] == "ok" else 503)

    return Route("/health", health)


def _check(paths: Sequence[str]) -> None:
    """Raise ``ValueError`` where one is no absolute path."""
    for path in paths:
        if not os.path.isabs(path) or b"\0" in os.fsencode(path):
            raise ValueError(f"not an absolute path: {path!r}")
