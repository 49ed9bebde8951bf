"""What listens where webpd should: it takes hints as webpd does, or fails in one of the ways that servers fail."""

import contextlib
import json
import socket
import ssl
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

TOKEN = "a-token-of-the-tests"  # noqa: S105 - of servers that live as long as a test


class HintServer(ThreadingHTTPServer):
    """It answers ``POST /hint`` as webpd does, and keeps the hints: a list of paths each."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.hints: list[list[str]] = []
        self.refused = 0
        self.has_root = True  # below which all paths are

    @property
    def paths(self) -> list[str]:
        """All paths that it was told of."""
        return [path for hint in self.hints for path in hint]


class _Handler(BaseHTTPRequestHandler):
    server: HintServer

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        if self.headers["Authorization"] != f"Bearer {TOKEN}":
            self.server.refused += 1
            self._answer(401, {"error": "another token"})
            return
        assert self.path == "/hint"
        assert self.headers["Content-Type"] == "application/json"
        assert len(body) <= 1 << 16
        paths = json.loads(body.decode("utf-8", "surrogateescape"))["paths"]
        assert len(paths) <= 1_000
        self.server.hints.append(paths)
        self._answer(202, {"taken": len(paths) if self.server.has_root else 0})

    def _answer(self, status: int, body: dict[str, Any]) -> None:
        data = json.dumps(body).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *arguments: object) -> None:
        """Say nothing."""


@contextlib.contextmanager
def hint_server(certificate: Path | None = None) -> Iterator[HintServer]:
    """Have one listen on a free port of 127.0.0.1, by TLS where there is a certificate (with its key)."""
    with HintServer() as server:
        if certificate is not None:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(certificate)
            server.socket = context.wrap_socket(server.socket, server_side=True)
        thread = threading.Thread(target=server.serve_forever, args=(0.02,))
        thread.start()
        try:
            yield server
        finally:
            server.shutdown()
            thread.join()


@contextlib.contextmanager
def hangs() -> Iterator[int]:
    """Give a port where connections are taken (by the kernel) and nothing ever answers."""
    with socket.create_server(("127.0.0.1", 0), backlog=16) as listener:
        yield listener.getsockname()[1]


@contextlib.contextmanager
def swallows() -> Iterator[int]:
    """Give a port that does not even take connections, as behind a firewall that drops packets: its line is full."""
    with contextlib.ExitStack() as stack:
        listener = stack.enter_context(socket.create_server(("127.0.0.1", 0), backlog=0))
        port = listener.getsockname()[1]
        while True:
            waiting = stack.enter_context(socket.socket())
            waiting.settimeout(0.3)
            try:
                waiting.connect(("127.0.0.1", port))
            except TimeoutError:
                break
        yield port


@contextlib.contextmanager
def drips() -> Iterator[int]:
    """Give a port that reads all and answers with a byte now and then, never with a whole line."""
    ended = threading.Event()

    def serve(listener: socket.socket) -> None:
        with contextlib.suppress(OSError), contextlib.closing(listener.accept()[0]) as connection:
            while not ended.wait(0.02):
                connection.sendall(b"H")

    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=serve, args=(listener,))
        thread.start()
        try:
            yield listener.getsockname()[1]
        finally:
            ended.set()
            with contextlib.suppress(OSError), socket.create_connection(listener.getsockname(), 1):
                thread.join()
