"""The queue in memory: the contract, and what it promises beyond that. Its time is virtual."""

import asyncio
import random
import subprocess
import sys
from collections import Counter
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.queue.clock import VirtualClock
from tests.queue.contract import BACKFILL, FRESH, OTHER, ROOT, URGENT, Make, QueueContract, finish, job, jobs, take
from webpd.queue.manager import QueueManager
from webpd.queue.port import Lane, Queue, Ticket

pytestmark = pytest.mark.anyio


@pytest.fixture
def anyio_backend() -> tuple[str, dict[str, Any]]:
    return "asyncio", {"loop_factory": VirtualClock}


class TestQueueManager(QueueContract):
    @pytest.fixture
    def make(self) -> Make:
        async def make(capacity: int) -> Queue:
            return QueueManager([ROOT, OTHER], capacity=capacity)

        return make


def now() -> float:
    return asyncio.get_running_loop().time()


class Middle(random.Random):
    def uniform(self, a: float, b: float) -> float:
        return (a + b) / 2


async def test_retries_come_after_one_second_then_two_then_four_up_to_ten_minutes() -> None:
    queue = QueueManager([ROOT], chance=Middle())
    await queue.offer([job("a/0.jpg")], FRESH)
    seconds = []
    for _ in range(14):
        begun = now()
        ticket = await queue.take(ROOT)
        seconds.append(now() - begun)
        await queue.again(ticket, ticket.job)
    assert seconds == pytest.approx([0, 1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 600, 600, 600])


async def test_retries_of_jobs_that_failed_together_are_spread_by_a_quarter_either_way() -> None:
    queue = QueueManager([ROOT], chance=random.Random(1))
    await queue.offer(jobs("a", 400), FRESH)
    begun = now()
    for ticket in [await queue.take(ROOT) for _ in range(400)]:
        await queue.again(ticket, ticket.job)
    back = []
    for _ in range(400):
        await queue.take(ROOT)
        back.append(now() - begun)
    assert 0.75 <= min(back) < 0.76
    assert 1.24 < max(back) <= 1.2501


async def test_a_file_that_changed_is_tried_again_as_soon_as_one_that_never_failed() -> None:
    queue = QueueManager([ROOT], chance=Middle())
    await queue.offer([job("a/0.jpg")], FRESH)
    for _ in range(8):
        await queue.again(await queue.take(ROOT), job("a/0.jpg"))
    await queue.again(await queue.take(ROOT), job("a/0.jpg", version=1))
    begun = now()
    await queue.take(ROOT)
    assert now() - begun == pytest.approx(1)


async def test_a_delay_ends_to_the_moment_while_nothing_is_polled() -> None:
    queue = QueueManager([ROOT])
    begun = now()
    await queue.offer([job("a/0.jpg")], BACKFILL, 3600)
    await queue.offer([job("a/1.jpg")], BACKFILL, 1800)
    loop = asyncio.get_running_loop()
    assert isinstance(loop, VirtualClock)
    turns = loop.turns
    assert (await queue.take(ROOT)).job == job("a/1.jpg")
    assert now() - begun == pytest.approx(1800)
    assert (await queue.take(ROOT)).job == job("a/0.jpg")
    assert now() - begun == pytest.approx(3600)
    assert loop.turns - turns < 10


@given(counts=st.tuples(*[st.integers(0, 60)] * 3))
async def test_of_sixteen_takes_each_later_lane_that_has_work_gets_one(counts: tuple[int, int, int]) -> None:
    queue = QueueManager([ROOT])
    for lane, count in zip(Lane, counts, strict=True):
        await queue.offer(jobs(lane.name, count), lane)
    served, lanes_left = [], []
    for _ in range(sum(counts)):
        lanes_left.append({lane for lane, depth in queue.state().depth.items() if depth})
        served.append((await queue.take(ROOT)).lane)
    for start in range(len(served) - 15):
        window, last_left = served[start : start + 16], lanes_left[start + 15]
        assert last_left <= set(window)
        if last_left == set(Lane):
            assert Counter(window) == {URGENT: 14, FRESH: 1, BACKFILL: 1}
    out_of_order = [lane for lane, left in zip(served, lanes_left, strict=True) if lane != min(left)]
    assert len(out_of_order) <= 2 * (len(served) // 16 + 1)


@given(offers=st.lists(st.tuples(st.sampled_from("abcde"), st.integers(1, 20)), min_size=1, max_size=20))
async def test_no_directory_gets_two_turns_while_another_that_has_work_gets_none(offers: list[tuple[str, int]]) -> None:
    queue = QueueManager([ROOT])
    offered: dict[str, list[str]] = {}
    for number, (directory, count) in enumerate(offers):
        batch = [job(f"{directory}/{number}-{n}.jpg") for n in range(count)]
        await queue.offer(batch, BACKFILL)
        offered.setdefault(directory, []).extend(one.path for one in batch)
    taken: dict[str, list[str]] = {directory: [] for directory in offered}
    for _ in range(sum(count for _, count in offers)):
        path = (await queue.take(ROOT)).job.path
        taken[path.split("/")[-2]].append(path)
        turns = [len(taken[directory]) for directory in offered if len(taken[directory]) < len(offered[directory])]
        assert not turns or max(turns) - min(turns) <= 1
    assert taken == offered


async def test_a_path_cannot_move_up_into_a_lane_that_is_full() -> None:
    queue = QueueManager([ROOT], capacity=2)
    await queue.offer(jobs("a", 2), BACKFILL)
    await queue.offer(jobs("b", 2), URGENT)
    assert await queue.offer([job("a/0.jpg", version=1)], URGENT) == 0
    assert await finish(queue, 4) == [*jobs("b", 2), *jobs("a", 2)]


async def test_what_moves_up_while_it_is_delayed_is_taken_in_its_new_lane_when_due() -> None:
    queue = QueueManager([ROOT])
    await queue.offer([job("a/0.jpg")], BACKFILL, 10)
    await queue.offer([job("a/1.jpg")], FRESH, 10)
    await queue.offer([job("a/0.jpg")], URGENT)
    await asyncio.sleep(20)
    assert [(await take(queue)).lane for _ in range(2)] == [URGENT, FRESH]


async def test_the_age_is_that_of_the_oldest_entry_in_its_lane() -> None:
    queue = QueueManager([ROOT, OTHER])
    await queue.offer([job("a/0.jpg")], BACKFILL)
    await asyncio.sleep(5)
    await queue.offer([job("a/1.jpg", root=OTHER)], BACKFILL)
    await queue.offer([job("a/0.jpg", version=1)], BACKFILL, 100)
    await asyncio.sleep(2)
    assert queue.state().oldest == pytest.approx({URGENT: 0, FRESH: 0, BACKFILL: 7})
    await queue.offer([job("a/0.jpg", version=1)], URGENT)
    await asyncio.sleep(1)
    assert queue.state().oldest == pytest.approx({URGENT: 1, FRESH: 0, BACKFILL: 3})


async def test_a_ticket_cannot_be_given_back_twice() -> None:
    queue = QueueManager([ROOT])
    await queue.offer([job("a/0.jpg")], FRESH)
    ticket = await queue.take(ROOT)
    await queue.again(ticket, ticket.job, 0)
    await queue.take(ROOT)
    with pytest.raises(ValueError, match=r"a/0\.jpg"):
        await queue.done(ticket)
    assert queue.state().in_flight == 1


async def test_a_root_that_nobody_named_is_an_error() -> None:
    queue = QueueManager([ROOT])
    with pytest.raises(KeyError, match=OTHER):
        await queue.offer([job("a/0.jpg", root=OTHER)], FRESH)


async def test_ready_waits_exactly_while_there_is_nothing_to_take() -> None:
    queue = QueueManager([ROOT])
    assert queue.take_now(ROOT) is None
    waiter = asyncio.create_task(queue.ready(ROOT))
    assert not (await asyncio.wait({waiter}, timeout=3600))[0]
    await queue.offer(jobs("a", 2), FRESH)
    await asyncio.wait_for(waiter, 0.001)
    begun, tickets = now(), list[Ticket]()
    for _ in range(2):
        await queue.ready(ROOT)
        tickets += filter(None, [queue.take_now(ROOT)])
    assert [ticket.job for ticket in tickets] == jobs("a", 2)
    assert now() == begun
    assert queue.take_now(ROOT) is None
    await queue.again(tickets[0], tickets[0].job, 60)
    await queue.ready(ROOT)
    assert now() - begun == pytest.approx(60)


async def test_many_may_wait_for_the_queue_to_be_ready_and_none_is_forgotten() -> None:
    queue = QueueManager([ROOT])

    async def take_one() -> str:
        while (ticket := queue.take_now(ROOT)) is None:
            await queue.ready(ROOT)
        return ticket.job.path

    takers = [asyncio.create_task(take_one()) for _ in range(20)]
    for number, one in enumerate(jobs("a", 20)):
        await queue.offer([one], FRESH, number // 2)
    assert sorted(await asyncio.gather(*takers)) == sorted(one.path for one in jobs("a", 20))


def test_a_queue_without_a_limit_does_not_load_the_libraries_of_one() -> None:
    code = "import sys, webpd.queue.manager; sys.exit(bool({'limits', 'redis', 'docket'} & sys.modules.keys()))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
