"""One root of the running service: its mount's health, its threads, and its workers."""

import asyncio
import functools
import os
import threading
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import structlog

from webpd.convert.pool import CodecPool
from webpd.errors import UnfitError, WebpdError
from webpd.ledger.port import Ledger, Totals
from webpd.model import Failure, Job, Outcome, Result
from webpd.pipeline import Pipeline
from webpd.queue.port import Lane, Queue
from webpd.reconcile.patience import Patience
from webpd.reconcile.pruning import Pruning
from webpd.reconcile.reconciler import Reconciler
from webpd.reconcile.visit import Cycle
from webpd.service.listener import Listener
from webpd.service.places import Place
from webpd.service.worker import Worker
from webpd.settings import Settings
from webpd.summary import printable
from webpd.telemetry.metrics import Metrics
from webpd.tree.naming import Exclusion
from webpd.tree.pruner import Pruner
from webpd.tree.publisher import Publisher
from webpd.tree.scanner import Scanner
from webpd.watch.health import Health, MountProbe
from webpd.watch.mount import Mount, cache_time
from webpd.watch.watcher import FileWatcher

_log = structlog.get_logger(__name__)

_SCAN_THREADS = 16
_SHARE = 0.02
"""Of one core, how much polling may take."""
_PROBE_INTERVAL = 1.0
_FIRST_FULL = 300.0
"""Seconds after the start until the first full pass: files may have been overwritten in place while nobody watched."""
_MOST_FAILING = 16
_REST = 10.0
"""Seconds for which a root rests when in so many folders, and no other between, images could not be read or written."""
_INTERVAL_ONCE = 0.5
"""Seconds between two cycles of a single pass."""
_TRIES_ONCE = 3
"""How often a single pass tries an image before it gives it up."""


@dataclass(frozen=True, slots=True)
class Shared:
    """What all roots have in common. ``fingerprint`` stands for the settings and the version."""

    settings: Settings
    fingerprint: bytes
    pool: CodecPool
    queue: Queue
    ledger: Ledger
    metrics: Metrics


class Keeper:
    """Keeps one root right, with up to ``threads`` images in flight. ``once`` asks for one pass only."""

    def __init__(self, place: Place, shared: Shared, threads: int, *, once: bool) -> None:
        settings, ledger, fingerprint = shared.settings, shared.ledger, shared.fingerprint
        self.root, self.mount = root, mount = place.path, place.mount
        self._label = printable(root)
        self.health = Health.WELL
        self.detail = ""
        self._watching = False
        self.cycles = 0
        self.passed = asyncio.Event()
        """Set, in a single pass, when there is nothing more to do."""
        self._settings = settings
        self._queue = shared.queue
        self._ledger = ledger
        self._metrics = metrics = shared.metrics
        self._once = once
        self._loop = asyncio.get_running_loop()
        self._well = asyncio.Event()
        self._going = threading.Event()  # what _well is, for threads
        self._stopping = threading.Event()
        self._probe = MountProbe(root, mount)
        cache = settings.cache_time if settings.cache_time is not None else cache_time(mount)
        self._patience = Patience(settings.settle, 0.0 if mount.local else cache, mount.local)
        self._threads = threads
        self._executor = ThreadPoolExecutor(threads, thread_name_prefix="io")
        self._lookers = None if mount.local else ThreadPoolExecutor(_SCAN_THREADS, thread_name_prefix="look")
        self._watcher = None if once else self._watcher_for(settings.watch)
        publisher = Publisher(
            settings.owner, settings.mode, fsync=_fsync(settings, mount), remote=not mount.local, bare=place.bare
        )
        pruner = Pruner(root, publisher, share=settings.prune_share / 100)
        self.reconciler = Reconciler(
            Scanner(root, Exclusion(settings.exclude, place.apart), every=not mount.local),
            ledger,
            self._offer,
            self._halted,
            self._patience,
            fingerprint,
            watcher=self._watcher,
        )
        self.pruning = Pruning(
            self.reconciler,
            ledger,
            pruner,
            self._halted,
            self._pruned,
            after=settings.prune_after,
            folders_after=settings.prune_folders_after,
        )
        pipeline = Pipeline(shared.pool, publisher, settings.encoding, settings.max_source)
        self._worker = Worker(
            root,
            pipeline,
            ledger,
            self._patience,
            fingerprint,
            metrics,
            blame=self._blame,
            finished=self.reconciler.finished,
        )
        self._given_up: set[str] = set()
        self._offered = 0
        self._failing: set[str] = set()
        self._resting = 0.0
        self._told_listed = 0
        self._trouble = ""
        self._totals = Totals(0, 0, 0, 0)
        self._crew: list[threading.Thread] = []
        self._tasks: list[asyncio.Task[None]] = []
        self._idle: set[asyncio.Task[None]] = set()
        self._monitor: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Begin: the first thing is to ask the mount how it is."""
        self._monitor = asyncio.create_task(self._keep_an_eye())
        self._tasks = [asyncio.create_task(self._work()) for _ in range(self._threads)]
        for task in (self._monitor, *self._tasks):
            task.add_done_callback(self._tell_fault)
        self._crew = [threading.Thread(target=self._poll, name="poll", daemon=True)]
        if self._watcher:
            listener = Listener(self._watcher, self.reconciler, self._ledger, self._metrics, self._settings.settle)
            hear = functools.partial(listener.run, self._stopping, self._going)
            self._crew.append(threading.Thread(target=hear, name="news", daemon=True))
        for thread in self._crew:
            thread.start()

    async def stop(self, seconds: float) -> bool:
        """Take no more; wait that long for what is in flight; tell whether all of it ended."""
        self._stopping.set()
        self._going.set()
        self._well.set()
        if self._watcher:
            await asyncio.to_thread(self._watcher.close)
        for task in list(self._idle):
            task.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=seconds)
        return all(task.done() for task in self._tasks)

    async def close(self, seconds: float) -> bool:
        """Let go of everything; tell whether no thread is left behind. The codec processes have been ended before."""
        if self._monitor:
            self._monitor.cancel()
        pending = [task for task in self._tasks if not task.done()]
        if pending:
            await asyncio.wait(pending, timeout=seconds)
        await asyncio.to_thread(self._join, time.monotonic() + seconds)
        left = [task for task in self._tasks if not task.done()]
        for task in left:
            task.cancel()
        await asyncio.gather(*self._tasks, *([self._monitor] if self._monitor else []), return_exceptions=True)
        self._executor.shutdown(wait=False, cancel_futures=True)
        if self._lookers:
            self._lookers.shutdown(wait=False, cancel_futures=True)
        return not left and not any(thread.is_alive() for thread in self._crew)

    def _join(self, deadline: float) -> None:
        for thread in self._crew:
            thread.join(max(0.0, deadline - time.monotonic()))

    @property
    def ready(self) -> bool:
        """Whether the mount is well and all directories known have been asked once."""
        return self._watching and self.health is Health.WELL

    def state(self) -> dict[str, Any]:
        """Return how the root is, for the health page; asks nobody who could keep it waiting."""
        return {
            "root": self._label,
            "kind": self.mount.kind,
            "mount": str(self.health),
            "detail": printable(self.detail),
            "watch": "inotify" if self._watcher else "poll",
            "watches": self._watcher.watches if self._watcher else 0,
            "overflows": self._watcher.overflows if self._watcher else 0,
            "cycles": self.cycles,
            "listed": self.reconciler.listed,
            "directories": self._totals.directories,
            "unsettled": self._totals.unsettled,
            "images": self._totals.images,
            "orphans": self._totals.orphans,
            "prune_refused": self.pruning.refused,
        }

    def _watcher_for(self, wanted: str) -> FileWatcher | None:
        sees_all = self.mount.reports_all_changes
        if wanted == "poll" or (wanted == "auto" and not sees_all):
            why = "as set" if wanted == "poll" else f"{self.mount.kind} does not report what other hosts change"
            _log.info("polling alone", root=self.root, why=why)
            return None
        try:
            watcher = FileWatcher()
        except UnfitError as error:
            _log.warning("polling alone", root=self.root, why=str(error))
            return None
        _log.info("watching with inotify", root=self.root, why=f"{self.mount.kind}, {wanted}")
        return watcher

    # The mount

    async def _keep_an_eye(self) -> None:
        while True:
            health = await asyncio.to_thread(self._probe.look)
            if health is not Health.WELL or time.monotonic() >= self._resting:
                self._found(health, self._probe.detail)
            await asyncio.sleep(_PROBE_INTERVAL)

    def _note(self, path: str, failure: str) -> None:
        """Rest for a while when folder after folder fails: behind SSHFS no call tells of a disk that is read-only."""
        if not failure:
            self._failing.clear()
            return
        self._failing.add(os.path.dirname(path))
        if len(self._failing) >= _MOST_FAILING and not self._once:
            self._failing.clear()
            self._resting = time.monotonic() + _REST
            self._found(Health.READ_ONLY, f"nothing could be done in {_MOST_FAILING} folders in a row: {failure}")

    def _blame(self, error: OSError) -> Health | None:
        health = self._probe.blame(error)
        if health is None or health is Health.WELL:
            return None
        self._going.clear()
        self._loop.call_soon_threadsafe(self._found, health, self._probe.detail)
        return health

    def _found(self, health: Health, detail: str) -> None:
        if health is not self.health:
            if health is Health.WELL:
                _log.info("mount is well again: going on", root=self.root, was=str(self.health))
            else:
                _log.warning("mount is sick: paused", root=self.root, mount=str(health), detail=detail)
        self.health, self.detail = health, detail
        well = health is Health.WELL
        self._metrics.mount.labels(self._label).set(well)
        if well or self._stopping.is_set():
            self._well.set()
            self._going.set()
        else:
            self._well.clear()
            self._going.clear()

    def _halted(self) -> bool:
        return self._stopping.is_set() or not self._going.is_set()

    # Workers

    async def _work(self) -> None:
        me = asyncio.current_task()
        assert me is not None  # noqa: S101 - a coroutine that runs is in a task
        while not self._stopping.is_set():
            self._idle.add(me)
            try:
                await self._well.wait()
                ticket = await self._queue.take(self.root)
            except asyncio.CancelledError:
                return
            finally:
                self._idle.discard(me)
            if self._halted():
                await self._queue.again(ticket, ticket.job, 0.0)
                continue
            verdict = await self._loop.run_in_executor(self._executor, self._worker.work, ticket.job)
            self._note(ticket.job.path, verdict.failure)
            if verdict.again is None:
                await self._queue.done(ticket)
            elif verdict.failure and self._once and ticket.tries + 1 >= _TRIES_ONCE:
                await self._queue.done(ticket)
                self._metrics.count(Outcome(ticket.job.path, Result.FAILED, Failure.IO, verdict.failure))
                self._given_up.add(ticket.job.path)
                _log.error("failed", path=ticket.job.path, reason="io", detail=verdict.failure)
            else:
                await self._queue.again(ticket, verdict.again, verdict.delay)
                if verdict.failure:
                    log = _log.warning if ticket.tries < _TRIES_ONCE else _log.debug
                    log("will be tried again", path=ticket.job.path, detail=verdict.failure, tries=ticket.tries + 1)

    @staticmethod
    def _tell_fault(task: asyncio.Task[None]) -> None:
        if not task.cancelled() and (error := task.exception()):
            _log.error("a part of the service ended, please report it", detail=repr(error), exc_info=error)

    def _offer(self, jobs: Sequence[Job], lane: Lane, delay: float) -> int:
        wanted = [job for job in jobs if job.path not in self._given_up] if self._given_up else jobs
        taken = asyncio.run_coroutine_threadsafe(self._queue.offer(wanted, lane, delay), self._loop).result()
        self._offered += taken
        return taken if taken < len(wanted) else len(jobs)

    def _pruned(self, path: str) -> None:
        self._metrics.count_pruned()
        _log.info("pruned", path=path)

    # Polling

    def _poll(self) -> None:
        full_due = time.monotonic() + min(_FIRST_FULL, self._settings.full_interval)
        while not self._stopping.is_set():
            if not self._going.wait(1.0) or self._halted():
                continue
            full = time.monotonic() >= full_due
            begun = time.thread_time()
            interval = self._cycle(full=full)
            if full and not self._halted():
                used = time.thread_time() - begun
                full_due = time.monotonic() + max(self._settings.full_interval, used / _SHARE)
            self._stopping.wait(interval)

    def _cycle(self, *, full: bool) -> float:
        """Walk over the index once; return for how many seconds to let it be."""
        interval = _INTERVAL_ONCE if self._once else self._settings.poll_interval
        offered = self._offered
        trouble = ""
        try:
            cycle = self.reconciler.cycle(full=full, threads=self._lookers)
            if not self._halted():
                self._after(cycle)
                if self._once and not cycle.postponed and self._offered == offered:
                    self._loop.call_soon_threadsafe(self._pass_if_idle)
                interval = max(interval, cycle.seconds / _SHARE)
        except (WebpdError, OSError) as error:
            trouble = str(error)
            if trouble != self._trouble:
                _log.warning("cycle broken off", root=self.root, detail=trouble)
        except Exception as error:  # a fault of ours must not end the watching
            trouble = repr(error)
            if trouble != self._trouble:
                _log.exception("unexpected error, please report it", root=self.root)
        self._trouble = trouble
        return interval

    def _after(self, cycle: Cycle) -> None:
        if cycle.vanished and self._probe.look() is Health.WELL:
            self.reconciler.forget(cycle.vanished)
        self.pruning.prune(cycle.begun)
        self._totals = self._ledger.totals(self.root)
        self.cycles += 1
        self._watching = True
        self._metrics.cycles.labels(self._label).inc()
        told, self._told_listed = self._told_listed, self.reconciler.listed
        self._metrics.listed.labels(self._label).inc(self._told_listed - told)

    def _pass_if_idle(self) -> None:
        if self._queue.state().idle:
            self.passed.set()


def _fsync(settings: Settings, mount: Mount) -> bool:
    return mount.local if settings.fsync == "auto" else settings.fsync == "always"
