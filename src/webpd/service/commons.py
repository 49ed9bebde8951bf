"""What this host shares with others by Redis: the history, the rate limit, and word of who is there.

None of it is needed: without Redis the service goes on, and says so.
"""

import asyncio
import contextlib
from collections.abc import Callable, Coroutine, Sequence
from functools import partial
from typing import Any

from webpd.ledger.history import History
from webpd.ledger.redis_history import RedisHistory
from webpd.queue.port import Limit
from webpd.redis.link import LinkState, RedisLink
from webpd.redis.presence import Presence, announce
from webpd.service.shared import tell_fault
from webpd.settings import Settings
from webpd.times import utc

_LAST_WAIT = 2.0
"""Seconds that Redis has for the last words at the end."""


class Commons:
    """What is shared where ``WEBPD_REDIS_URL`` is set; nothing otherwise. Belongs to one event loop.

    ``limit`` is how much this host may take, None for all it can. Raises ``UsageError``: a URL that can't be one.
    """

    def __init__(self, settings: Settings) -> None:
        self._link: RedisLink | None = None
        self._history: RedisHistory | None = None
        self._runs: list[Callable[[], Coroutine[Any, Any, Any]]] = []
        self._tasks: list[asyncio.Task[Any]] = []
        if settings.redis_url is not None:
            self._link = RedisLink(settings.redis_url)
            self._history = RedisHistory(self._link, asyncio.get_running_loop())
            self._runs = [self._link.run, self._history.run]
        self.limit = self._limit_of(settings)

    def _limit_of(self, settings: Settings) -> Limit | None:
        images, source, urgent = settings.rate_limit, settings.rate_limit_bytes, settings.rate_limit_urgent
        if images is None and source is None:
            return None
        # The library behind them takes 0.1 s to import, and most need no limit.
        if self._link is None:
            from webpd.queue.rate import RateLimit  # noqa: PLC0415

            return RateLimit(images, source, urgent)
        from webpd.queue.shared_rate import SharedRateLimit  # noqa: PLC0415

        shared = SharedRateLimit(self._link, images, source, urgent)
        self._runs.append(shared.run)
        return shared

    @property
    def histories(self) -> Sequence[History]:
        """Where to note what happened, beside this host's own history."""
        return [self._history] if self._history else []

    def start(self, presence: Callable[[], Presence]) -> None:
        """Begin; ``presence`` says what others are to know of this process."""
        if self._link:
            self._runs.append(partial(announce, self._link, presence))
        self._tasks = [asyncio.create_task(run()) for run in self._runs]
        for task in self._tasks:
            task.add_done_callback(tell_fault)

    async def close(self) -> None:
        """Tell Redis the rest, if it answers, and let go of it."""
        if self._link is None or self._history is None:
            return
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_LAST_WAIT):
                await asyncio.to_thread(self._history.close)
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._link.close()

    @property
    def link(self) -> LinkState | None:
        """How Redis is, None where none is set."""
        return self._link.state if self._link else None

    @property
    def dropped(self) -> int:
        """How many events Redis was never told."""
        return self._history.dropped if self._history else 0


def shown(link: LinkState | None) -> dict[str, Any]:
    """Return how a Redis is, ready for JSON."""
    if link is None:
        return {"configured": False}
    return {"configured": True, "up": link.up, "since": utc(link.since), "detail": link.detail}
