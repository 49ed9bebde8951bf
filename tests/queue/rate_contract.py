"""What every rate limit must do, in virtual time or in real.

A module that tests one inherits ``RateContract`` and has a fixture ``anyio_backend``. Nothing here fails because the
machine is slow: what is measured is that nothing passes too soon, and what must pass has a generous deadline.
"""

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass

import pytest

from tests.queue.contract import BACKFILL, FRESH, URGENT
from webpd.queue.port import Lane, Limit
from webpd.settings import Rate

KIB = 1024
LONG = 30.0
"""Seconds: much longer than anything here takes, much shorter than a minute."""

Make = Callable[[Rate | None, Rate | None, int], Awaitable[Limit]]
"""Makes a limit: images, KiB, percent for what is urgent."""


def now() -> float:
    return asyncio.get_running_loop().time()


def images(amount: int, seconds: int = 1) -> Rate:
    return Rate(amount, seconds)


def source(kib: int, seconds: int = 1) -> Rate:
    return Rate(kib, seconds, "KiB")


@dataclass(frozen=True)
class Passed:
    """An image that passed between two readings of the clock, after so many questions."""

    before: float
    after: float
    size: int
    asked: int


async def let_pass(limit: Limit, sizes: Iterable[int], lane: Lane = FRESH, within: float = 10 * LONG) -> list[Passed]:
    """Let images pass, one after the other, as a queue does: each asks again when it is told to."""
    passed = []
    async with asyncio.timeout(within):
        for size in sizes:
            asked, before = 1, now()
            while wait := limit.admit(lane, size):
                assert wait > 0
                await asyncio.sleep(wait)
                asked, before = asked + 1, now()
            passed.append(Passed(before, now(), size, asked))
    return passed


async def is_refused(limit: Limit, lane: Lane, size: int = KIB, seconds: float = 0.2) -> bool:
    """Tell whether an image is refused, and still is after a while in which all that may be on its way has come."""
    until = now() + seconds
    while now() < until:
        if not limit.admit(lane, size):
            return False
        await asyncio.sleep(0.02)
    return True


def most_in(passed: Sequence[Passed], seconds: float, weight: Callable[[Passed], int]) -> int:
    """Return the most that has surely passed in any stretch of so many seconds."""
    return max(
        sum(weight(one) for one in passed[number:] if one.after < first.before + seconds)
        for number, first in enumerate(passed)
    )


class RateContract:
    """A class that inherits it has a fixture ``make`` that gives a ``Make``."""

    pytestmark = pytest.mark.anyio

    async def test_an_image_counts_whole_kibibytes_and_at_least_one(self, make: Make) -> None:
        limit, begun = await make(None, source(8, 60), 0), now()
        await let_pass(limit, [0, 1, 1024, 1025, 2049])
        assert now() - begun < LONG, "1 + 1 + 1 + 2 + 3 KiB"
        assert await is_refused(limit, FRESH, 0)

    async def test_no_more_passes_than_both_limits_allow_and_who_waits_is_told_how_long(self, make: Make) -> None:
        limit, begun = await make(images(10), source(100), 0), now()
        passed = await let_pass(limit, [KIB] * 15 + [40 * KIB] * 3)
        assert most_in(passed, 1, lambda _: 1) <= 10
        assert most_in(passed, 1, lambda one: one.size) < 200 * KIB, "as exact as a sliding-window counter is"
        assert passed[-1].after - passed[0].before >= 1
        assert sum(one.asked for one in passed) <= 4 * len(passed) + 50 * (now() - begun)

    @pytest.mark.parametrize("limits", [(images(2), source(4, 60)), (images(4, 60), source(2))])
    async def test_what_one_limit_refuses_is_not_counted_in_the_other(
        self, make: Make, limits: tuple[Rate, Rate]
    ) -> None:
        limit, begun = await make(*limits, 0), now()
        await let_pass(limit, [KIB] * 2)
        for _ in range(50):
            limit.admit(BACKFILL, KIB)
            await asyncio.sleep(0.001)
        await let_pass(limit, [KIB])
        assert now() - begun < LONG, "the limit of a minute has had room all the time"

    async def test_an_image_larger_than_the_limit_passes_alone(self, make: Make) -> None:
        limit = await make(None, source(100), 0)
        small = await let_pass(limit, [KIB] * 10)
        (large,) = await let_pass(limit, [5000 * KIB])
        (after,) = await let_pass(limit, [KIB])
        assert large.after - small[-1].before >= 0.8
        assert after.asked > 1, "the large one has filled the limit"

    async def test_a_large_image_is_not_starved_by_small_ones(self, make: Make) -> None:
        limit = await make(None, source(100), 0)
        small = asyncio.create_task(let_pass(limit, [5 * KIB] * 100_000))
        await asyncio.sleep(0.1)
        async with asyncio.timeout(LONG):
            await let_pass(limit, [90 * KIB], BACKFILL)
        small.cancel()
        await asyncio.gather(small, return_exceptions=True)

    async def test_urgent_images_may_exceed_the_limit_by_their_allowance(self, make: Make) -> None:
        limit, begun = await make(images(10, 60), source(100, 60), 20), now()
        await let_pass(limit, [10 * KIB] * 10)
        assert await is_refused(limit, FRESH)
        await let_pass(limit, [5 * KIB] * 2, URGENT)
        assert await is_refused(limit, URGENT), "20 % of 10 images are 2"
        assert now() - begun < LONG

    async def test_urgent_images_count_in_the_limit_while_there_is_room(self, make: Make) -> None:
        limit, begun = await make(images(10, 60), None, 20), now()
        await let_pass(limit, [KIB] * 10, URGENT)
        assert await is_refused(limit, FRESH)
        await let_pass(limit, [KIB] * 2, URGENT)
        assert await is_refused(limit, URGENT)
        assert now() - begun < LONG

    async def test_an_urgent_image_larger_than_the_allowance_waits_like_others(self, make: Make) -> None:
        limit = await make(None, source(100, 60), 10)
        await let_pass(limit, [50 * KIB] * 2)
        assert await is_refused(limit, URGENT, 11 * KIB)
        await let_pass(limit, [10 * KIB], URGENT)

    async def test_what_is_urgent_need_not_wait_for_a_large_image(self, make: Make) -> None:
        limit, begun = await make(None, source(100, 60), 10), now()
        await let_pass(limit, [60 * KIB])
        assert await is_refused(limit, BACKFILL, 90 * KIB)
        assert await is_refused(limit, FRESH, KIB), "the large one is first in line"
        await let_pass(limit, [KIB] * 5, URGENT)
        assert now() - begun < LONG
