"""The history in Redis: the contract, keys that vanish, lifetimes, bounds, a Redis that goes away."""

import asyncio
import threading
import time
from collections.abc import Awaitable, Callable, Coroutine, Iterator
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from redis.asyncio import Redis

from tests.lab import free_port, wait_for
from tests.ledger.history_contract import NOON, ROOT, HistoryContract, Reopen, event, failed, failures_in_pages
from tests.redis.server import RedisServer
from webpd.ledger import redis_history, redis_records
from webpd.ledger.history import Event, History, Total
from webpd.ledger.redis_history import RedisHistory, read_shared
from webpd.model import Result
from webpd.redis.link import RedisDownError, RedisLink
from webpd.redis.presence import Presence, announce
from webpd.settings import RedisUrl

T = TypeVar("T")


class Opened:
    """A history, its link, and the loop that both live in, in a thread of its own."""

    def __init__(self, server: RedisServer) -> None:
        self.loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self.loop.run_forever)
        self._thread.start()
        self.link, self.history = self.wait(self._open(server))
        self._tasks = [self.wait(self.begin(run)) for run in (self.link.run, self.history.run)]

    async def _open(self, server: RedisServer) -> tuple[RedisLink, RedisHistory]:
        link = RedisLink(server.url, changed=lambda _: None)
        return link, RedisHistory(link, self.loop)

    async def begin(self, run: Callable[[], Coroutine[Any, Any, None]]) -> "asyncio.Task[None]":
        return asyncio.create_task(run())

    def wait(self, work: Coroutine[Any, Any, T]) -> T:
        return asyncio.run_coroutine_threadsafe(work, self.loop).result(30)

    def ask(self, work: Callable[[Redis], Awaitable[T]]) -> T:
        return self.wait(self.link.ask(work))

    def names(self) -> list[Any]:
        return self.ask(lambda redis: redis.scan(count=100_000))[1]

    def lifetime(self, key: bytes) -> int:
        return self.ask(lambda redis: redis.ttl(key))

    def evict(self, every: int, first: int) -> None:
        """Take one key of so many away, as Redis might."""
        self.ask(lambda redis: redis.eval(_EVICT, 0, every, first))

    def close(self) -> None:
        self.history.close()
        self.wait(self._end())
        self.loop.call_soon_threadsafe(self.loop.stop)
        self._thread.join()
        self.loop.close()

    async def _end(self) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self.link.close()


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    with RedisServer(tmp_path_factory.mktemp("redis")) as running:
        yield running


@pytest.fixture
def opening(server: RedisServer) -> Iterator[Callable[[], Opened]]:
    server.cli("FLUSHALL")
    current: list[Opened] = []

    def again() -> Opened:
        while current:
            current.pop().close()
        current.append(Opened(server))
        current[0].wait(current[0].link.until_up())
        return current[0]

    yield again
    for opened in current:
        opened.close()


@pytest.fixture
def opened(opening: Callable[[], Opened]) -> Opened:
    return opening()


@pytest.fixture
def reopen(opening: Callable[[], Opened]) -> Reopen:
    return lambda: opening().history


@pytest.fixture
def fresh(opening: Callable[[], Opened], server: RedisServer) -> Reopen:
    def anew() -> History:
        history = opening().history
        server.cli("FLUSHALL")
        return history

    return anew


class TestRedisHistory(HistoryContract):
    """The contract, on Redis."""


# What is kept


def test_all_keys_are_ours_and_none_is_for_ever(opened: Opened) -> None:
    opened.history.note([event(), failed("b.jpg"), failed("c/d.jpg")])
    opened.history.forget(ROOT, "c")
    opened.history.flush()
    day = 86_400
    longest = {"image:": 28 * day, "gone:": 28 * day, "failed": 28 * day, "minute:": 36 * day, "day:": 401 * day}
    seen = set()
    for key in opened.names():
        kind = next(kind for kind in (*longest, "probe") if key.startswith(f"webpd:{kind}".encode()))
        assert 0 < opened.lifetime(key) <= longest.get(kind, 60)
        seen.add(kind)
    assert seen == {*longest, "probe"}


def test_sums_are_told_for_as_long_as_they_are_kept(opened: Opened) -> None:
    now = time.time()
    for days in (1, 34, 37, 398, 402):
        opened.history.note([event(f"{days}.jpg", at=now - days * 86_400)])
    assert len(opened.history.series(0, now, "minute")) == 2
    assert len(opened.history.series(0, now, "day")) == 4
    assert opened.history.totals(0, now)[Result.CONVERTED] == Total(4, 4000, 2800, 1.0)


def test_a_forgotten_folder_takes_along_what_was_converted_in_it(opened: Opened) -> None:
    history = opened.history
    history.note([event("a/b/1.jpg"), event("a/2.jpg"), event("ab/3.jpg")])
    history.forget(ROOT, "a")
    assert [history.image(ROOT, path) for path in ("a/b/1.jpg", "a/2.jpg", "ab/3.jpg")] == [
        None,
        None,
        event("ab/3.jpg"),
    ]
    history.note([event("a/2.jpg", at=NOON + 1)])
    assert history.image(ROOT, "a/2.jpg") == event("a/2.jpg", at=NOON + 1)
    assert history.image(ROOT, "a/b/1.jpg") is None
    history.forget(ROOT, "")
    assert history.image(ROOT, "ab/3.jpg") is None


def test_of_too_many_failures_the_first_are_listed(opened: Opened, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(redis_records, "_NOTE", redis_records._NOTE.replace(str(redis_records.MOST_FAILED), "100"))
    for n in range(0, 300, 50):
        opened.history.note([failed(f"{m:03}.jpg") for m in range(n, n + 50)])
    assert [path for _, path in failures_in_pages(opened.history, None, 30)] == [f"{n:03}.jpg" for n in range(100)]
    assert opened.history.image(ROOT, "299.jpg") == failed("299.jpg")
    opened.history.note([event("000.jpg", at=NOON + 1), failed("299.jpg"), failed("298.jpg")])
    assert [path for _, path in failures_in_pages(opened.history, None, 30)][-2:] == ["099.jpg", "299.jpg"]


# Takes one key in ARGV[1] away.
_EVICT = """
for n, key in ipairs(redis.call('SCAN', '0', 'COUNT', 100000)[2]) do
    if n % ARGV[1] == ARGV[2] % ARGV[1] then redis.call('DEL', key) end
end
"""


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.tuples(st.sampled_from(["convert", "fail", "forget", "evict"]), st.integers(0, 5)), max_size=30))
def test_whatever_keys_vanish_what_is_told_is_true(opened: Opened, steps: list[tuple[str, int]]) -> None:
    history = opened.history
    opened.evict(1, 0)
    noted: dict[str, Event] = {}
    events = 0
    for at, (step, n) in enumerate(steps):
        path = f"{n % 2}/{n}.jpg"
        if step == "evict":
            history.flush()
            opened.evict(4, n)
        elif step == "forget":
            history.forget(ROOT, path if n < 4 else str(n % 2))
        else:
            noted[path] = event(path, Result.FAILED if step == "fail" else Result.CONVERTED, NOON + at)
            history.note([noted[path]])
            events += 1
    for path, expected in noted.items():
        assert history.image(ROOT, path) in {None, expected}
    failures = history.failures()
    assert failures == sorted((noted[each.path] for each in failures), key=lambda each: each.path)
    assert {each.result for each in failures} <= {Result.FAILED}
    assert history.failures() == failures
    assert history.reasons() == ({"damaged": len(failures)} if failures else {})
    assert sum(total.images for total in history.totals(0, NOON + 3600).values()) <= events
    history.note([failed("new.jpg"), event("new.png")])
    assert history.image(ROOT, "new.png") == event("new.png")
    assert failed("new.jpg") in history.failures()


def test_a_full_redis_forgets_the_oldest_and_goes_on(opened: Opened, server: RedisServer) -> None:
    server.cli("CONFIG", "SET", "maxmemory", "4mb")
    try:
        for n in range(0, 10_000, 50):
            opened.history.note(
                [event(f"{m}.jpg", at=NOON + n) if m % 10 else failed(f"{m}.jpg") for m in range(n, n + 50)]
            )
            opened.history.flush()
        assert int(server.info("stats")["evicted_keys"]) > 1000
        assert opened.history.image(ROOT, "9999.jpg")
        assert {each.result for each in opened.history.failures()} == {Result.FAILED}
        assert opened.history.dropped == 0
        assert opened.link.state.up
    finally:
        server.cli("CONFIG", "SET", "maxmemory", "512mb")


# A Redis that goes away


def test_what_happens_while_redis_is_away_is_told_when_it_is_back(tmp_path: Path) -> None:
    server = RedisServer(tmp_path)
    opened = Opened(server)
    opened.history.note([event("before.jpg")])
    opened.history.flush()
    with pytest.raises(RedisDownError):
        opened.history.image(ROOT, "before.jpg")
    with server:
        opened.wait(opened.link.until_up())
        assert opened.history.image(ROOT, "before.jpg") == event("before.jpg")
        opened.close()


def test_what_waits_for_redis_is_bounded_and_the_rest_is_counted(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(redis_history, "MOST_WAITING", 1000)
    server = RedisServer(tmp_path)
    opened = Opened(server)
    for n in range(0, 3000, 50):
        opened.history.note([event(f"{m}.jpg") for m in range(n, n + 50)])
    assert opened.history.dropped == 2000
    with server:
        opened.wait(opened.link.until_up())
        opened.history.flush()
        assert opened.history.totals(0, NOON + 60)[Result.CONVERTED].images == 1000
        assert opened.history.image(ROOT, "1999.jpg") is None
        assert opened.history.image(ROOT, "2000.jpg")
        assert opened.history.dropped == 2000
        opened.close()


def test_what_was_on_its_way_counts_once_at_most_and_is_counted_as_dropped(opened: Opened, server: RedisServer) -> None:
    for turn in range(2):
        server.freeze()
        for n in range(20):
            opened.history.note([event(f"{turn}/{n}/{m}.jpg") for m in range(50)])
        wait_for(lambda: not opened.link.state.up, "that it is noticed")
        server.thaw()
        opened.wait(opened.link.until_up())
    opened.history.flush()
    images = opened.history.totals(0, NOON + 60)[Result.CONVERTED].images
    assert images <= 2 * 1000
    assert opened.history.dropped >= 2
    assert images + opened.history.dropped >= 2 * 1000


def test_notes_go_on_through_a_restart(tmp_path: Path) -> None:
    with RedisServer(tmp_path) as server:
        opened = Opened(server)
        opened.wait(opened.link.until_up())
        for n in range(30):
            opened.history.note([event(f"{n}/{m}.jpg") for m in range(50)])
            if n == 10:
                server.restart(empty=True)
        wait_for(lambda: opened.link.state.up, "that it is back")
        opened.history.note([event("last.jpg")])
        assert opened.history.image(ROOT, "last.jpg") == event("last.jpg")
        opened.close()


def test_after_the_loop_has_ended_notes_harm_nobody(opening: Callable[[], Opened]) -> None:
    opened = opening()
    opening()
    opened.history.note([event()])
    opened.history.forget(ROOT, "a")


# For who has no link


HOST = Presence("cdn-1", 17, "work", "0.4.0", "00ff", 1.79e9, {"fresh": 3}, 2, 41.5, {"/srv/\udcff": "well"})


def test_what_all_hosts_know_is_read_at_once(opened: Opened, server: RedisServer) -> None:
    now = NOON + 100_000.0
    opened.history.note(
        [event("1.jpg", at=NOON), event("2.jpg", at=now - 7200), failed("3.jpg"), event("4.jpg", at=now)]
    )
    opened.history.flush()
    telling = opened.wait(opened.begin(partial(announce, opened.link, lambda: HOST)))
    wait_for(lambda: read_shared(server.url, now + 60).hosts, "that it is there")
    shared = read_shared(server.url, now + 60)
    assert {period: totals[Result.CONVERTED].images for period, totals in shared.totals.items()} == {
        "hour": 1,
        "day": 2,
        "all": 3,
    }
    assert shared.totals["all"][Result.FAILED].images == 1
    assert shared.hosts == [HOST]
    opened.loop.call_soon_threadsafe(telling.cancel)
    wait_for(lambda: not read_shared(server.url, now).hosts, "that it has gone")


def test_reading_from_a_redis_that_is_not_there_or_hangs_is_told(server: RedisServer) -> None:
    with pytest.raises(RedisDownError, match=r"Redis at redis://127\.0\.0\.1:\d+/0 refuses connections"):
        read_shared(RedisUrl(f"redis://127.0.0.1:{free_port()}/0"), NOON)
    server.freeze()
    try:
        with pytest.raises(RedisDownError, match=r"does not answer within 0\.2 s"):
            read_shared(server.url, NOON, within=0.2)
    finally:
        server.thaw()
    with pytest.raises(RedisDownError, match="refuses the user or the password"):
        read_shared(server.url_of("webpd", "wrong"), NOON)
