"""State folders as services leave them, and what is told of them."""

import contextlib
import http.server
import json
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar

from tests.service.driver import Service
from webpd.cli.report import look
from webpd.ledger.history import Event
from webpd.ledger.port import Directory
from webpd.ledger.sqlite import SqliteLedger
from webpd.model import Known, Result, Sidecar
from webpd.settings import Address, RedisUrl, Settings

ROOT = "/srv/resize_cache"
MINUTE, HOUR, DAY = 60.0, 3600.0, 86_400.0
NOON = 1_790_078_400.0
KEPT = Known(4000, 5, Sidecar.ABSENT, b"12345678", Result.KEPT_ORIGINAL)


def event(path: str, age: float, result: Result = Result.CONVERTED, reason: str = "", root: str = ROOT) -> Event:
    """Return what happened to an image of 4,000 bytes that long ago, in seconds."""
    webp = 1000 if result is Result.CONVERTED else 0
    at = time.time() - age
    return Event(root, path, 4000, 5, 80, 60, "jpeg", result, reason, "", webp, 0.1, b"12345678", at, "cdn1")


def remember(state: Path, *events: Event) -> None:
    with contextlib.closing(SqliteLedger(str(state / "ledger.sqlite"))) as ledger:
        ledger.history.note(events)


def a_past(state: Path) -> None:
    """Leave there what a service does that ran for two months."""
    with contextlib.closing(SqliteLedger(str(state / "ledger.sqlite"))) as ledger:
        ledger.note_kind(ROOT, "fuse.sshfs /srv")
        ledger.record(ROOT, Directory("iblock/a", 5, True, 1.5, 7, 2, 1.5))
        ledger.learn(ROOT, "iblock/a", {"kept.png": KEPT, "broken.jpg": replace(KEPT, result=Result.FAILED)})
        ledger.note_pass(ROOT, NOON - HOUR, full=True)
        ledger.note_pass(ROOT, NOON, full=False)
        ledger.record(ROOT, Directory("iblock/b", None, False, 1.5, 5))
    remember(
        state,
        *(event(f"now/{number}.jpg", 2 * MINUTE) for number in range(12)),
        *(event(f"hour/{number}.jpg", 30 * MINUTE) for number in range(20)),
        *(event(f"day/{number}.jpg", 5 * HOUR) for number in range(300)),
        *(event(f"old/{number}.jpg", 60 * DAY) for number in range(1000)),
        event("kept.png", 30 * MINUTE, Result.KEPT_ORIGINAL),
        event("skipped.png", 5 * HOUR, Result.SKIPPED, "empty"),
        *(event(f"broken{number}.jpg", 5 * HOUR, Result.FAILED, "damaged") for number in range(3)),
        event("slow.png", 60 * DAY, Result.FAILED, "timed_out"),
    )


def known(state: Path, address: Address | None = None, redis: RedisUrl | None = None) -> dict[str, Any]:
    """Return what is told as JSON."""
    return look(
        Settings(state_dir=str(state), health_address=address, redis_url=redis or RedisUrl("none")), time.time()
    )


class Asked(Service):
    """A service that tells where to ask it."""

    @property
    def health_address(self) -> str:
        return f"127.0.0.1:{self._health}"


class Answering(http.server.BaseHTTPRequestHandler):
    """A server that answers every question with a page."""

    page: ClassVar[dict[str, Any]] = {
        "status": "ok",
        "version": "1.0",
        "roots": [],
        "queue": {"urgent": 0, "in_flight": 0},
    }

    def answer(self) -> bytes:
        return json.dumps(self.page).encode()

    def do_GET(self) -> None:
        body = self.answer()
        self.send_response(200)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Say nothing."""


@contextlib.contextmanager
def answering(handler: type[Answering]) -> Iterator[Address]:
    """Let it answer at an address."""
    with http.server.HTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield Address("127.0.0.1", server.server_port)
        finally:
            server.shutdown()
            thread.join()
