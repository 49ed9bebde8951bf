"""Where somebody else's program tells that images were written or removed."""

from collections.abc import Sequence
from typing import Protocol

from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import Route

from webpd.errors import UnfitError
from webpd.web.access import Access, Need
from webpd.web.body import is_json, paths_in, read_body

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
        if not is_json(request):
            return PlainTextResponse("send JSON, and say so: Content-Type: application/json\n", 415)
        body = await read_body(request, _LONGEST)
        if body is None:
            return PlainTextResponse(f"more than {_LONGEST} bytes: send several hints\n", 413)
        try:
            paths = paths_in(body)
        except (ValueError, RecursionError) as error:
            return PlainTextResponse(f"{error}\n", 400)
        if len(paths) > _MOST:
            return PlainTextResponse(f"more than {_MOST} paths: send several hints\n", 413)
        try:
            return JSONResponse({"taken": subject.hint(paths)}, 202)
        except UnfitError as error:
            return PlainTextResponse(f"{error}\n", 409)

    return [Route("/hint", access.guard(hint, Need.HINT), methods=["POST"])]
