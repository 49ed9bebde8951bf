"""``webpd status`` with a Redis that all hosts share, and with one that is not there."""

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from tests.cli.scene import Answering, answering, event, known, remember
from tests.conftest import Ended
from tests.lab import free_port
from tests.redis.linked import becomes, linked
from tests.redis.server import RedisServer
from webpd.cli.status import text
from webpd.ledger.history import Event
from webpd.ledger.redis_history import RedisHistory
from webpd.redis.presence import Presence, announce
from webpd.settings import RedisUrl

WORKER = Presence(
    host="cdn2",
    pid=12,
    role="work",
    version="1.0",
    fingerprint="0123456789abcdef",
    started=1_790_078_400.0,
    queue={"urgent": 0, "fresh": 1_000, "backfill": 3},
    in_flight=4,
    images_per_second=12.34,
    roots={"/srv/\udcff": "well", "/srv/resize_cache": "hung"},
)


@pytest.fixture
def server(tmp_path: Path) -> Iterator[RedisServer]:
    with RedisServer(tmp_path / "redis") as running:
        yield running


@contextlib.asynccontextmanager
async def there(url: RedisUrl, presence: Presence, events: Sequence[Event]) -> AsyncIterator[None]:
    """Be there as that process, and note the events."""
    async with linked(url) as (link, _):
        await becomes(lambda: link.state.up)
        history = RedisHistory(link, asyncio.get_running_loop())
        tasks = [asyncio.create_task(announce(link, lambda: presence)), asyncio.create_task(history.run())]
        history.note(events)
        await asyncio.to_thread(history.flush)
        try:
            yield
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)


def asked(url: RedisUrl, state: Path, *events: Event) -> dict[str, Any]:
    """Return what is told once ``WORKER`` is there."""

    async def ask() -> dict[str, Any]:
        async with there(url, WORKER, events):
            while True:
                told = await asyncio.to_thread(known, state, None, url)
                if told["hosts"] != []:
                    return told

    return asyncio.run(asyncio.wait_for(ask(), 60))


def test_the_other_hosts_and_what_all_did_are_told_from_redis(state: Path, server: RedisServer) -> None:
    remember(state, event("1.jpg", 600.0))
    told = asked(server.url, state, *(event(f"{number}.jpg", 600.0) for number in range(5)))
    assert told["notes"] == []
    (host,) = told["hosts"]
    assert host == {
        "name": "cdn2",
        "pid": 12,
        "role": "work",
        "version": "1.0",
        "started": "2026-09-22T12:00:00Z",
        "rate": 12.34,
        "queue": {"urgent": 0, "fresh": 1000, "backfill": 3},
        "in_flight": 4,
        "roots": {"/srv/\\xff": "well", "/srv/resize_cache": "hung"},
    }
    assert told["totals"]["hour"]["converted"] == 1
    assert [told["all_hosts"][period]["converted"] for period in ("hour", "day", "all")] == [5, 5, 5]
    lines = text(told).splitlines()
    assert "host cdn2 (role work, process 12), 12.3 images/s; 0 urgent, 1,000 fresh, 3 backfill, 4 in flight" in lines
    assert "          /srv/resize_cache: mount hung" in lines
    assert any(line.startswith("all hosts") for line in lines)


def refused(server: RedisServer) -> None:
    server.stop()


def hung(server: RedisServer) -> None:
    server.freeze()


def renamed(server: RedisServer) -> None:
    server.allow("another password")
    server.cli("ACL", "LOAD")


@pytest.mark.parametrize("harm", [refused, hung, renamed])
def test_a_redis_that_does_not_answer_is_noted_and_everything_else_told(
    harm: Callable[[RedisServer], None], state: Path, server: RedisServer, webpd: Callable[..., Ended]
) -> None:
    remember(state, event("1.jpg", 600.0))
    harm(server)
    asked = webpd(
        "status",
        "--json",
        WEBPD_STATE_DIR=str(state),
        WEBPD_HEALTH_ADDRESS=f"127.0.0.1:{free_port()}",
        WEBPD_REDIS_URL=str(server.url),
    )
    assert (asked.code, asked.err) == (0, "")
    told = asked.json
    assert (told["service"], told["totals"]["hour"]["converted"]) == ("stopped", 1)
    assert (told["hosts"], told["all_hosts"]) == (None, None)
    (note,) = told["notes"]
    assert note.startswith(f"the other hosts are not known: Redis at {server.url.public} ")
    assert "p@ss" not in asked.out
    assert "%70" not in asked.out


def test_redis_is_asked_while_the_service_has_not_answered_yet(state: Path) -> None:
    remember(state, event("1.jpg", 600.0))
    with socket.create_server(("127.0.0.1", 0)) as redis:

        class AfterRedis(Answering):
            def answer(self) -> bytes:
                redis.accept()[0].close()
                return super().answer()

        with answering(AfterRedis) as address:
            told = known(state, address, RedisUrl(f"redis://127.0.0.1:{redis.getsockname()[1]}/0"))
    assert told["service"] == "ok"
    assert told["hosts"] is None


def test_a_host_that_only_works_has_no_totals_of_its_own_and_tells_how_its_links_are(state: Path) -> None:
    class Working(Answering):
        page = Answering.page | {
            "role": "work",
            "roots": [{"root": "/srv", "kind": "nfs4", "mount": "well", "detail": ""}],
            "redis": {"configured": False, "up": False, "since": "2026-09-22T12:00:00Z", "detail": ""},
            "queue_redis": {"configured": True, "up": False, "since": "2026-09-22T12:00:00Z", "detail": "is loading"},
        }

    with answering(Working) as address:
        told = known(state, address)
    assert (told["service"], told["role"], told["totals"], told["notes"]) == ("ok", "work", None, [])
    assert told["queue_redis"] == Working.page["queue_redis"]
    assert told["roots"][0] | {"root": "/srv", "mount": "well", "images": None, "counted": None} == told["roots"][0]
    assert text(told).splitlines() == [
        f"webpd runs at {address} and is well",
        "queue     0 urgent, 0 in flight",
        "role      work",
        "Redis of the queue is DOWN since 2026-09-22T12:00:00Z: is loading",
        "/srv (nfs4, mount well)",
    ]
