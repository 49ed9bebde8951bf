"""The rate limit: never more than was allowed, never less than could be, in virtual time."""

import asyncio
import time
from typing import Any

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from limits import RateLimitItem
from limits.strategies import MovingWindowRateLimiter

from tests.queue.clock import VirtualClock
from tests.queue.contract import BACKFILL, FRESH, OTHER, ROOT, URGENT, job, jobs
from webpd.queue.manager import QueueManager
from webpd.queue.rate import RateLimit, parse


@pytest.fixture
def anyio_backend() -> tuple[str, dict[str, Any]]:
    return "asyncio", {"loop_factory": VirtualClock}


@pytest.fixture
async def virtual(monkeypatch: pytest.MonkeyPatch) -> VirtualClock:
    """The loop, whose clock is now the wall clock that the library reads, too."""
    loop = asyncio.get_running_loop()
    assert isinstance(loop, VirtualClock)
    monkeypatch.setattr(time, "time", loop.time)
    return loop


def limit(text: str) -> RateLimit:
    item = parse(text)
    assert item is not None
    return RateLimit(item)


async def admissions(rate: RateLimit, count: int) -> list[float]:
    """Return the seconds after which so many who ask at once were let in, one after the other."""
    begun, seconds = time.time(), []

    async def ask() -> None:
        await rate.admit()
        seconds.append(time.time() - begun)

    await asyncio.gather(*(ask() for _ in range(count)))
    return seconds


@pytest.mark.parametrize(
    ("text", "amount", "seconds"),
    [("600/minute", 600, 60), ("10/second", 10, 1), (" 5000 per 2 hours ", 5000, 7200), ("1/day", 1, 86_400)],
)
def test_a_limit_is_a_number_in_a_time(text: str, amount: int, seconds: int) -> None:
    item = parse(text)
    assert item is not None
    assert (item.amount, item.get_expiry()) == (amount, seconds)


@pytest.mark.parametrize("text", ["none", " None ", ""])
def test_none_is_no_limit(text: str) -> None:
    assert parse(text) is None


@pytest.mark.parametrize(
    "text", ["600", "fast", "600/fortnight", "0/second", "-1/second", "1.5/second", "10/second;600/minute", "/minute"]
)
def test_nonsense_is_refused_with_what_is_allowed(text: str) -> None:
    with pytest.raises(ValueError, match="allowed: none, or a number of images in a time, such as 600/minute"):
        parse(text)


def test_a_limit_that_would_take_much_memory_is_refused() -> None:
    assert parse("100000/day") is not None
    with pytest.raises(ValueError, match="up to 100000 images in a time"):
        parse("100001/day")


@pytest.mark.anyio
async def test_images_go_at_once_until_the_limit_and_then_as_the_window_lets_them(virtual: VirtualClock) -> None:
    seconds = await admissions(limit("10/minute"), 35)
    assert seconds == pytest.approx([60 * (number // 10) for number in range(35)], abs=0.1)


@pytest.mark.anyio
async def test_who_waits_for_the_window_does_not_ask_again_and_again(
    virtual: VirtualClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[RateLimitItem] = []
    hit = MovingWindowRateLimiter.hit

    def counted(limiter: MovingWindowRateLimiter, item: RateLimitItem) -> bool:
        asked.append(item)
        return hit(limiter, item)

    monkeypatch.setattr(MovingWindowRateLimiter, "hit", counted)
    await admissions(limit("1/hour"), 20)
    assert len(asked) <= 3 * 20
    assert virtual.turns < 20 * 10


@pytest.mark.anyio
@settings(deadline=None, max_examples=30, suppress_health_check=[HealthCheck.function_scoped_fixture])
@example(pauses=[0.0, 0.0, 0.0, 0.0, 1.0, 0.0])
@given(pauses=st.lists(st.floats(0, 3), min_size=1, max_size=60))
async def test_no_stretch_of_time_ever_has_more_than_the_limit(virtual: VirtualClock, pauses: list[float]) -> None:
    rate, admitted = limit("5/2seconds"), []
    for pause in pauses:
        await asyncio.sleep(pause)
        asked = virtual.time()
        await rate.admit()
        admitted.append(virtual.time())
        earlier = admitted[-6] if len(admitted) > 5 else -10.0
        assert admitted[-1] - earlier >= 2
        assert admitted[-1] <= max(asked, earlier + 2) + 0.01, "let in as soon as could be"


@pytest.mark.anyio
async def test_who_gives_up_waiting_uses_nothing_up(virtual: VirtualClock) -> None:
    rate, begun = limit("2/minute"), virtual.time()
    await admissions(rate, 2)
    for _ in range(5):
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(rate.admit(), 1)
    await admissions(rate, 2)
    assert virtual.time() - begun == pytest.approx(60, abs=0.1)


@pytest.mark.anyio
async def test_a_clock_that_is_set_back_does_not_stop_the_work(
    virtual: VirtualClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    rate = limit("2/minute")
    await admissions(rate, 2)
    monkeypatch.setattr(time, "time", lambda: virtual.time() - 86_400)
    begun = virtual.time()
    await admissions(rate, 2)
    assert virtual.time() - begun <= 60


@pytest.mark.anyio
async def test_the_limit_holds_for_all_roots_together(virtual: VirtualClock) -> None:
    queue = QueueManager([ROOT, OTHER], limit=limit("4/minute"))
    begun = virtual.time()
    for root in (ROOT, OTHER):
        await queue.offer([job(f"a/{number}.jpg", root=root) for number in range(4)], BACKFILL)
    takers = [asyncio.create_task(queue.take(root)) for root in (ROOT, OTHER) * 4]
    done, waiting = await asyncio.wait(takers, timeout=30)
    assert (len(done), len(waiting)) == (4, 4)
    await asyncio.gather(*takers)
    assert virtual.time() - begun == pytest.approx(60, abs=0.1)


@pytest.mark.anyio
async def test_what_becomes_urgent_while_the_limit_is_waited_for_goes_first(virtual: VirtualClock) -> None:
    queue = QueueManager([ROOT], limit=limit("1/minute"))
    await queue.offer(jobs("a", 2), BACKFILL)
    await queue.take(ROOT)
    taker = asyncio.create_task(queue.take(ROOT))
    await asyncio.wait({taker}, timeout=30)
    await queue.offer([job("a/visitor.jpg")], URGENT)
    assert (await taker).job == job("a/visitor.jpg")


@pytest.mark.anyio
async def test_what_changes_while_the_limit_is_waited_for_settles_before_it_is_taken(virtual: VirtualClock) -> None:
    queue = QueueManager([ROOT], limit=limit("1/minute"))
    await queue.offer(jobs("a", 2), FRESH)
    await queue.take(ROOT)
    taker = asyncio.create_task(queue.take(ROOT))
    await asyncio.wait({taker}, timeout=59)
    changed = virtual.time()
    await queue.offer([job("a/1.jpg", version=1)], FRESH, 5)
    assert (await taker).job == job("a/1.jpg", version=1)
    assert virtual.time() - changed >= 5


@pytest.mark.anyio
async def test_a_taker_that_is_cancelled_while_it_waits_for_the_limit_takes_nothing_along(
    virtual: VirtualClock,
) -> None:
    queue = QueueManager([ROOT], limit=limit("1/minute"))
    await queue.offer(jobs("a", 2), BACKFILL)
    await queue.take(ROOT)
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(queue.take(ROOT), 30)
    assert queue.state().depth[BACKFILL] == 1
    assert (await asyncio.wait_for(queue.take(ROOT), 60)).job == jobs("a", 2)[1]


@pytest.mark.anyio
async def test_takers_of_an_idle_queue_do_not_use_the_limit_up_in_advance(virtual: VirtualClock) -> None:
    queue = QueueManager([ROOT], limit=limit("4/minute"))
    takers = [asyncio.create_task(queue.take(ROOT)) for _ in range(12)]
    await asyncio.sleep(3600)
    await queue.offer(jobs("a", 12), FRESH)
    done, waiting = await asyncio.wait(takers, timeout=30)
    assert (len(done), len(waiting)) == (4, 8)
    await asyncio.wait_for(asyncio.gather(*waiting), 100)
