"""One rate limit for all hosts together, by what each takes from a Redis that they share.

Under ``KEYS`` are two counts for each limit, made by ``limits`` and timed by the clock of Redis, and whose turn it is.
Hosts that are set to different limits do not share them.
"""

import asyncio
import math
import secrets
import time
from collections.abc import Sequence

import structlog
from limits.aio.storage import RedisStorage
from limits.aio.strategies import SlidingWindowCounterRateLimiter
from redis.asyncio import Redis

from webpd.queue.rate import TICK, Bound, RateLimit, SlidingWindow, item_of
from webpd.redis import PREFIX
from webpd.redis.link import RedisDownError, RedisLink
from webpd.settings import Rate

KEYS = f"{PREFIX}rate"

# So many seconds an image waits for an answer of Redis, looking again after so many; then this host decides by itself.
_ANSWER_WITHIN = 0.05
_ANSWER_SOON = 0.005
# For so many seconds Redis is not asked after a call that failed.
_REST = 0.5
# A batch is what is used up in so many seconds, and at most this part of the limit: each host is to have its share.
_AHEAD = 0.5
_SHARE = 20
# When Redis had too little, it is not asked again before, and always after so many seconds: it may have been flushed.
_EARLIEST, _LATEST = 0.02, 1.0
# The host whose turn it is has to say so again within so many seconds; the others look after so many.
_TURN = 2.0
_LOOK = 0.25

_log = structlog.get_logger(__name__)


class SharedRateLimit(RateLimit):
    """The limits of ``RateLimit`` for all hosts that share a Redis. Implements ``Limit``; ``run`` must run beside it.

    Nobody waits for Redis: allowance is taken ahead. While Redis is down, or does not answer within 50 ms, each host
    keeps to the whole limit by itself. It counts by itself all the time: no host alone ever passes more than
    ``RateLimit`` lets it. All together pass no more on average, and in any stretch of time less than twice the limit
    and one batch (a 20th of the limit) for each host.
    """

    def __init__(self, link: RedisLink, images: Rate | None, source: Rate | None, urgent: int) -> None:
        super().__init__(images, source, urgent)
        self._link = link
        self._allowances: list[_Allowance] = []
        self._together = [Bound(rate, urgent, self._allowance) for rate in self._rates]
        self._storage: RedisStorage | None = None
        self._host = secrets.token_hex(8).encode()
        self._needed = asyncio.Event()
        self._asked: float | None = None
        self._rests_until = 0.0
        self._shared: bool | None = None

    def _allowance(self, rate: Rate, name: str) -> "_Allowance":
        self._allowances.append(_Allowance(rate, name, self))
        return self._allowances[-1]

    def _bounds(self) -> Sequence[Bound]:
        return [*self._own, *self._together]

    @property
    def shared(self) -> bool:
        """Whether the limit holds for all hosts together; only images that pass show that."""
        return self._shared is True and self._link.state.up

    def alone(self) -> bool:
        """Tell whether this host must do without Redis now, and let the log tell when that has changed."""
        state = self._link.state
        if not state.up:
            if state.errors:  # otherwise it was not asked yet
                self._become(shared=False)
            return True
        now = time.monotonic()
        return now < self._rests_until or (self._asked is not None and now > self._asked + _ANSWER_WITHIN)

    def ask(self) -> None:
        """Let ``run`` take what is lacking."""
        self._needed.set()
        if self._asked is None:
            self._asked = time.monotonic()

    async def run(self) -> None:
        """Take allowance when it is needed, until cancelled."""
        while True:
            await self._needed.wait()
            self._needed.clear()
            self._asked = time.monotonic()
            try:
                # The call may take longer than an image waits: what it brings late is still of use, and not lost.
                await self._link.ask(self._refill)
            except RedisDownError:
                self._rests_until = time.monotonic() + _REST
            else:
                self._become(shared=True)
            self._asked = None

    async def _refill(self, redis: Redis) -> None:
        if self._storage is None:
            pool = redis.connection_pool
            self._storage = RedisStorage(
                "redis://",
                implementation="redispy",
                key_prefix=KEYS,
                connection_pool=pool,  # type: ignore[arg-type]  # documented, but declared like other options
            )
        for allowance in self._allowances:
            await allowance.refill(redis, self._storage, self._host)

    def _become(self, *, shared: bool) -> None:
        if shared == self._shared:
            return
        self._shared = shared
        if shared:
            _log.info("the rate limit holds for all hosts together")
        else:
            _log.warning("each host keeps to the whole rate limit by itself", detail=self._link.state.detail)


class _Allowance:
    """What one limit lets this host count: taken from Redis in batches, used up here. Implements ``Counter``.

    What is not used within the time of the limit lapses: at most one batch, and that only on a host that has become
    idle. Nothing is taken ahead where the limit is too small for a batch, and none of what is for urgent images.
    """

    def __init__(self, rate: Rate, name: str, limit: SharedRateLimit) -> None:
        self._rate = rate
        self._item = item_of(rate, name)
        self._turn = f"{KEYS}:turn:{self._item.key_for()}"
        self._limit = limit
        self._most = 0 if name.endswith("-urgent") else rate.amount // _SHARE
        self._stock, self._lapses = 0, 0.0
        self._used, self._used_since = 0, time.monotonic()
        self._wanted = 0
        self._closed_until = 0.0

    def wait(self, cost: int) -> float:
        now = time.monotonic()
        if now >= self._lapses:
            self._stock = 0
        if self._stock >= cost or self._limit.alone():
            return 0.0
        self._wanted = max(self._wanted, cost)
        if now < self._closed_until:
            return max(self._closed_until - now, TICK)
        self._limit.ask()
        return _ANSWER_SOON

    def count(self, cost: int) -> bool:
        self._stock = max(0, self._stock - cost)
        self._used += cost
        now = time.monotonic()
        if self._stock < self._batch(now) / 2 and now >= self._closed_until and not self._limit.alone():
            self._limit.ask()
        return True

    def _batch(self, now: float) -> int:
        seconds = max(now - self._used_since, _AHEAD / 2)
        return min(self._most, math.ceil(self._used * _AHEAD / seconds))

    async def refill(self, redis: Redis, storage: RedisStorage, host: bytes) -> None:
        """Take what is lacking, or what there is of it; for an image larger than a batch, all of it or nothing.

        A host with such an image takes the turn, and the others wait until it has passed: they would take away, in
        small batches, all the room that it waits for.
        """
        now = time.monotonic()
        if now < self._closed_until:
            return
        wanted, self._wanted = self._wanted, 0
        lacking = max(wanted, self._batch(now)) - self._stock
        if now > self._used_since + _AHEAD:
            self._used, self._used_since = 0, now
        if lacking <= 0:
            return
        whose = await redis.get(self._turn) if self._rate.unit else None
        if whose not in {None, host}:
            self._close(_LOOK)
            return
        window = SlidingWindow(*await storage.get_sliding_window(self._item.key_for(), self._rate.seconds))
        taken = min(lacking, window.room(self._rate))
        if taken < lacking and wanted - self._stock > max(self._most, 1):
            await redis.set(self._turn, host, px=int(_TURN * 1000))
            taken = 0
        elif whose == host:
            await redis.delete(self._turn)
            self._close(2 * _LOOK)  # so that the others come to know
        if taken and await SlidingWindowCounterRateLimiter(storage).hit(self._item, cost=taken):
            self._stock += taken
            self._lapses = time.monotonic() + self._rate.seconds
            window = window._replace(current=window.current + taken)
        if taken < lacking:
            wait = window.wait(self._rate, min(max(wanted - self._stock, 1), self._rate.amount))
            self._close(min(max(wait, _EARLIEST), _LATEST))

    def _close(self, seconds: float) -> None:
        """Ask for nothing for so many seconds."""
        self._closed_until = max(self._closed_until, time.monotonic() + seconds)
