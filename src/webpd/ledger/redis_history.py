"""The history in Redis, shared by all hosts."""

import asyncio
import contextlib
import threading
import time
from collections import deque
from collections.abc import Awaitable, Callable, Coroutine, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeVar

from redis.asyncio import Redis
from redis.exceptions import RedisError

from webpd.ledger import redis_records as records
from webpd.ledger.history import Event, Step, Total
from webpd.model import Result
from webpd.redis.faults import explain
from webpd.redis.link import RedisDownError, RedisLink, open_client
from webpd.redis.presence import Presence, hosts
from webpd.settings import RedisUrl

T = TypeVar("T")

MOST_WAITING = 10_000
"""Of more than that to be told to Redis, the oldest is dropped: some MiB, and minutes of an outage."""

_BATCH = 250
_GATHER = 0.2
"""Seconds for which more is waited for: one call for many costs less than one for each."""
_READ_WITHIN = 5.0
_WAIT = 10.0
"""Seconds that a thread waits for the loop."""

_PERIODS = {"hour": 3_600.0, "day": 86_400.0, "all": float("inf")}


class RedisHistory:
    """The history in the link's Redis. Implements ``History`` for threads; the link lives in ``loop``, as ``run`` does.

    ``note`` and ``forget`` only put it down; ``run`` tells Redis, each thing once at most: what was on its way when
    the connection broke may be lost, and is counted as ``dropped``. Questions raise ``RedisDownError``.
    """

    def __init__(self, link: RedisLink, loop: asyncio.AbstractEventLoop) -> None:
        self._link = link
        self._loop = loop
        self._lock = threading.Lock()
        self._waiting: deque[Event | records.Forgotten] = deque()
        self._some = asyncio.Event()
        self._sending = asyncio.Lock()
        self.dropped = 0
        """How many events were not told to Redis, or may not have been, and never will be."""

    async def run(self) -> None:
        """Tell Redis what happens, until cancelled."""
        while True:
            await self._some.wait()
            await self._link.until_up()
            await asyncio.sleep(_GATHER)
            self._some.clear()
            with contextlib.suppress(RedisDownError):  # the link says so
                await self._send()
            if self._waiting:
                self._some.set()

    def note(self, events: Sequence[Event]) -> None:
        self._put_down(events)

    def forget(self, root: str, path: str) -> None:
        self._put_down([(root, path)])

    def image(self, root: str, path: str) -> Event | None:
        return self._ask(lambda redis: records.read_image(redis, root, path))

    def failures(
        self, root: str | None = None, *, after: tuple[str, str] | None = None, limit: int = 1000
    ) -> list[Event]:
        return self._ask(lambda redis: records.read_failures(redis, root, after, limit))

    def reasons(self) -> Mapping[str, int]:
        return self._ask(records.read_reasons)

    def totals(self, since: float, until: float) -> Mapping[Result, Total]:
        return self._ask(lambda redis: records.read_totals(redis, since, until, time.time()))

    def series(self, since: float, until: float, step: Step) -> list[tuple[int, Result, Total]]:
        return self._ask(lambda redis: records.read_series(redis, since, until, step, time.time()))

    def flush(self) -> None:
        """Tell Redis what it was not told yet; while it is down, that goes on waiting."""
        with contextlib.suppress(RedisDownError):
            self._wait(self._send())

    def close(self) -> None:
        self.flush()

    def _put_down(self, told: Sequence[Event | records.Forgotten]) -> None:
        with self._lock:
            self._waiting.extend(told)
            while len(self._waiting) > MOST_WAITING:
                self._waiting.popleft()
                self.dropped += 1
        with contextlib.suppress(RuntimeError):  # the loop has ended
            self._loop.call_soon_threadsafe(self._some.set)

    def _ask(self, work: Callable[[Redis], Awaitable[T]]) -> T:
        async def ask() -> T:
            await self._send()
            return await self._link.ask(work, within=_READ_WITHIN)

        return self._wait(ask())

    def _wait(self, work: Coroutine[Any, Any, T]) -> T:
        future = asyncio.run_coroutine_threadsafe(work, self._loop)
        try:
            return future.result(_WAIT)
        except TimeoutError as error:
            future.cancel()
            raise RedisDownError(f"Redis was not asked within {_WAIT:g} s: the event loop does not turn") from error

    async def _send(self) -> None:
        """Tell Redis what waits. Raises ``RedisDownError``: a batch may be lost, and the rest goes on waiting."""
        async with self._sending:
            while self._waiting and self._link.state.up:
                with self._lock:
                    batch = [self._waiting.popleft() for _ in range(min(_BATCH, len(self._waiting)))]
                try:
                    await self._link.ask(partial(records.write, told=batch))
                except BaseException:
                    with self._lock:
                        self.dropped += len(batch)
                    raise


@dataclass(frozen=True, slots=True)
class Shared:
    """What all hosts know together: the sums of the last hour, the last day and of all time, and who is there."""

    totals: Mapping[str, Mapping[Result, Total]]
    hosts: Sequence[Presence]


def read_shared(url: RedisUrl, now: float, *, within: float = 2.0) -> Shared:
    """Return what Redis knows at ``now`` (Unix time, seconds), within so many seconds.

    For who has no link. Raises ``RedisDownError`` and ``UsageError``.
    """
    return asyncio.run(_read_shared(url, now, within))


async def _read_shared(url: RedisUrl, now: float, within: float) -> Shared:
    variable = "WEBPD_REDIS_URL"
    redis = open_client(url, variable)
    try:
        async with asyncio.timeout(within):
            totals = {
                period: await records.read_totals(redis, max(0.0, now - seconds), now, now)
                for period, seconds in _PERIODS.items()
            }
            return Shared(totals, await hosts(redis))
    except (RedisError, OSError) as error:
        raise RedisDownError(f"Redis at {url.public} {explain(error, within, variable)}") from error
    finally:
        with contextlib.suppress(RedisError):
            await redis.connection_pool.aclose()
