"""A small web server that gives WebP by Accept as it should, but for what a test makes wrong in it."""

import hashlib
import re
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from ssl import SSLContext
from typing import Any

ORIGINAL = b"\xff\xd8\xff\xe0" + bytes(range(256)) * 8
WEBP = b"RIFF\0\0\0\0WEBPVP8 " + bytes(range(256)) * 4
PATH = "/upload/resize_cache/a.jpg"


@dataclass
class Request:
    """What was asked for; header names in lower case."""

    method: str
    path: str
    headers: dict[str, str]

    @property
    def takes_webp(self) -> bool:
        return bool(re.search(r"image/webp(?!;q=0(?:,|$))", self.headers.get("accept", "")))


@dataclass
class Reply:
    """What is answered."""

    status: int
    headers: dict[str, str]
    body: bytes


@dataclass
class Site:
    """How the site answers.

    ``choose`` takes a request and tells whether it is given WebP. ``describe`` may change the whole answer before it is
    decided whether it is sent at all, or which part of it; ``finish`` may change what is sent in the end.
    """

    choose: Callable[[Request], bool] = lambda request: request.takes_webp
    describe: Callable[[Request, Reply], None] = lambda _request, _reply: None
    finish: Callable[[Request, Reply], None] = lambda _request, _reply: None
    asked: list[Request] = field(default_factory=list)
    port: int = 0

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}{PATH}"

    def answer(self, request: Request) -> Reply:
        """Return what a good web server would, but for the changes."""
        self.asked.append(request)
        webp = self.choose(request)
        body = WEBP if webp else ORIGINAL
        headers = {
            "Content-Type": "image/webp" if webp else "image/jpeg",
            "Vary": "Accept",
            "ETag": f'"{hashlib.sha256(body).hexdigest()[:8]}"',
            "Cache-Control": "max-age=2592000",
        }
        reply = Reply(200, headers, body)
        self.describe(request, reply)
        _shorten(request, reply)
        self.finish(request, reply)
        return reply


def _shorten(request: Request, reply: Reply) -> None:
    """Answer 304 or a part, where that is asked for."""
    asked, etag, date = request.headers, reply.headers.get("ETag"), reply.headers.get("Last-Modified")
    same = asked["if-none-match"] == etag if "if-none-match" in asked else asked.get("if-modified-since", 0) == date
    if reply.status != 200:
        return
    if same:
        reply.status, reply.body = 304, b""
        reply.headers.pop("Content-Type", None)
    elif (found := re.fullmatch(r"bytes=(\d+)-(\d*)", asked.get("range", ""))) and asked.get("if-range", etag) in {
        etag,
        date,
    }:
        first, last, size = int(found[1]), int(found[2] or len(reply.body) - 1), len(reply.body)
        reply.status, reply.body = 206, reply.body[first : last + 1]
        reply.headers["Content-Range"] = f"bytes {first}-{last}/{size}"


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self, site: Site, tls: SSLContext | None) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.site = site
        self._tls = tls

    def finish_request(self, request: Any, address: Any) -> None:
        if self._tls is None:
            super().finish_request(request, address)
            return
        with self._tls.wrap_socket(request, server_side=True) as secured:
            super().finish_request(secured, address)

    def handle_error(self, *arguments: Any) -> None:
        """Say nothing where whoever asked has gone: some tests want that."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: _Server

    def do_GET(self) -> None:
        asked = {name.lower(): value for name, value in self.headers.items()}
        reply = self.server.site.answer(Request(self.command, self.path, asked))
        self.send_response_only(reply.status)
        for name, value in {"Content-Length": str(len(reply.body)), **reply.headers}.items():
            if reply.status != 304 or name != "Content-Length":
                self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(reply.body)

    do_HEAD = do_GET  # noqa: N815 - the name is the library's

    def log_message(self, *arguments: Any) -> None:
        pass


@contextmanager
def running(site: Site, tls: SSLContext | None = None) -> Iterator[Site]:
    """Let it answer on a free port of 127.0.0.1."""
    with _Server(site, tls) as server:
        site.port = server.server_address[1]
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        try:
            yield site
        finally:
            server.shutdown()
            thread.join()
