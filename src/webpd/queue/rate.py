"""How many images may be taken in how long (``WEBPD_RATE_LIMIT``), by the library ``limits``."""

import asyncio
import time

from limits import RateLimitItem, parse_many
from limits.storage import MemoryStorage
from limits.strategies import MovingWindowRateLimiter

_MOST = 100_000
"""The moving window remembers each image within it, in about 150 bytes."""


def parse(text: str) -> RateLimitItem | None:
    """Read a limit such as ``600/minute``, ``10/second`` or ``5000 per 2 hours``; ``none`` (or nothing) is None.

    Raises ValueError, saying what is allowed.
    """
    if text.strip().lower() in {"", "none"}:
        return None
    try:
        items = parse_many(text)
    except ValueError:
        items = []
    if len(items) != 1 or items[0].amount < 1:
        raise ValueError("allowed: none, or a number of images in a time, such as 600/minute or 10/second")
    if items[0].amount > _MOST:
        raise ValueError(f"allowed: up to {_MOST} images in a time; choose a shorter time")
    return items[0]


class RateLimit:
    """Lets no more than ``item.amount`` through in any stretch of ``item.get_expiry()`` seconds; in order of asking."""

    def __init__(self, item: RateLimitItem) -> None:
        self._item = item
        self._limiter = MovingWindowRateLimiter(MemoryStorage())
        self._line = asyncio.Lock()

    async def admit(self) -> None:
        """Wait until one more image may be taken, and count it."""
        async with self._line:
            while not self._limiter.hit(self._item):  # noqa: ASYNC110 - sleeps as long as the window is full
                await asyncio.sleep(self._wait())

    def _wait(self) -> float:
        """Return the seconds until the oldest image leaves the window."""
        window = self._limiter.get_window_stats(self._item)
        # At the very moment when an image leaves, limits no longer counts it but still refuses.
        wait = 0.0 if window.remaining else window.reset_time - time.time()
        if wait > self._item.get_expiry():
            # limits counts by the wall clock, and that was set back: what it counted would block for as long as that.
            self._limiter.clear(self._item)
            return 0.0
        return max(wait, 0.001)
