"""A running service with a page, over a small tree of every kind of file that the page may be asked for."""

import http.client
import json
import os
import urllib.parse
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.conftest import write
from tests.service.driver import Service

TOKEN = "0123456789abcdef.page"  # noqa: S105 - of the tests
SECRET = b"\xff\xd8\xff the secret outside of the root"


@dataclass(frozen=True)
class Answer:
    """What came back; names of headers in lower case."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def text(self) -> str:
        return self.body.decode()


class Site:
    """The service, and how to ask it as any client may."""

    def __init__(self, service: Service, root: Path) -> None:
        self.service = service
        self.root = root

    def sections(self, **headers: str) -> dict[str, Any]:
        """Return all that the page is told at first."""
        found: dict[str, Any] = {}
        connection = http.client.HTTPConnection("127.0.0.1", self.service.health_port, timeout=60)
        try:
            connection.request("GET", "/events", headers=headers)
            answer = connection.getresponse()
            assert answer.status == 200
            while "trouble" not in found:
                line = answer.readline().decode().rstrip("\n")
                if line.startswith("event: "):
                    name = line.removeprefix("event: ")
                    found[name] = json.loads(answer.readline().decode().removeprefix("data: "))
            return found
        finally:
            connection.close()

    @property
    def url(self) -> str:
        return f"http://localhost:{self.service.health_port}"

    def ask(
        self,
        target: str,
        method: str = "GET",
        body: bytes | None = None,
        /,
        *,
        host: str | None = "localhost",
        **headers: str,
    ) -> Answer:
        """Send the target as it is; ``host`` is the Host header without port; headers have _ for -."""
        connection = http.client.HTTPConnection("127.0.0.1", self.service.health_port, timeout=60)
        try:
            connection.putrequest(method, target, skip_host=True, skip_accept_encoding=True)
            if host is not None:
                connection.putheader("Host", f"{host}:{self.service.health_port}")
            for name, value in headers.items():
                connection.putheader(name.replace("_", "-"), value.encode())
            if body is not None:
                connection.putheader("Content-Length", str(len(body)))
            connection.endheaders(body)
            answer = connection.getresponse()
            stream = answer.getheader("content-type", "").startswith("text/event-stream") and answer.status == 200
            content = answer.readline() if stream and method != "HEAD" else answer.read()
            return Answer(answer.status, {name.lower(): value for name, value in answer.getheaders()}, content)
        finally:
            connection.close()

    def retry(self, body: bytes, **headers: str) -> Answer:
        """Ask for another try, as the page does unless the headers say otherwise."""
        given = {"Authorization": f"Bearer {TOKEN}", "Content_Type": "application/json", **headers}
        return self.ask("/retry", "POST", body, **{name: value for name, value in given.items() if value})

    def picture(self, path: str | bytes, kind: str = "webp", root: Path | None = None, **headers: str) -> Answer:
        """Ask for a picture by its path relative to the root, encoded once."""
        query = urllib.parse.urlencode(
            {"root": os.fsencode(root or self.root), "path": os.fsencode(path), "kind": kind}
        )
        return self.ask(f"/picture?{query}", **headers)


def lay_out(folder: Path, photograph: Callable[..., bytes]) -> Path:
    """Make the tree, and something outside of it that nobody may see; return its root."""
    root = folder / "upload" / "resize_cache"
    write(folder / "secret.jpg", SECRET)
    write(folder / "outside" / "secret.jpg", SECRET)
    for number, name in enumerate(("chelsea.png", "coffee.png", "astronaut.png", "rocket.jpg")):
        write(root / f"iblock/{number}/480_480_1" / f"photo{number}.jpg", photograph(480, name))
    write(root / "iblock/0/logo.png", photograph(120, format_="PNG"))
    write(root / "iblock/0/UPPER.JPG", photograph(100))
    write(Path(os.fsdecode(os.fsencode(root) + b"/iblock/\xd4\xee\xf2\xee/\xff.jpg")), photograph(90))
    write(root / "iblock/damaged.jpg", photograph(320)[:4000])
    write(root / "iblock/page.jpg", b"<!doctype html><script>alert(1)</script>")
    write(root / "iblock/notes.txt", b"not for the page")
    write(root / "iblock/foreign.jpg", photograph(110))
    write(root / "iblock/foreign.jpg.webp", b"RIFF\x04\0\0\0WEBP")
    (root / "iblock/link.jpg").symlink_to("../../../secret.jpg")
    (root / "iblock/absolute.jpg").symlink_to(folder / "secret.jpg")
    (root / "iblock/elsewhere").symlink_to(folder / "outside")
    (root / "iblock/folder.jpg").mkdir()
    os.mkfifo(root / "iblock/pipe.jpg")
    return root
