"""What every queue must do. A module that tests one inherits ``QueueContract`` and has a fixture ``anyio_backend``."""

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from webpd.model import Job, Sidecar
from webpd.queue.port import Lane, Queue, Ticket

ROOT, OTHER = "/var/www/cdn", "/srv/shop"
URGENT, FRESH, BACKFILL = Lane
DELAY = 0.05

Make = Callable[[int], Awaitable[Queue]]
"""Makes an empty queue for ROOT and OTHER, each of whose lanes holds so many entries."""


def job(name: str, version: int = 0, root: str = ROOT) -> Job:
    """A job for the file of that name; another version of it differs in size and mtime."""
    return Job(f"{root}/{name}", root, size=1000 + version, mtime_ns=version * 10**9)


def jobs(directory: str, count: int) -> list[Job]:
    return [job(f"{directory}/{number}.jpg") for number in range(count)]


async def take(queue: Queue, root: str = ROOT) -> Ticket:
    """Take what must be there to take, now or after a short delay."""
    return await asyncio.wait_for(queue.take(root), 30)


async def finish(queue: Queue, count: int, root: str = ROOT) -> list[Job]:
    """Take so many jobs, one after the other, and be done with them."""
    taken = []
    for _ in range(count):
        ticket = await take(queue, root)
        await queue.done(ticket)
        taken.append(ticket.job)
    return taken


async def nothing_to_take(queue: Queue, root: str = ROOT, seconds: float = DELAY / 2) -> bool:
    try:
        await asyncio.wait_for(queue.take(root), seconds)
    except TimeoutError:
        return True
    return False


async def eventually(condition: Callable[[], object], seconds: float = 30) -> None:
    """Wait until the condition holds: what a queue tells of itself may have come a long way."""
    async with asyncio.timeout(seconds):
        while not condition():  # noqa: ASYNC110 - nobody tells of it
            await asyncio.sleep(0.002)


CAPACITY = 4


@dataclass(frozen=True)
class Step:
    """What chance decides of one deed: which, and with what. Numbers choose among what is possible then."""

    deed: int
    batch: list[tuple[str, int, int]]
    lane: Lane
    delay: float
    number: int
    version: int


STEPS = st.builds(
    Step,
    deed=st.integers(0, 59),
    batch=st.lists(
        st.tuples(st.sampled_from("abc"), st.integers(0, 3), st.integers(0, 2)), min_size=1, max_size=CAPACITY + 2
    ),
    lane=st.sampled_from(Lane),
    delay=st.sampled_from([0.0, 0.0, 0.002]),
    number=st.integers(0, 9),
    version=st.integers(0, 2),
)


class Story:
    """Deeds on a queue, and what must wait and be in flight after them."""

    def __init__(self, queue: Queue) -> None:
        self.queue = queue
        self.waiting: dict[str, Job] = {}
        self.hands: dict[str, Ticket] = {}
        self.sent_back = 0

    async def go(self, steps: list[Step]) -> None:
        for step in steps:
            await self.go_on(step)
            await self.check()
        await self.end()

    async def go_on(self, step: Step) -> None:
        deeds = [self.offer, self.give_up_taking]
        if self.waiting.keys() - self.hands.keys():
            deeds += [self.take, self.take]
        if self.hands:
            deeds += [self.done, self.again]
        await deeds[step.deed % len(deeds)](step)

    async def offer(self, step: Step) -> None:
        batch = [job(f"{folder}/{number}.jpg", version) for folder, number, version in step.batch]
        taken = await self.queue.offer(batch, step.lane, step.delay)
        for one in batch[:taken]:
            in_flight = self.hands.get(one.path)
            if one.path in self.waiting or in_flight is None or in_flight.job != one:
                self.waiting[one.path] = one
        if taken < len(batch):
            assert self.queue.state().depth[step.lane] >= CAPACITY

    async def take(self, step: Step) -> None:  # noqa: ARG002 - called like the others
        self.hold(await take(self.queue))

    async def give_up_taking(self, step: Step) -> None:
        taker = asyncio.create_task(self.queue.take(ROOT))
        for _ in range(step.number % 4):
            await asyncio.sleep(0)
        taker.cancel()
        (ended,) = await asyncio.gather(taker, return_exceptions=True)
        if isinstance(ended, Ticket):
            self.hold(ended)

    async def done(self, step: Step) -> None:
        await self.queue.done(self.drop(step))

    async def again(self, step: Step) -> None:
        ticket = self.drop(step)
        changed = replace(ticket.job, size=1000 + step.version, mtime_ns=step.version * 10**9)
        await self.queue.again(ticket, changed, step.delay)
        self.waiting.setdefault(changed.path, changed)
        self.sent_back += 1

    def hold(self, ticket: Ticket) -> None:
        path = ticket.job.path
        assert path not in self.hands
        assert self.waiting.pop(path) == ticket.job, "the newest offer counts"
        self.hands[path] = ticket

    def drop(self, step: Step) -> Ticket:
        return self.hands.pop(sorted(self.hands)[step.number % len(self.hands)])

    async def check(self) -> None:
        await eventually(self.is_told_right)
        state = self.queue.state()
        assert max(state.depth.values()) <= CAPACITY + self.sent_back
        assert len(self.waiting.keys() & self.hands.keys()) <= state.delayed <= len(self.waiting)

    def is_told_right(self) -> bool:
        state = self.queue.state()
        return (sum(state.depth.values()), state.in_flight) == (len(self.waiting), len(self.hands))

    async def end(self) -> None:
        while self.hands or self.waiting:
            for path in list(self.hands):
                await self.queue.done(self.hands.pop(path))
            if self.waiting:
                self.hold(await take(self.queue))
        await eventually(lambda: self.queue.state().idle)


class QueueContract:
    """A class that inherits it has a fixture ``make`` that gives a ``Make``."""

    pytestmark = pytest.mark.anyio

    async def test_jobs_of_a_directory_are_taken_in_the_order_of_their_offers(self, make: Make) -> None:
        queue = await make(100)
        await queue.offer(jobs("a", 3), FRESH)
        await queue.offer([job("a/late.jpg")], FRESH)
        assert await finish(queue, 4) == [*jobs("a", 3), job("a/late.jpg")]

    async def test_directories_take_turns(self, make: Make) -> None:
        queue = await make(100)
        for directory, count in (("a", 4), ("b", 2), ("c", 1)):
            await queue.offer(jobs(directory, count), BACKFILL)
        names = [one.path.removeprefix(f"{ROOT}/") for one in await finish(queue, 7)]
        assert names == ["a/0.jpg", "b/0.jpg", "c/0.jpg", "a/1.jpg", "b/1.jpg", "a/2.jpg", "a/3.jpg"]

    async def test_lanes_are_served_in_their_order(self, make: Make) -> None:
        queue = await make(100)
        for lane in (BACKFILL, FRESH, URGENT):
            await queue.offer([job(f"a/{lane.name}.jpg")], lane)
        assert [(await take(queue)).lane for _ in Lane] == [URGENT, FRESH, BACKFILL]

    async def test_no_lane_starves(self, make: Make) -> None:
        queue = await make(100)
        for lane in Lane:
            await queue.offer(jobs(lane.name, 100), lane)
        lanes = [(await take(queue)).lane for _ in range(64)]
        assert min(Counter(lanes)[lane] for lane in Lane) >= 2
        assert Counter(lanes)[URGENT] > 32

    async def test_a_path_has_one_entry(self, make: Make) -> None:
        queue = await make(100)
        assert await queue.offer(jobs("a", 2), BACKFILL) == 2
        assert await queue.offer(jobs("a", 2), BACKFILL) == 2
        assert await queue.offer([job("a/0.jpg", version=1)], BACKFILL) == 1
        assert queue.state().depth[BACKFILL] == 2
        assert await finish(queue, 2) == [job("a/0.jpg", version=1), job("a/1.jpg")]
        assert await nothing_to_take(queue)

    async def test_a_waiting_path_moves_up_and_never_down(self, make: Make) -> None:
        queue = await make(100)
        await queue.offer(jobs("a", 3), BACKFILL)
        await queue.offer([job("a/2.jpg")], URGENT)
        await queue.offer([job("a/2.jpg")], FRESH)
        assert queue.state().depth == {URGENT: 1, FRESH: 0, BACKFILL: 2}
        assert (await finish(queue, 3))[0] == job("a/2.jpg")

    async def test_a_job_waits_its_delay_out(self, make: Make) -> None:
        queue = await make(100)
        offered = asyncio.get_running_loop().time()
        await queue.offer([job("a/settling.jpg")], FRESH, DELAY)
        await queue.offer([job("a/settled.jpg")], FRESH)
        assert queue.state().delayed == 1
        assert await finish(queue, 2) == [job("a/settled.jpg"), job("a/settling.jpg")]
        assert asyncio.get_running_loop().time() - offered >= DELAY * 0.999

    async def test_a_taker_that_waits_for_a_delayed_job_gets_one_that_is_due_sooner(self, make: Make) -> None:
        queue = await make(100)
        await queue.offer([job("a/later.jpg")], FRESH, 60)
        taker = asyncio.create_task(queue.take(ROOT))
        assert not (await asyncio.wait({taker}, timeout=DELAY))[0]
        await queue.offer([job("a/sooner.jpg")], BACKFILL, DELAY)
        assert (await asyncio.wait_for(taker, 30)).job == job("a/sooner.jpg")

    async def test_a_file_that_changes_while_it_waits_must_settle_anew(self, make: Make) -> None:
        queue = await make(100)
        await queue.offer([job("a/0.jpg")], FRESH)
        await queue.offer([job("a/0.jpg", version=1)], FRESH, DELAY)
        assert await nothing_to_take(queue)
        assert await finish(queue, 1) == [job("a/0.jpg", version=1)]

    async def test_a_file_that_was_found_again_unchanged_keeps_its_delay(self, make: Make) -> None:
        queue = await make(100)
        await queue.offer([job("a/0.jpg")], FRESH, 60)
        await queue.offer([job("a/0.jpg")], URGENT)
        assert await nothing_to_take(queue)

    async def test_a_path_that_changes_in_flight_comes_again_after_done(self, make: Make) -> None:
        queue = await make(100)
        await queue.offer([job("a/0.jpg")], FRESH)
        ticket = await take(queue)
        await queue.offer([job("a/0.jpg", version=1)], FRESH)
        await queue.offer([job("a/0.jpg", version=2)], BACKFILL)
        assert await nothing_to_take(queue)
        await queue.done(ticket)
        second = await take(queue)
        assert (second.job, second.lane, second.tries) == (job("a/0.jpg", version=2), FRESH, 0)
        await queue.done(second)
        await eventually(lambda: queue.state().idle)

    async def test_a_path_whose_sidecar_vanished_in_flight_comes_again(self, make: Make) -> None:
        queue = await make(100)
        await queue.offer([replace(job("a/0.jpg"), sidecar=Sidecar.STALE)], FRESH)
        ticket = await take(queue)
        await queue.offer([job("a/0.jpg")], FRESH)
        await queue.done(ticket)
        second = await take(queue)
        assert (second.job, second.tries) == (job("a/0.jpg"), 1), "the file is the same"

    async def test_the_very_job_in_flight_does_not_come_again(self, make: Make) -> None:
        queue = await make(100)
        await queue.offer([job("a/0.jpg")], FRESH)
        ticket = await take(queue)
        assert await queue.offer([job("a/0.jpg")], URGENT) == 1
        await queue.done(ticket)
        await eventually(lambda: queue.state().idle)

    async def test_what_is_sent_back_comes_again_and_counts_its_tries(self, make: Make) -> None:
        queue = await make(100)
        await queue.offer([job("a/0.jpg")], URGENT)
        for tries in range(4):
            ticket = await take(queue)
            assert (ticket.job, ticket.lane, ticket.tries) == (job("a/0.jpg"), URGENT, tries)
            await queue.again(ticket, ticket.job, DELAY)
            assert await nothing_to_take(queue)

    async def test_what_is_sent_back_without_a_delay_waits_about_a_second(self, make: Make) -> None:
        queue = await make(100)
        await queue.offer([job("a/0.jpg")], FRESH)
        await queue.again(await take(queue), job("a/0.jpg"))
        assert await nothing_to_take(queue, seconds=0.5)
        assert await finish(queue, 1) == [job("a/0.jpg")]

    async def test_tries_begin_anew_when_the_file_has_changed(self, make: Make) -> None:
        queue = await make(100)
        await queue.offer([job("a/0.jpg")], FRESH)
        for _ in range(2):
            await queue.again(await take(queue), job("a/0.jpg"), 0)
        await queue.again(await take(queue), job("a/0.jpg", version=1), 0)
        ticket = await take(queue)
        assert (ticket.job, ticket.tries) == (job("a/0.jpg", version=1), 0)
        await queue.again(ticket, ticket.job, 60)
        await queue.offer([job("a/0.jpg", version=2)], FRESH)
        assert (await take(queue)).tries == 0

    @pytest.mark.parametrize("changed", [replace(job("a/0.jpg"), size=1), replace(job("a/0.jpg"), mtime_ns=1)])
    async def test_a_file_has_changed_when_its_size_or_its_mtime_differs(self, make: Make, changed: Job) -> None:
        queue = await make(100)
        await queue.offer([job("a/0.jpg")], FRESH)
        await queue.again(await take(queue), job("a/0.jpg"), 60)
        await queue.offer([changed], FRESH)
        ticket = await take(queue)
        assert (ticket.job, ticket.tries) == (changed, 0)

    async def test_an_offer_in_the_meantime_wins_over_what_is_sent_back(self, make: Make) -> None:
        queue = await make(100)
        await queue.offer([job("a/0.jpg")], FRESH)
        ticket = await take(queue)
        await queue.offer([job("a/0.jpg", version=2)], BACKFILL)
        await queue.again(ticket, job("a/0.jpg", version=1), 60)
        second = await take(queue)
        assert (second.job, second.lane, second.tries) == (job("a/0.jpg", version=2), FRESH, 0)

    async def test_a_full_lane_refuses_the_rest(self, make: Make) -> None:
        queue = await make(4)
        assert await queue.offer(jobs("a", 6), BACKFILL) == 4
        assert await queue.offer(jobs("b", 1), BACKFILL) == 0
        assert await queue.offer(jobs("a", 4), BACKFILL) == 4, "what waits already needs no room"
        assert await queue.offer(jobs("b", 3), FRESH) == 3
        assert await queue.offer([job("a/0.jpg", root=OTHER)], BACKFILL) == 1
        assert await queue.offer([], BACKFILL) == 0

    async def test_what_is_sent_back_is_never_refused(self, make: Make) -> None:
        queue = await make(2)
        await queue.offer(jobs("a", 2), BACKFILL)
        tickets = [await take(queue) for _ in range(2)]
        await queue.offer(jobs("b", 2), BACKFILL)
        for ticket in tickets:
            await queue.again(ticket, ticket.job, 0)
        await eventually(lambda: queue.state().depth[BACKFILL] == 4)
        assert set(await finish(queue, 4)) == {*jobs("a", 2), *jobs("b", 2)}

    async def test_takers_of_a_root_get_nothing_of_another(self, make: Make) -> None:
        queue = await make(100)
        await queue.offer(jobs("a", 2), URGENT)
        assert await nothing_to_take(queue, OTHER)
        await queue.offer([job("a/0.jpg", root=OTHER)], BACKFILL)
        assert await finish(queue, 1, OTHER) == [job("a/0.jpg", root=OTHER)]

    async def test_many_takers_wait_at_once_and_each_gets_one_job(self, make: Make) -> None:
        queue = await make(100)
        takers = [asyncio.create_task(queue.take(ROOT)) for _ in range(20)]
        await asyncio.sleep(0)
        await queue.offer(jobs("a", 10), FRESH)
        await queue.offer(jobs("b", 10), BACKFILL, DELAY)
        tickets = await asyncio.wait_for(asyncio.gather(*takers), 30)
        assert {ticket.job for ticket in tickets} == {*jobs("a", 10), *jobs("b", 10)}
        assert queue.state().in_flight == 20

    @pytest.mark.parametrize("steps", range(6))
    async def test_a_taker_that_is_cancelled_takes_nothing_along(self, make: Make, steps: int) -> None:
        queue = await make(100)
        takers = [asyncio.create_task(queue.take(ROOT)) for _ in range(8)]
        await asyncio.sleep(0)
        await queue.offer(jobs("a", 8), FRESH)
        for _ in range(steps):
            await asyncio.sleep(0)
        for taker in takers[::2]:
            taker.cancel()
        ended = await asyncio.gather(*takers, return_exceptions=True)
        taken = [ticket.job for ticket in ended if isinstance(ticket, Ticket)]
        assert len(taken) >= 4
        rest = await finish(queue, 8 - len(taken))
        assert sorted(one.path for one in taken + rest) == sorted(one.path for one in jobs("a", 8))

    async def test_the_state_tells_how_things_stand(self, make: Make) -> None:
        queue = await make(100)
        assert queue.state().idle
        await queue.offer(jobs("a", 2), BACKFILL)
        await queue.offer([job("a/0.jpg", root=OTHER)], BACKFILL)
        await queue.offer([job("a/wait.jpg")], FRESH, 60)
        await asyncio.sleep(DELAY)
        ticket = await take(queue)
        state = queue.state()
        assert (state.depth, state.delayed, state.in_flight) == ({URGENT: 0, FRESH: 1, BACKFILL: 2}, 1, 1)
        assert state.oldest[URGENT] == 0
        assert min(state.oldest[FRESH], state.oldest[BACKFILL]) >= DELAY * 0.999
        await queue.offer([job("a/0.jpg", version=1)], BACKFILL)
        assert queue.state().delayed == 2, "what is in flight cannot be taken"
        await queue.done(ticket)
        await eventually(lambda: (queue.state().delayed, queue.state().in_flight) == (1, 0))

    @settings(
        max_examples=60,
        deadline=None,
        suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.differing_executors],
    )
    @given(steps=st.lists(STEPS, min_size=1, max_size=60))
    async def test_whatever_happens_nothing_is_lost_and_no_path_is_in_two_hands(
        self, make: Make, steps: list[Step]
    ) -> None:
        await Story(await make(CAPACITY)).go(steps)
