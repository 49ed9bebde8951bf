"""Several hosts on one queue: some in this process, some in processes of their own that can be killed."""

import asyncio
import itertools
import subprocess
import sys
import time
from collections.abc import Coroutine, Sequence
from pathlib import Path
from typing import Any

from tests.queue.contract import OTHER, ROOT, jobs
from tests.redis.server import RedisServer
from webpd.model import Ending, Job, Outcome, Result
from webpd.queue.cluster.watch import WatchQueue
from webpd.queue.cluster.work import WorkQueue
from webpd.queue.manager import QueueManager

ROOTS = [ROOT, OTHER]
AUDIT = 0.3
LEASE = 1.0
_numbers = itertools.count()


def new_fingerprint() -> bytes:
    """Return one that no other test has: its hosts hear of no others, though they share a Redis."""
    return b"%d" % next(_numbers)


def paths(count: int, directory: str = "a") -> list[str]:
    return [one.path for one in jobs(directory, count)]


def ended(one: Job) -> Ending:
    return Ending(Outcome(one.path, Result.CONVERTED), None, "host", time.time())


class Hosts:
    """Hosts under the same settings. Times are short: what Redis has lost is missed after AUDIT seconds, hosts that are
    silent after LEASE."""

    def __init__(self, server: RedisServer, folder: Path) -> None:
        self.server = server
        self.fingerprint = new_fingerprint()
        self.concluded: list[tuple[str, bool]] = []
        """Paths that watching hosts in this process were told of, and whether they had handed them out."""
        self.done: list[str] = []
        """Paths that working hosts in this process have done."""
        self.tasks: list[asyncio.Task[None]] = []
        """What runs in this process, the newest last."""
        self._log = folder / "log"
        self._processes: list[subprocess.Popen[bytes]] = []

    def watch(self, batch: int = 4) -> WatchQueue:
        queue = WatchQueue(
            QueueManager(ROOTS), ROOTS, self.server.url, self.fingerprint, self._hear, batch=batch, audit=AUDIT
        )
        self.start(queue.run())
        return queue

    def work(
        self, *, takers: int = 0, seconds: float = 0.0, ahead: int = 8, patience: float = 60.0, lease: float = LEASE
    ) -> WorkQueue:
        """Let a host work on ROOT, where so many takers need so many seconds for each job."""
        queue = WorkQueue([ROOT], self.server.url, self.fingerprint, ahead=ahead, patience=patience, lease=lease)
        for _ in range(takers):
            self.start(self._take(queue, seconds))
        self.start(queue.run())
        return queue

    def start(self, run: Coroutine[Any, Any, None]) -> "asyncio.Task[None]":
        self.tasks.append(asyncio.create_task(run))
        return self.tasks[-1]

    def process(self, role: str, number: float) -> "subprocess.Popen[bytes]":
        """Start a host of its own: see ``tests/queue/host.py``."""
        command = (sys.executable, "-m", "tests.queue.host", role, self.server.url, self.fingerprint, self._log)
        self._processes.append(subprocess.Popen([*command, str(number)]))
        return self._processes[-1]

    @property
    def written(self) -> list[str]:
        """Paths that the processes have written."""
        return self._log.read_text("ascii").splitlines() if self._log.exists() else []

    async def end(self) -> None:
        for process in self._processes:
            process.kill()
            process.wait()
        for task in self.tasks:
            task.cancel()
        await asyncio.gather(*self.tasks, return_exceptions=True)

    async def _take(self, queue: WorkQueue, seconds: float) -> None:
        while True:
            ticket = await queue.take(ROOT)
            await asyncio.sleep(seconds)
            self.done.append(ticket.job.path)
            await queue.done(ticket, ended(ticket.job))

    def _hear(self, ended: Sequence[tuple[Job, Ending]], *, mine: bool) -> None:
        self.concluded += [(job.path, mine) for job, _ in ended]
