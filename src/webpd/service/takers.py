"""The side of a root that does the work: takers of the queue, and the threads in which they work."""

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import structlog

from webpd.model import Failure, Outcome, Result
from webpd.queue.port import Outlet
from webpd.service.guard import MountGuard
from webpd.service.worker import Worker
from webpd.telemetry.metrics import Metrics

_log = structlog.get_logger(__name__)

_TRIES_ONCE = 3
"""How often a single pass tries an image before it gives it up."""


class Takers:
    """Takes the jobs of one root, up to ``threads`` at once, while its mount is well.

    ``give_up``, in a single pass, is told of each path that could not be worked on again and again; None otherwise.
    """

    def __init__(
        self,
        root: str,
        queue: Outlet,
        worker: Worker,
        guard: MountGuard,
        metrics: Metrics,
        threads: int,
        give_up: Callable[[str], None] | None,
    ) -> None:
        self._root = root
        self._queue = queue
        self._worker = worker
        self._guard = guard
        self._metrics = metrics
        self._threads = threads
        self._give_up = give_up
        self._loop = asyncio.get_running_loop()
        self._executor = ThreadPoolExecutor(threads, thread_name_prefix="io")
        self._tasks: list[asyncio.Task[None]] = []
        self._idle: set[asyncio.Task[None]] = set()

    def start(self) -> list[asyncio.Task[None]]:
        """Begin to take; return the tasks."""
        self._tasks = [asyncio.create_task(self._work()) for _ in range(self._threads)]
        return self._tasks

    async def stop(self, seconds: float) -> bool:
        """Take no more; wait that long for what is in flight; tell whether all of it ended."""
        for task in list(self._idle):
            task.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=seconds)
        return all(task.done() for task in self._tasks)

    async def close(self, seconds: float) -> bool:
        """Let go of everything; tell whether no thread is left behind. The codec processes have been ended before."""
        pending = [task for task in self._tasks if not task.done()]
        if pending:
            await asyncio.wait(pending, timeout=seconds)
        left = [task for task in self._tasks if not task.done()]
        for task in left:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._executor.shutdown(wait=False, cancel_futures=True)
        return not left

    async def _work(self) -> None:
        me = asyncio.current_task()
        assert me is not None  # noqa: S101 - a coroutine that runs is in a task
        while not self._guard.stopping.is_set():
            self._idle.add(me)
            try:
                await self._guard.well.wait()
                ticket = await self._queue.take(self._root)
            except asyncio.CancelledError:
                return
            finally:
                self._idle.discard(me)
            if self._guard.halted():
                await self._queue.again(ticket, ticket.job, 0.0)
                await asyncio.sleep(0)  # a thread blamed the mount: the loop has to hear of it before anything is taken
                continue
            verdict = await self._loop.run_in_executor(self._executor, self._worker.work, ticket.job, ticket.lane)
            if not self._give_up:
                self._guard.note(ticket.job.path, verdict.failure, denied=verdict.denied)
            if verdict.again is None:
                await self._queue.done(ticket, verdict.ending)
            elif verdict.failure and self._give_up and ticket.tries + 1 >= _TRIES_ONCE:
                await self._queue.done(ticket)
                outcome = Outcome(ticket.job.path, Result.FAILED, Failure.IO, verdict.failure)
                self._metrics.count(ticket.job, outcome, ticket.lane.name.lower())
                self._give_up(ticket.job.path)
                _log.error("failed", path=ticket.job.path, reason="io", detail=verdict.failure)
            else:
                await self._queue.again(ticket, verdict.again, verdict.delay)
                if verdict.failure:
                    log = _log.warning if ticket.tries < _TRIES_ONCE else _log.debug
                    log("will be tried again", path=ticket.job.path, detail=verdict.failure, tries=ticket.tries + 1)
