"""How much may be taken in how long (``WEBPD_RATE_LIMIT``, ``WEBPD_RATE_LIMIT_BYTES``), by the library ``limits``."""

import math
import time
from collections.abc import Callable, Sequence
from typing import NamedTuple, Protocol

from limits import RateLimitItem, RateLimitItemPerSecond
from limits.storage import MemoryStorage
from limits.strategies import MovingWindowRateLimiter, SlidingWindowCounterRateLimiter

from webpd.queue.port import Lane
from webpd.settings import Rate

TICK = 0.001
"""Seconds: the shortest time after which to ask again."""

# Who stands in line is told to ask again within so many seconds, and loses its place so many seconds after that.
_PATIENCE = 1.0
# After so many seconds it is asked whether the first in line has gone.
_LOOK = 0.05


def item_of(rate: Rate, name: str) -> RateLimitItem:
    """Return the limit as the library writes it; keys begin with ``name``."""
    return RateLimitItemPerSecond(rate.amount, rate.seconds, name)


class SlidingWindow(NamedTuple):
    """A sliding-window counter, as the storages of ``limits`` tell of it: two counts, and the seconds left to them.

    ``current`` is what was counted since the window turned, and turns into ``previous`` one window before it ends. Of
    ``previous`` that share counts which it would have if it had come evenly.
    """

    previous: int
    previous_left: float
    current: int
    current_left: float

    def room(self, rate: Rate) -> int:
        return max(0, rate.amount - math.floor(self.previous * self.previous_left / rate.seconds + self.current))

    def wait(self, rate: Rate, cost: int) -> float:
        """Return the seconds until there is room for ``cost`` if nothing else is counted; 0.0: there is now."""
        if self.room(rate) >= cost:
            return 0.0
        most = rate.amount - cost + 1
        if self.current < most:
            return max(self.previous_left - (most - self.current) * rate.seconds / self.previous, TICK)
        turns_in = self.current_left - rate.seconds
        return max(turns_in + rate.seconds - most * rate.seconds / self.current, TICK)


class Counter(Protocol):
    """Holds what passes against one limit."""

    def wait(self, cost: int) -> float:
        """Return the seconds until there may be room for so much, at most the limit; 0.0: there is now."""

    def count(self, cost: int) -> bool:
        """Count what there is room for; False: there was none after all, by less than the clock can tell."""


class _MovingWindow:
    """Remembers the time of each image: exact, in any stretch of time."""

    def __init__(self, storage: MemoryStorage, rate: Rate, name: str) -> None:
        self._item = item_of(rate, name)
        self._limiter = MovingWindowRateLimiter(storage)

    def wait(self, cost: int) -> float:
        window = self._limiter.get_window_stats(self._item)
        return 0.0 if window.remaining >= cost else max(window.reset_time - time.time(), TICK)

    def count(self, cost: int) -> bool:
        return self._limiter.hit(self._item, cost=cost)


class _SlidingWindowCounter:
    """Two numbers, however many KiB they count. On average exact, and below twice the limit in any stretch of time."""

    def __init__(self, storage: MemoryStorage, rate: Rate, name: str) -> None:
        self._rate = rate
        self._item = item_of(rate, name)
        self._storage = storage
        self._limiter = SlidingWindowCounterRateLimiter(storage)

    def wait(self, cost: int) -> float:
        counts = self._storage.get_sliding_window(self._item.key_for(), self._item.get_expiry())
        return SlidingWindow(*counts).wait(self._rate, cost)

    def count(self, cost: int) -> bool:
        return self._limiter.hit(self._item, cost=cost)


class Bound:
    """One limit, and the allowance by which ``Lane.URGENT`` may exceed it: ``urgent`` percent, rounded down."""

    def __init__(self, rate: Rate, urgent: int, counter: Callable[[Rate, str], Counter]) -> None:
        self._rate = rate
        self._allowance = rate.amount * urgent // 100
        name = "source" if rate.unit else "images"
        self._usual = counter(rate, name)
        self._extra = counter(rate._replace(amount=self._allowance), f"{name}-urgent") if self._allowance else None

    def place(self, lane: Lane, size: int) -> tuple[float, Counter, int]:
        """Return the seconds until the image has a place, the counter where that is, and what it costs there.

        An image that is larger than the limit costs all of it: it passes when nothing else counts.
        """
        cost = max(1, math.ceil(size / 1024)) if self._rate.unit else 1
        at_most = min(cost, self._rate.amount)
        wait = self._usual.wait(at_most)
        if wait and lane is Lane.URGENT and self._extra is not None and cost <= self._allowance:
            sooner = self._extra.wait(cost)
            if sooner < wait:
                return sooner, self._extra, cost
        return wait, self._usual, at_most


class RateLimit:
    """Lets no more pass than ``images`` and ``source`` (KiB of originals) say, on this host. Implements ``Limit``.

    What is urgent counts as well, and may exceed either limit by ``urgent`` percent within the same time. Where sizes
    count, those that are refused stand in line, but for what is urgent: smaller images of other roots would take away
    all the room that a large one waits for.
    """

    def __init__(self, images: Rate | None, source: Rate | None, urgent: int) -> None:
        self._rates = [rate for rate in (images, source) if rate is not None]
        self._sizes_count = source is not None
        self._urgent = urgent
        self._begin()

    def _begin(self) -> None:
        """Start counting at nothing."""
        storage = MemoryStorage()

        def counter(rate: Rate, name: str) -> Counter:
            return (_SlidingWindowCounter if rate.unit else _MovingWindow)(storage, rate, name)

        self._own = [Bound(rate, self._urgent, counter) for rate in self._rates]
        # Sizes (nothing else is known of an image here), and when each loses its place.
        self._line: dict[int, float] = {}
        self._first_due = self._latest = time.time()

    def admit(self, lane: Lane, size: int) -> float:
        now = time.time()
        if now < self._latest:
            # limits counts by the wall clock, and that was set back: what it counted would block for as long as that.
            self._begin()
        self._latest = now
        return self._admit_in_line(lane, size, now) if self._sizes_count else self._pass(lane, size)

    def _admit_in_line(self, lane: Lane, size: int, now: float) -> float:
        line = self._line = {other: lapses for other, lapses in self._line.items() if now < lapses}
        if lane is Lane.URGENT or size == next(iter(line), size):
            wait = min(self._pass(lane, size), _PATIENCE)
        else:
            wait = max(self._first_due - now, _LOOK)
        if not wait:
            line.pop(size, None)
            return 0.0
        line[size] = now + wait + _PATIENCE
        if size == next(iter(line)):
            self._first_due = now + wait
        return wait

    def _pass(self, lane: Lane, size: int) -> float:
        """Count the image everywhere, or nowhere and return the seconds until it may have a place."""
        places = []
        for bound in self._bounds():
            wait, counter, cost = bound.place(lane, size)
            if wait:
                return wait
            places.append((counter, cost))
        # Only the moving window may yet refuse, and images are counted first: then nothing was counted anywhere.
        return 0.0 if all(counter.count(cost) for counter, cost in places) else TICK

    def _bounds(self) -> Sequence[Bound]:
        return self._own
