"""Where somebody else's program tells that images were written or removed."""

import json
from collections.abc import Sequence
from typing import Protocol

from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import Route

from webpd.errors import UnfitError
from webpd.web.access import Access, Need

_LONGEST = 64 << 10  # bytes
_MOST = 1000


class HintSubject(Protocol):
    """What is told."""

    def hint(self, paths: Sequence[str]) -> int:
        """Have the images of these paths looked at; return how many will be. Asks no file system.

        Raises ``UnfitError`` where this host finds no work.
        """


def hint_routes(subject: HintSubject, access: Access) -> list[Route]:
    """Return the address for hints: ``POST /hint`` takes ``{"paths": ["/upload/…", …]}`` as JSON, with the token.

    It answers 202 and ``{"taken": n}``, at once. Bytes that are not UTF-8 may be written as they are, or as Python's
    ``os.fsdecode`` has them.
    """

    async def hint(request: Request) -> Response:
        if request.headers.get("content-type", "").partition(";")[0].strip().lower() != "application/json":
            return PlainTextResponse("send JSON, and say so: Content-Type: application/json\n", 415)
        body = b""
        async for part in request.stream():
            body += part
            if len(body) > _LONGEST:
                return PlainTextResponse(f"more than {_LONGEST} bytes: send several hints\n", 413)
        try:
            paths = _paths_in(body)
        except (ValueError, RecursionError) as error:
            return PlainTextResponse(f"{error}\n", 400)
        if len(paths) > _MOST:
            return PlainTextResponse(f"more than {_MOST} paths: send several hints\n", 413)
        try:
            return JSONResponse({"taken": subject.hint(paths)}, 202)
        except UnfitError as error:
            return PlainTextResponse(f"{error}\n", 409)

    return [Route("/hint", access.guard(hint, Need.HINT), methods=["POST"])]


def _paths_in(body: bytes) -> list[str]:
    """Return the paths of a hint. Raises ``ValueError``, and says what is wrong with it."""
    told = json.loads(body.decode("utf-8", "surrogateescape"))
    paths = told.get("paths") if isinstance(told, dict) else None
    if not isinstance(paths, list) or not all(isinstance(path, str) for path in paths):
        raise ValueError('not of the form {"paths": ["/upload/…/a.jpg", …]}')
    return paths
