"""The history in Redis: the contract, keys that vanish, lifetimes, bounds, a Redis that goes away."""

import asyncio
import threading
from collections.abc import Awaitable, Callable, Coroutine, Iterator
from pathlib import Path
from typing import Any, TypeVar

import pytest
from redis.asyncio import Redis

from tests.lab import wait_for
from tests.ledger.history_contract import NOON, ROOT, HistoryContract, Reopen, event, failed
from tests.redis.server import RedisServer
from webpd.ledger.history import History
from webpd.ledger.redis_history import RedisHistory
from webpd.redis.link import RedisLink

T = TypeVar("T")


class Opened:
    """A history, its link, and the loop that both live in, in a thread of its own."""

    def __init__(self, server: RedisServer) -> None:
        self.loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self.loop.run_forever)
        self._thread.start()
        self.link, self.history = self.wait(self._open(server))
        self.tasks = [self.wait(self._begin(run)) for run in (self.link.run, self.history.run)]

    async def _open(self, server: RedisServer) -> tuple[RedisLink, RedisHistory]:
        link = RedisLink(server.url, changed=lambda _: None)
        return link, RedisHistory(link, self.loop)

    async def _begin(self, run: Callable[[], Awaitable[None]]) -> "asyncio.Task[None]":
        return asyncio.ensure_future(run())

    def wait(self, work: Coroutine[Any, Any, T]) -> T:
        return asyncio.run_coroutine_threadsafe(work, self.loop).result(30)

    def ask(self, work: Callable[[Redis], Awaitable[T]]) -> T:
        return self.wait(self.link.ask(work))

    def close(self) -> None:
        self.history.close()
        self.wait(self._end())
        self.loop.call_soon_threadsafe(self.loop.stop)
        self._thread.join()
        self.loop.close()

    async def _end(self) -> None:
        for task in self.tasks:
            task.cancel()
        await asyncio.gather(*self.tasks, return_exceptions=True)
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


# Keys that vanish


def keys(server: RedisServer) -> list[str]:
    """Return all keys, as JSON texts would write them."""
    return server.cli("--json", "KEYS", "*")


@settings(
    max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture], print_blob=True
)
@given(st.lists(st.tuples(st.sampled_from(["note", "fail", "forget", "evict"]), st.integers(0, 5)), max_size=30))
def test_whatever_keys_vanish_what_is_told_is_true(opened: Opened, steps: list[tuple[str, int]]) -> None:
    """``evict`` takes one key in six away, whichever these are."""
    history = opened.history
    opened.ask(lambda redis: redis.flushall() if False else redis.eval(_EVICT, 0, 1, 0))
    last: dict[str, Event | None] = {}
    noted = 0
    for at, (step, n) in enumerate(steps):
        path = f"{n % 2}/{n}.jpg"
        if step == "evict":
            opened.ask(partial(lambda redis, n: redis.eval(_EVICT, 0, 6, n), n=n))
        elif step == "forget":
            history.forget(ROOT, path if n < 4 else str(n % 2))
            last |= {known: None for known in last if known == path or (n >= 4 and known.startswith(f"{n % 2}/"))}
        else:
            last[path] = event(path, Result.FAILED if step == "fail" else Result.CONVERTED, NOON + at)
            history.note([last[path]])
            noted += 1
        history.flush()
    for path, expected in last.items():
        assert history.image(ROOT, path) in {None, expected}
    failures = history.failures()
    assert failures == sorted(failures, key=lambda each: each.path)
    assert all(last[each.path] == each for each in failures)
    assert history.failures() == failures
    assert sum(history.reasons().values()) == len(failures)
    assert sum(total.images for total in history.totals(0, NOON + 3600).values()) <= noted
