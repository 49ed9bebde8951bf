"""The addresses of the page, and what each answers."""

import asyncio
import contextlib
import functools
import hashlib
import json
import os
import urllib.parse
from collections.abc import AsyncIterator, Mapping
from typing import cast, get_args

import jinja2
from markupsafe import Markup
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response, StreamingResponse
from starlette.routing import Route
from starlette.types import Receive, Scope, Send

from webpd.errors import UnfitError
from webpd.web.access import Access, Need
from webpd.web.body import is_json, read_body
from webpd.web.page.aside import Aside
from webpd.web.page.feed import Feed
from webpd.web.page.pictures import Kind, NoPictureError, read_picture
from webpd.web.page.subject import Leftovers, PageSubject
from webpd.web.page.texts import LANGUAGES, language_for, phrasebook, texts

_HERE = os.path.dirname(__file__)
_TYPES = {".css": "text/css", ".js": "text/javascript", ".svg": "image/svg+xml"}
_MOST_WATCHING = 16
"""Streams at once; more are told to come again."""
_MOST_READING = 4
"""Pictures of one root that are read at once."""
_MOST_SENDING = 8
"""Pictures that are sent at once, each from memory."""
_PICTURE_WITHIN = 6.0
_LEFTOVERS_WITHIN = 20.0
_MOST_LEFTOVERS = 100
_LONGEST_ORDER = 64 << 10  # bytes


def page_routes(subject: PageSubject, access: Access) -> list[Route]:
    """Return the addresses of the page, to be served beside those for health; belongs to one event loop."""
    page = _Page(subject, access)
    guard = access.guard
    return [
        Route("/", guard(page.shell, Need.SHELL)),
        Route("/static/{name}", guard(page.static, Need.SHELL)),
        Route("/events", guard(page.events, Need.READ)),
        Route("/picture", guard(page.picture, Need.READ)),
        Route("/leftovers", guard(page.leftovers, Need.READ)),
        Route("/retry", guard(page.retry, Need.WRITE), methods=["POST"]),
    ]


class _Page:
    def __init__(self, subject: PageSubject, access: Access) -> None:
        self._subject = subject
        self._access = access
        self._feed = Feed(subject)
        self._phrasebooks = {lang: phrasebook(lang) for lang in LANGUAGES}
        self._watching = _Places(_MOST_WATCHING)
        self._sending = _Places(_MOST_SENDING)
        self._readers: dict[str, Aside] = {}
        self._lister = Aside(1)
        self._retrying = asyncio.Lock()
        static = os.path.join(_HERE, "static")
        self._static = {name: _read(os.path.join(static, name)) for name in sorted(os.listdir(static))}
        stamp = hashlib.sha256(b"".join(self._static.values())).hexdigest()[:12]
        loader = jinja2.FileSystemLoader(os.path.join(_HERE, "templates"))
        environment = jinja2.Environment(loader=loader, autoescape=True, undefined=jinja2.StrictUndefined)
        environment.filters["commands"] = _commands
        template = environment.get_template("page.html")
        self._shells = {
            lang: template.render(lang=lang, languages=LANGUAGES, t=texts(lang), stamp=stamp, **_grants(access))
            for lang in LANGUAGES
        }

    async def shell(self, request: Request) -> Response:
        lang = _language(request)
        headers = {"Content-Language": lang, "Vary": "Accept-Language"}
        return Response(self._shells[lang], media_type="text/html", headers=headers)

    async def static(self, request: Request) -> Response:
        name = request.path_params["name"]
        if name not in self._static:
            return PlainTextResponse("no such file\n", 404)
        # The shell asks for them by a name that changes with them.
        headers = {"Cache-Control": "public, max-age=31536000, immutable"} if request.query_params.get("v") else {}
        return Response(self._static[name], media_type=_TYPES[os.path.splitext(name)[1]], headers=headers)

    async def events(self, request: Request) -> Response:
        if request.method == "HEAD":
            return Response(media_type="text/event-stream")
        if not self._watching.take():
            return _busy()
        return _Stream(self._feed.events(self._phrasebooks[_language(request)]), self._watching)

    async def picture(self, request: Request) -> Response:
        asked = _query(request)
        root, path, kind = (asked.get(name, "") for name in ("root", "path", "kind"))
        answers = self._subject.answers(root)
        if answers is None or kind not in get_args(Kind):
            return PlainTextResponse("not an image below a root\n", 404)
        if not answers:
            return PlainTextResponse("the mount does not answer\n", 503)
        read = functools.partial(read_picture, root, path, cast("Kind", kind))
        try:
            media_type, data = await self._readers.setdefault(root, Aside(_MOST_READING)).call(read, _PICTURE_WITHIN)
        except NoPictureError as error:
            return PlainTextResponse(f"{error}\n", error.status)
        except TimeoutError:
            return PlainTextResponse("the mount did not answer in time\n", 504)
        return _Picture(data, media_type, self._sending) if self._sending.take() else _busy()

    async def leftovers(self, request: Request) -> Response:
        kind = _query(request).get("kind", "")
        if kind not in get_args(Leftovers):
            return PlainTextResponse("kind is one of orphans, foreign\n", 404)
        look = functools.partial(self._subject.leftovers, cast("Leftovers", kind), _MOST_LEFTOVERS)
        try:
            return JSONResponse({"files": list(await self._lister.call(look, _LEFTOVERS_WITHIN))})
        except TimeoutError:
            return PlainTextResponse("the history did not answer in time\n", 504)
        except UnfitError as error:
            return PlainTextResponse(f"{error}\n", 503)

    async def retry(self, request: Request) -> Response:
        """Take ``{"refs": [what the page was given, …]}``, or ``{"all": true}``, as JSON."""
        if not is_json(request):
            return PlainTextResponse("not JSON\n", 415)
        body = await read_body(request, _LONGEST_ORDER)
        if body is None:
            return PlainTextResponse(f"more than {_LONGEST_ORDER} bytes\n", 413)
        try:
            paths = self._paths_in(body)
        except (ValueError, RecursionError) as error:
            return PlainTextResponse(f"{error}\n", 400)
        try:
            async with self._retrying:
                return JSONResponse({"retried": await self._subject.retry(paths)})
        except UnfitError as error:
            return PlainTextResponse(f"{error}\n", 503)

    def _paths_in(self, body: bytes) -> list[str]:
        """Return the paths of an order. Raises ``ValueError``, and says what is wrong with it."""
        order = json.loads(body)
        if order == {"all": True}:
            return []
        refs = order.get("refs") if isinstance(order, dict) else None
        if not isinstance(refs, list) or not refs or not all(isinstance(ref, str) for ref in refs):
            raise ValueError('neither {"refs": ["root=…&path=…", …]} nor {"all": true}')
        paths = []
        for ref in refs:
            asked = _parse(ref)
            root, path = asked.get("root", ""), asked.get("path", "")
            if self._subject.answers(root) is None or not path or {"", ".", ".."} & {*path.split("/")} or "\0" in path:
                raise ValueError(f"not an image below a root: {ref[:200]!r}")
            paths.append(os.path.join(root, path))
        return paths


class _Places:
    """So many answers at once."""

    def __init__(self, most: int) -> None:
        self._free = most

    def take(self) -> bool:
        """Take a place if there is one, and tell whether."""
        taken = self._free > 0
        self._free -= taken
        return taken

    def free(self) -> None:
        self._free += 1


class _Placed(Response):
    """An answer to somebody who has a place until it has been sent."""

    places: _Places

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await super().__call__(scope, receive, send)
        finally:
            self.places.free()


class _Stream(_Placed, StreamingResponse):
    """Server-sent events."""

    def __init__(self, events: AsyncIterator[bytes], places: _Places) -> None:
        super().__init__(events, media_type="text/event-stream", headers={"X-Accel-Buffering": "no"})
        self.places = places


class _Picture(_Placed):
    def __init__(self, data: bytes, media_type: str, places: _Places) -> None:
        super().__init__(data, media_type=media_type)
        self.places = places


def _busy() -> Response:
    return PlainTextResponse("too many ask at once: come again\n", 503, {"Retry-After": "10"})


def _grants(access: Access) -> Mapping[str, bool]:
    """Return what the page has to know of who may do what."""
    return {"exposed": access.exposed, "token": access.token is not None}


def _commands(text: str) -> Markup:
    """Return the text with what stands between backquotes marked as code."""
    pieces = text.split("`")
    return Markup().join(
        Markup("<code>{}</code>").format(piece) if at % 2 else piece for at, piece in enumerate(pieces)
    )


def _language(request: Request) -> str:
    return language_for(request.query_params.get("lang", ""), request.headers.get("accept-language", ""))


def _query(request: Request) -> dict[str, str]:
    return _parse(request.scope["query_string"].decode("latin-1"))


def _parse(query: str) -> dict[str, str]:
    """Return a query's values, with names that are not UTF-8 as ``os.fsdecode`` has them; of two the last counts."""
    with contextlib.suppress(ValueError):  # too many fields
        return dict(urllib.parse.parse_qsl(query, errors="surrogateescape", max_num_fields=8))
    return {}


def _read(path: str) -> bytes:
    with open(path, "rb") as file:
        return file.read()
