"""The queue for several hosts, on a real Redis: the contract, and what it promises beyond that."""

import asyncio
import contextlib
import itertools
from collections.abc import AsyncIterator, Sequence

import pytest

from tests.queue.contract import (
    FRESH,
    OTHER,
    ROOT,
    Make,
    QueueContract,
    job,
)
from tests.queue.hosts import new_fingerprint
from tests.redis.server import RedisServer
from webpd.model import Ending, Job
from webpd.queue.cluster.watch import WatchQueue
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
            QueueManager(ROOTS, capacity=capacity), ROOTS, server.url, fingerprint, self.concluded, batch=1
        )
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

    def concluded(self, ended: Sequence[tuple[Job, Ending]], *, mine: bool) -> None:
        pass

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
