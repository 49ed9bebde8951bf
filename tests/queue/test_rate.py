"""The rate limit of one host: never more than was allowed, never less than could be, in virtual time."""

import asyncio
import time
from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from tests.queue.clock import VirtualClock
from tests.queue.contract import BACKFILL, FRESH, OTHER, ROOT, URGENT, job, jobs
from tests.queue.rate_contract import KIB, Make, RateContract, images, let_pass, now, source
from webpd.queue.manager import QueueManager
from webpd.queue.port import Lane, Limit
from webpd.queue.rate import RateLimit, SlidingWindow
from webpd.settings import Rate

pytestmark = pytest.mark.anyio

EPOCH = 20_000 * 86_400 - 1000
"""Seconds: the loop's clock begins at 1000, and every window that counts from the hour or the day begins then."""


@pytest.fixture
def anyio_backend() -> tuple[str, dict[str, Any]]:
    return "asyncio", {"loop_factory": VirtualClock}


@pytest.fixture(autouse=True)
async def virtual(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[VirtualClock]:
    """The loop, whose clock is now the wall clock that the library reads, too."""
    loop = asyncio.get_running_loop()
    assert isinstance(loop, VirtualClock)
    with monkeypatch.context() as patched:
        patched.setattr(time, "time", lambda: EPOCH + loop.time())
        yield loop


class TestRateLimit(RateContract):
    @pytest.fixture
    def make(self) -> Make:
        async def make(images: Rate | None, source: Rate | None, urgent: int) -> Limit:
            return RateLimit(images, source, urgent)

        return make


class Asked:
    """A limit that counts how often it is asked."""

    def __init__(self, limit: Limit) -> None:
        self._limit = limit
        self.times = 0

    def admit(self, lane: Lane, size: int) -> float:
        self.times += 1
        return self._limit.admit(lane, size)


@pytest.mark.parametrize("size", [90, 5000])
async def test_a_large_image_passes_within_two_windows_whatever_small_ones_want(size: int) -> None:
    limit = RateLimit(None, source(100, 60), 0)
    small = asyncio.create_task(let_pass(limit, [5 * KIB] * 100_000, within=3600))
    await asyncio.sleep(1000)
    begun = now()
    await let_pass(limit, [size * KIB], BACKFILL)
    assert now() - begun <= 130
    small.cancel()
    await asyncio.gather(small, return_exceptions=True)


async def test_images_go_at_once_until_the_limit_and_then_as_the_window_lets_them() -> None:
    begun = now()
    passed = await let_pass(RateLimit(images(10, 60), None, 0), [KIB] * 35)
    assert [one.after - begun for one in passed] == pytest.approx([60 * (n // 10) for n in range(35)], abs=0.1)


async def test_bytes_go_at_once_until_the_limit_and_then_evenly() -> None:
    begun = now()
    passed = await let_pass(RateLimit(None, source(600, 60), 0), [10 * KIB] * 180)
    seconds = [one.after - begun for one in passed]
    assert seconds[:60] == [0] * 60
    assert seconds[60:] == pytest.approx([61 + n for n in range(120)], abs=1), "10 KiB a second"


@settings(deadline=None, max_examples=30, suppress_health_check=[HealthCheck.function_scoped_fixture])
@example(pauses=[0.0, 0.0, 0.0, 0.0, 1.0, 0.0])
@given(pauses=st.lists(st.floats(0, 3), min_size=1, max_size=60))
async def test_no_stretch_of_time_ever_has_more_images_than_the_limit(pauses: list[float]) -> None:
    limit, admitted = RateLimit(Rate(5, 2), None, 0), list[float]()
    for pause in pauses:
        await asyncio.sleep(pause)
        asked = now()
        admitted += [one.after for one in await let_pass(limit, [KIB])]
        earlier = admitted[-6] if len(admitted) > 5 else -10.0
        assert admitted[-1] - earlier >= 2 - 1e-6
        assert admitted[-1] <= max(asked, earlier + 2) + 0.01, "let in as soon as could be"


@settings(deadline=None, max_examples=30, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(asks=st.lists(st.tuples(st.floats(0, 3), st.integers(0, 30 * KIB)), min_size=1, max_size=40))
async def test_who_waits_as_long_as_told_passes_then_and_would_not_have_before(asks: list[tuple[float, int]]) -> None:
    limit = RateLimit(Rate(4, 2), Rate(20, 2, "KiB"), 0)
    for pause, size in asks:
        await asyncio.sleep(pause)
        waits = []
        while wait := limit.admit(FRESH, size):
            waits.append(wait)
            await asyncio.sleep(wait * 0.99)
            early = limit.admit(FRESH, size)
            if not early:
                assert wait * 0.01 <= 0.01, "it was told to wait for too long"
                break
            await asyncio.sleep(early)
        assert len(waits) <= 4, "each limit may make it wait, and once more for what rounding leaves"


@settings(deadline=None, max_examples=200)
@given(previous=st.integers(0, 1000), current=st.integers(0, 1000), into=st.floats(0, 0.999), cost=st.integers(1, 1000))
async def test_the_wait_for_a_sliding_window_is_what_is_needed_and_no_more(
    previous: int, current: int, into: float, cost: int
) -> None:
    rate = Rate(1000, 60, "KiB")

    def after(seconds: float) -> SlidingWindow:
        turns, left = divmod(into * 60 + seconds, 60)
        counts = [(previous, current), (current, 0), (0, 0)][min(int(turns), 2)]
        return SlidingWindow(counts[0], 60 - left, counts[1], 120 - left)

    wait = after(0).wait(rate, cost)
    assert (wait == 0) == (after(0).room(rate) >= cost)
    assert after(wait + 0.001).room(rate) >= cost
    assert wait <= 0.001 or after(wait - 0.001).room(rate) < cost


async def test_a_small_percentage_of_a_small_limit_is_nothing() -> None:
    limit = RateLimit(images(5, 60), None, 10)
    await let_pass(limit, [KIB] * 5)
    assert limit.admit(URGENT, KIB) > 0


async def test_what_is_urgent_never_exceeds_its_allowance_in_any_stretch_of_time() -> None:
    passed = await let_pass(RateLimit(images(10, 60), None, 50), [KIB] * 200, URGENT, within=3600)
    times = [one.after for one in passed]
    assert all(later - earlier >= 60 - 1e-6 for earlier, later in zip(times, times[15:], strict=False))
    assert times[-1] - times[0] == pytest.approx(13 * 60, abs=1), "15 a minute, not less"


async def test_who_is_first_in_line_and_goes_away_does_not_stop_the_others_for_long() -> None:
    limit = RateLimit(None, source(100, 3600), 0)
    await let_pass(limit, [60 * KIB])
    assert limit.admit(BACKFILL, 90 * KIB) > 0
    begun = now()
    await let_pass(limit, [KIB])
    assert 1 < now() - begun < 3


async def test_a_clock_that_is_set_back_does_not_stop_the_work(monkeypatch: pytest.MonkeyPatch) -> None:
    loop = asyncio.get_running_loop()
    for back in (86_400, 90, 30, 1):
        limit = RateLimit(images(2, 60), source(100, 60), 0)
        await let_pass(limit, [40 * KIB] * 2)
        assert limit.admit(FRESH, KIB) > 0
        with monkeypatch.context() as patched:
            patched.setattr(time, "time", lambda back=back: EPOCH + loop.time() - back)
            begun = now()
            await let_pass(limit, [40 * KIB] * 2)
            assert now() - begun <= 120
        await asyncio.sleep(300)


async def test_the_limit_holds_for_all_roots_together() -> None:
    queue, begun = QueueManager([ROOT, OTHER], limit=RateLimit(images(4, 60), None, 0)), now()
    for root in (ROOT, OTHER):
        await queue.offer([job(f"a/{number}.jpg", root=root) for number in range(4)], BACKFILL)
    takers = [asyncio.create_task(queue.take(root)) for root in (ROOT, OTHER) * 4]
    done, waiting = await asyncio.wait(takers, timeout=30)
    assert (len(done), len(waiting)) == (4, 4)
    await asyncio.gather(*takers)
    assert now() - begun == pytest.approx(60, abs=0.1)


async def test_what_becomes_urgent_while_the_limit_is_waited_for_goes_first() -> None:
    queue = QueueManager([ROOT], limit=RateLimit(images(1, 60), None, 0))
    await queue.offer(jobs("a", 2), BACKFILL)
    await queue.take(ROOT)
    taker = asyncio.create_task(queue.take(ROOT))
    await asyncio.wait({taker}, timeout=30)
    await queue.offer([job("a/visitor.jpg")], URGENT)
    assert (await taker).job == job("a/visitor.jpg")


@pytest.mark.parametrize("waits", ["b/visitor.jpg", "b/other.jpg"])
@pytest.mark.parametrize("taken", [1, 15])
async def test_what_is_urgent_goes_at_once_while_others_wait_for_the_limit(waits: str, taken: int) -> None:
    """Whether it is new or waits already, and also when it would have been the turn of another lane (the 16th)."""
    queue = QueueManager([ROOT], limit=RateLimit(images(taken, 60), None, 100))
    await queue.offer([*jobs("b", taken), job(waits)], BACKFILL)
    for _ in range(taken):
        await queue.take(ROOT)
    taker = asyncio.create_task(queue.take(ROOT))
    assert not (await asyncio.wait({taker}, timeout=10))[0]
    begun = now()
    await queue.offer([job("b/visitor.jpg")], URGENT)
    assert (await taker).job == job("b/visitor.jpg")
    assert now() == begun


async def test_the_turn_of_a_lane_is_not_lost_to_what_is_urgent() -> None:
    queue = QueueManager([ROOT], limit=RateLimit(images(15, 60), None, 100))
    await queue.offer(jobs("a", 40), URGENT)
    await queue.offer(jobs("b", 1), BACKFILL)
    lanes = [(await queue.take(ROOT)).lane for _ in range(31)]
    assert lanes.index(BACKFILL) == 30, "15 within the limit, 15 by the allowance, and then first of all"


async def test_what_changes_while_the_limit_is_waited_for_settles_before_it_is_taken() -> None:
    queue = QueueManager([ROOT], limit=RateLimit(images(1, 60), None, 0))
    await queue.offer(jobs("a", 2), FRESH)
    await queue.take(ROOT)
    taker = asyncio.create_task(queue.take(ROOT))
    await asyncio.wait({taker}, timeout=59)
    changed = now()
    await queue.offer([job("a/1.jpg", version=1)], FRESH, 5)
    assert (await taker).job == job("a/1.jpg", version=1)
    assert now() - changed >= 5


async def test_a_taker_that_is_cancelled_while_it_waits_for_the_limit_takes_nothing_along() -> None:
    queue = QueueManager([ROOT], limit=RateLimit(images(1, 60), None, 0))
    await queue.offer(jobs("a", 2), BACKFILL)
    await queue.take(ROOT)
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(queue.take(ROOT), 30)
    assert queue.state().depth[BACKFILL] == 1
    assert (await asyncio.wait_for(queue.take(ROOT), 60)).job == jobs("a", 2)[1]


async def test_takers_of_an_idle_queue_do_not_use_the_limit_up_in_advance() -> None:
    queue = QueueManager([ROOT], limit=RateLimit(images(4, 60), None, 0))
    takers = [asyncio.create_task(queue.take(ROOT)) for _ in range(12)]
    await asyncio.sleep(3600)
    await queue.offer(jobs("a", 12), FRESH)
    done, waiting = await asyncio.wait(takers, timeout=30)
    assert (len(done), len(waiting)) == (4, 8)
    await asyncio.wait_for(asyncio.gather(*waiting), 100)


async def test_many_takers_that_wait_for_the_limit_ask_no_more_than_one_would(virtual: VirtualClock) -> None:
    limit = Asked(RateLimit(images(1, 3600), None, 0))
    queue, turns = QueueManager([ROOT], limit=limit), virtual.turns
    await queue.offer(jobs("a", 20), FRESH)
    await asyncio.gather(*(queue.take(ROOT) for _ in range(20)))
    assert limit.times <= 3 * 20
    assert virtual.turns - turns < 20 * 10


async def test_who_takes_without_waiting_is_told_when_the_limit_may_let_something_pass(virtual: VirtualClock) -> None:
    queue = QueueManager([ROOT], limit=RateLimit(images(2, 60), None, 0))
    await queue.offer(jobs("a", 4), FRESH)
    begun, taken = now(), list[float]()
    turns = virtual.turns
    while len(taken) < 4:
        await queue.ready(ROOT)
        while queue.take_now(ROOT):
            taken.append(now() - begun)
    assert taken == pytest.approx([0, 0, 60, 60], abs=0.01)
    assert virtual.turns - turns < 20
    waiters = [asyncio.create_task(queue.ready(ROOT)) for _ in range(3)]
    await queue.offer([job("a/visitor.jpg")], URGENT)
    await asyncio.wait_for(asyncio.gather(*waiters), 1)


async def test_a_smaller_version_of_an_image_need_not_wait_for_the_room_of_the_larger() -> None:
    queue = QueueManager([ROOT], limit=RateLimit(None, source(4, 60), 0))
    large, small = replace(job("a/1.jpg"), size=9000), replace(job("a/1.jpg"), size=900)
    await queue.offer([job("a/0.jpg"), large], FRESH)
    await queue.take(ROOT)
    taker = asyncio.create_task(queue.take(ROOT))
    assert not (await asyncio.wait({taker}, timeout=10))[0]
    await queue.offer([small], FRESH)
    assert (await asyncio.wait_for(taker, 3)).job == small
