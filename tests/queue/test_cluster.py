"""The queue for several hosts, on a real Redis: the contract, and what it promises beyond that."""

import asyncio
import contextlib
import itertools
import os
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Sequence

import pytest

from tests.queue.contract import (
    BACKFILL,
    FRESH,
    OTHER,
    ROOT,
    URGENT,
    Make,
    QueueContract,
    eventually,
    job,
    jobs,
    take,
)
from tests.queue.hosts import Hosts, new_fingerprint
from tests.redis.server import RedisServer
from webpd.model import Ending, Failure, Job, Known, Outcome, Picture, Result, Sidecar
from webpd.queue.cluster.desk import Desk
from webpd.queue.cluster.watch import Concluded, WatchQueue
from webpd.queue.cluster.wire import Batch, Item, Report
from webpd.queue.cluster.work import WorkQueue
from webpd.queue.manager import QueueManager
from webpd.queue.port import Lane, QueueState, Ticket

pytestmark = pytest.mark.anyio

PROBE = "/probe"
ROOTS = [ROOT, OTHER, PROBE]
names = (f"{number}.jpg" for number in itertools.count())


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


class Pair:
    """A host that watches and one that works, as one queue."""

    def __init__(self, server: RedisServer, capacity: int) -> None:
        fingerprint = new_fingerprint()
        self.watch = WatchQueue(
            QueueManager(ROOTS, capacity=capacity), ROOTS, server.url, fingerprint, self.hear, batch=1
        )
        self.concluded: Concluded | None = None
        self.probing = asyncio.Lock()
        self.work = WorkQueue(ROOTS, server.url, fingerprint, ahead=0)
        self.tasks = [asyncio.create_task(self.watch.run()), asyncio.create_task(self.work.run())]

    async def offer(self, jobs: Sequence[Job], lane: Lane, delay: float = 0.0) -> int:
        return await self.watch.offer(jobs, lane, delay)

    async def take(self, root: str) -> Ticket:
        """When the wait is cancelled, it ends once both hosts know: until then a job may leave for nobody."""
        try:
            return await self.work.take(root)
        except asyncio.CancelledError:
            await self.catch_up()
            raise

    async def catch_up(self) -> None:
        """Wait until the host that watches has heard all that the other one had to say: letters come in order."""
        async with self.probing:
            for _ in range(2):  # a round of letters may have begun before, and PROBE comes last in it
                await self.watch.offer([job(next(names), root=PROBE)], FRESH)
                await self.work.done(await self.work.take(PROBE))

    async def done(self, ticket: Ticket, ending: Ending | None = None) -> None:
        await self.work.done(ticket, ending)

    async def again(self, ticket: Ticket, job: Job, delay: float | None = None) -> None:
        await self.work.again(ticket, job, delay)

    def state(self) -> QueueState:
        return self.watch.state()

    def hear(self, ended: Sequence[tuple[Job, Ending]], *, mine: bool) -> None:
        if self.concluded:
            self.concluded(ended, mine=mine)

    async def end(self) -> None:
        for task in self.tasks:
            task.cancel()
        await asyncio.gather(*self.tasks, return_exceptions=True)


class TestClusterQueue(QueueContract):
    @pytest.fixture
    async def make(self, queue_server: RedisServer) -> AsyncIterator[Make]:
        async with contextlib.AsyncExitStack() as pairs:

            async def make(capacity: int) -> Pair:
                await pairs.aclose()
                pair = Pair(queue_server, capacity)
                pairs.push_async_callback(pair.end)
                return pair

            yield make


async def test_who_found_an_image_hears_all_that_is_to_be_told_of_it_before_it_counts_as_done(
    queue_server: RedisServer,
) -> None:
    one = Job(os.fsdecode(os.fsencode(ROOT) + b"/a/caf\xe9.jpg"), ROOT, 1000, 10**9, Sidecar.STALE, link=True)
    outcome = Outcome(
        one.path, Result.FAILED, Failure.DAMAGED, "broken", 1000, 7, 0.25, Picture(4, 3, "jpeg", 1, lossless=False)
    )
    ending = Ending(outcome, Known(1000, 10**9, Sidecar.STALE, b"\x00\xff", Result.FAILED), "elsewhere", time.time())
    heard: list[tuple[Job, Ending, bool, int]] = []
    pair = Pair(queue_server, 100)
    loop = asyncio.get_running_loop()

    async def in_flight() -> int:
        return pair.state().in_flight

    def concluded(ended: Sequence[tuple[Job, Ending]], *, mine: bool) -> None:
        still = asyncio.run_coroutine_threadsafe(in_flight(), loop).result()
        heard.extend((job, ending, mine, still) for job, ending in ended)

    pair.concluded = concluded
    await pair.offer([one], FRESH)
    ticket = await take(pair)
    assert ticket.job == one
    await pair.done(ticket, ending)
    await eventually(lambda: pair.state().idle)
    assert heard == [(one, ending, True, 1)]
    await pair.end()


async def test_no_more_is_handed_out_than_there_is_room_for(hosts: Hosts) -> None:
    watch = hosts.watch(batch=4)
    await watch.offer(jobs("a", 1000), BACKFILL)
    first, second = hosts.work(ahead=8), hosts.work(ahead=4)
    for queue, takers in ((first, 2), (second, 1)):
        for _ in range(takers):
            await queue.take(ROOT)
    room = (2 + 8) + (1 + 4)
    await eventually(lambda: watch.state().in_flight > room - 4)
    assert watch.state().in_flight <= room
    assert first.state().in_flight + sum(first.state().depth.values()) < 2 + 8 + 4


async def test_what_is_urgent_overtakes_what_waits_on_the_host_that_works(hosts: Hosts) -> None:
    watch = hosts.watch()
    queue = hosts.work(ahead=8)
    await watch.offer(jobs("a", 100), BACKFILL)
    ticket = await queue.take(ROOT)
    await eventually(lambda: queue.state().depth[BACKFILL] >= 4)
    await watch.offer(jobs("urgent", 1), URGENT)
    await queue.done(ticket)
    hands = [await queue.take(ROOT)]
    await eventually(lambda: queue.state().depth[URGENT])
    assert queue.state().depth[BACKFILL]
    hands.append(await queue.take(ROOT))
    assert [ticket.lane for ticket in hands] == [BACKFILL, URGENT]


async def test_a_watching_host_that_starts_last_is_heard_of(hosts: Hosts) -> None:
    hosts.work(takers=1)
    watch = hosts.watch()
    await watch.offer(jobs("a", 10), BACKFILL)
    await eventually(lambda: watch.state().idle)
    assert len(hosts.done) == 10


async def test_a_host_that_watches_and_is_told_to_stop_hears_what_becomes_of_what_is_out(hosts: Hosts) -> None:
    watch = hosts.watch()
    leaving = hosts.tasks[-1]
    hosts.work(takers=2, seconds=0.02)
    await watch.offer(jobs("a", 100), BACKFILL)
    await eventually(lambda: hosts.concluded)
    leaving.cancel()
    await asyncio.wait([leaving])
    assert watch.state().in_flight == 0
    assert sorted(path for path, _ in hosts.concluded) == sorted(hosts.done)


async def test_one_image_may_be_here_for_two_who_found_it() -> None:
    reports: list[Report] = []
    desk = Desk(ROOT, 8, 60.0, lambda _, report: reports.append(report), lambda: None)
    receiving = [
        asyncio.create_task(desk.receive(Batch(key, key, [Item(job("a/0.jpg"), FRESH, 0)]), ())) for key in "ab"
    ]
    for ticket in [await desk.take() for _ in range(2)]:
        desk.done(ticket, None)
    assert [report.batch for report in reports] == ["a", "b"]
    desk.abandon()
    await asyncio.gather(*receiving)


async def test_a_ticket_cannot_be_given_back_twice(hosts: Hosts) -> None:
    watch = hosts.watch()
    queue = hosts.work()
    await watch.offer(jobs("a", 2), BACKFILL)
    ticket = await queue.take(ROOT)
    await queue.done(ticket)
    with pytest.raises(ValueError, match=r"a/0\.jpg"):
        await queue.again(ticket, ticket.job)
    with pytest.raises(ValueError, match="another queue"):
        await queue.done(Ticket(ticket.job, ticket.lane, 0))


async def test_a_root_that_nobody_named_is_an_error(hosts: Hosts) -> None:
    with pytest.raises(KeyError, match="/nowhere"):
        await hosts.watch().offer([job("a/0.jpg", root="/nowhere")], FRESH)
    with pytest.raises(KeyError, match="/nowhere"):
        await hosts.work().take("/nowhere")


def test_the_queue_of_one_host_needs_none_of_this() -> None:
    code = "import sys, webpd.queue.manager; sys.exit(bool({'docket', 'redis'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_who_has_not_installed_it_is_told_what_to_install() -> None:
    code = "import sys; sys.modules['docket'] = None; from webpd.queue import cluster; cluster.require()"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert "UsageError" in done.stderr
    assert "install webpd[cluster]" in done.stderr


@pytest.mark.parametrize(
    ("result", "times"), [(Result.KEPT_ORIGINAL, 1), (Result.CONVERTED, 2)], ids=["kept", "converted"]
)
async def test_an_original_better_kept_is_not_tried_again_for_a_host_that_finds_it_later(
    hosts: Hosts, result: Result, times: int
) -> None:
    one = jobs("a", 1)[0]
    known = Known(one.size, one.mtime_ns, one.sidecar, b"", result) if result is Result.KEPT_ORIGINAL else None
    ending = Ending(Outcome(one.path, result), known, "elsewhere", time.time())
    queue = hosts.work()
    first, taken = hosts.watch(), 0

    async def take() -> None:
        nonlocal taken
        while True:
            ticket = await queue.take(ROOT)
            taken += 1
            await queue.done(ticket, ending)

    hosts.start(take())
    await first.offer([one], FRESH)
    await eventually(lambda: first.state().idle)
    later = hosts.watch()
    await later.offer([one], FRESH)  # of what was converted: its sidecar must be gone
    await eventually(lambda: later.state().idle)
    assert taken == times


async def test_a_failure_counts_for_all_who_watch_until_one_of_them_wants_it_tried_again(hosts: Hosts) -> None:
    one = jobs("a", 1)[0]
    known = Known(one.size, one.mtime_ns, one.sidecar, b"", Result.FAILED)
    queue = hosts.work()
    first, second, taken = hosts.watch(), hosts.watch(), 0

    async def take() -> None:
        nonlocal taken
        while True:
            ticket = await queue.take(ROOT)
            taken += 1
            outcome = Outcome(one.path, Result.FAILED, Failure.DAMAGED)
            await queue.done(ticket, Ending(outcome, known, "elsewhere", time.time()))

    hosts.start(take())
    for watch in (first, second):
        await watch.offer([one], FRESH)
        await eventually(lambda: watch.state().idle)  # noqa: B023 - waited for at once
    assert taken == 1
    await second.offer([one], FRESH)
    await eventually(lambda: second.state().idle)
    assert taken == 2
    starts_later = hosts.watch()
    await starts_later.offer([one], FRESH)
    await eventually(lambda: starts_later.state().idle)
    assert taken == 3
