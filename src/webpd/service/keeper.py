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
from webpd.ledger.history import History
from webpd.ledger.port import Ledger, Totals
from webpd.model import Failure, Job, Outcome, Result
from webpd.pipeline import Pipeline
from webpd.queue.port import Lane, Queue
from webpd.reconcile.patience import Patience
from webpd.reconcile.pruning import Pruning
from webpd.reconcile.reconciler import Reconciler
from webpd.reconcile.visit import Cycle
from webpd.service.chronicle import Chronicle
from webpd.service.guard import MountGuard
from webpd.service.listener import Listener
from webpd.service.places import Place
from webpd.service.worker import Worker
from webpd.settings import Settings
from webpd.summary import printable
from webpd.telemetry.metrics import Metrics
from webpd.tree import naming
from webpd.tree.naming import Exclusion
from webpd.tree.pruner import Pruner
from webpd.tree.publisher import Publisher
from webpd.tree.scanner import Scanner
from webpd.watch.health import Health
from webpd.watch.mount import cache_time
from webpd.watch.watcher import FileWatcher

_log = structlog.get_logger(__name__)

_SCAN_THREADS = 16
_SHARE = 0.02
"""Of one core, how much polling may take."""
_FIRST_FULL = 300.0
"""Seconds after the start until the first full pass: files may have been overwritten in place while nobody watched."""
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
    history: History
    metrics: Metrics


class Keeper:
    """Keeps one root right, with up to ``threads`` images in flight. ``once`` asks for one pass only."""

    def __init__(self, place: Place, shared: Shared, threads: int, *, once: bool) -> None:
        settings, ledger, fingerprint = shared.settings, shared.ledger, shared.fingerprint
        self.root, self.mount = root, mount = place.path, place.mount
        self._label = printable(root)
        self._chronicle = Chronicle(shared.history, root, fingerprint)
        self._guard = MountGuard(root, mount, lambda well: shared.metrics.mount.labels(self._label).set(well))
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
        cache = settings.cache_time if settings.cache_time is not None else cache_time(mount)
        self._patience = Patience(settings.settle, 0.0 if mount.local else cache, mount.local)
        self._threads = threads
        self._executor = ThreadPoolExecutor(threads, thread_name_prefix="io")
        self._lookers = None if mount.local else ThreadPoolExecutor(_SCAN_THREADS, thread_name_prefix="look")
        self._watcher = None if once else self._watcher_for(settings.watch)
        publisher = Publisher(
            settings.owner,
            settings.mode,
            fsync=settings.syncs(local=mount.local),
            remote=not mount.local,
            bare=place.bare,
        )
        pruner = Pruner(root, publisher, share=settings.prune_share / 100)
        self.reconciler = Reconciler(
            Scanner(root, Exclusion(settings.exclude, place.apart), every=not mount.local),
            ledger,
            self._offer,
            self._guard.halted,
            self._patience,
            fingerprint,
            ask=self._guard.is_well_now,
            apart=place.apart,
            watcher=self._watcher,
        )
        self.pruning = Pruning(
            self.reconciler,
            ledger,
            pruner,
            self._guard.halted,
            self._pruned,
            after=max(settings.prune_after, self._patience.sure),  # or both looks may come from one cache
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
            self._chronicle,
            blame=self._guard.blame,
            finished=self.reconciler.finished,
        )
        self._given_up: set[str] = set()
        self._offered = 0
        self._told_listed = 0
        self._trouble = ""
        self._told_done = False
        self._totals = Totals(0, 0, 0, 0)
        self._parked = 0
        self._crew: list[threading.Thread] = []
        self._tasks: list[asyncio.Task[None]] = []
        self._idle: set[asyncio.Task[None]] = set()
        self._monitor: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Begin: the first thing is to ask the mount how it is."""
        self._monitor = asyncio.create_task(self._guard.watch())
        self._tasks = [asyncio.create_task(self._work()) for _ in range(self._threads)]
        for task in (self._monitor, *self._tasks):
            task.add_done_callback(self._tell_fault)
        self._crew = [threading.Thread(target=self._poll, name="poll", daemon=True)]
        if self._watcher:
            listener = Listener(self._watcher, self.reconciler, self._ledger, self._metrics, self._settings.settle)
            hear = functools.partial(listener.run, self._guard.stopping, self._guard.going)
            self._crew.append(threading.Thread(target=hear, name="news", daemon=True))
        for thread in self._crew:
            thread.start()

    async def stop(self, seconds: float) -> bool:
        """Take no more; wait that long for what is in flight; tell whether all of it ended."""
        self._guard.stop()
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
        await asyncio.to_thread(self._chronicle.flush)
        self._metrics.forget(self._label)
        self._executor.shutdown(wait=False, cancel_futures=True)
        if self._lookers:
            self._lookers.shutdown(wait=False, cancel_futures=True)
        return not left and not any(thread.is_alive() for thread in self._crew)

    def _join(self, deadline: float) -> None:
        for thread in self._crew:
            thread.join(max(0.0, deadline - time.monotonic()))

    @property
    def answers(self) -> bool:
        """Whether the mount can be asked without waiting for long, as far as is known."""
        return self._guard.health not in (Health.HUNG, Health.DEAD)

    @property
    def ready(self) -> bool:
        """Whether the mount is well and all directories known have been asked once."""
        return self._watching and self._guard.health is Health.WELL

    def state(self) -> dict[str, Any]:
        """Return how the root is, for the health page; asks nobody who could keep it waiting."""
        return {
            "root": self._label,
            "kind": self.mount.kind,
            "mount": str(self._guard.health),
            "detail": printable(self._guard.detail),
            "watch": "inotify" if self._watcher else "poll",
            "watches": self._watcher.watches if self._watcher else 0,
            "overflows": self._watcher.overflows if self._watcher else 0,
            "cycles": self.cycles,
            "listed": self.reconciler.listed,
            "directories": self._totals.directories,
            "unsettled": self._totals.unsettled,
            "images": self._totals.images,
            "orphans": self._totals.orphans,
            "parked": self._parked,
            "unreadable": len(self.reconciler.unreadable),
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

    # Workers

    async def _work(self) -> None:
        me = asyncio.current_task()
        assert me is not None  # noqa: S101 - a coroutine that runs is in a task
        while not self._guard.stopping.is_set():
            self._idle.add(me)
            try:
                await self._guard.well.wait()
                ticket = await self._queue.take(self.root)
            except asyncio.CancelledError:
                return
            finally:
                self._idle.discard(me)
            if self._guard.halted():
                await self._queue.again(ticket, ticket.job, 0.0)
                await asyncio.sleep(0)  # a thread blamed the mount: the loop has to hear of it before anything is taken
                continue
            verdict = await self._loop.run_in_executor(self._executor, self._worker.work, ticket.job)
            if not self._once:
                self._guard.note(ticket.job.path, verdict.failure)
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
        if original := naming.original_of(path):
            self._chronicle.forget(os.path.relpath(original, self.root))
        _log.info("pruned", path=path)

    # Polling

    def _poll(self) -> None:
        full_due = time.monotonic() + min(_FIRST_FULL, self._settings.full_interval)
        while not self._guard.stopping.is_set():
            if not self._guard.going.wait(1.0) or self._guard.halted():
                continue
            full = time.monotonic() >= full_due
            begun = time.thread_time()
            interval, whole = self._cycle(full=full)
            if full and whole:
                used = time.thread_time() - begun
                full_due = time.monotonic() + max(self._settings.full_interval, used / _SHARE)
            self._guard.stopping.wait(interval)

    def _cycle(self, *, full: bool) -> tuple[float, bool]:
        """Walk over the index once; return for how many seconds to let it be, and whether the walk was whole."""
        interval = _INTERVAL_ONCE if self._once else self._settings.poll_interval
        offered = self._offered
        trouble, whole = "", False
        try:
            cycle = self.reconciler.cycle(full=full, threads=self._lookers)
            if not self._guard.halted():
                whole = True
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
        return interval, whole

    def _after(self, cycle: Cycle) -> None:
        if cycle.vanished and self._guard.is_well_now():
            for path in self.reconciler.forget(cycle.vanished):
                self._chronicle.forget(path)
        self.pruning.prune(cycle.begun)
        self._chronicle.flush()
        self._totals = self._ledger.totals(self.root)
        results = self._ledger.results(self.root).items()
        self._parked = sum(files for (result, _), files in results if result is Result.FAILED)
        self.cycles += 1
        if not self._told_done and not self._totals.unsettled:
            self._told_done = True
            _log.info("first pass done: watching", root=self.root, images=self._totals.images)
        self._watching = True
        self._metrics.cycles.labels(self._label).inc()
        told, self._told_listed = self._told_listed, self.reconciler.listed
        self._metrics.listed.labels(self._label).inc(self._told_listed - told)

    def _pass_if_idle(self) -> None:
        if self._queue.state().idle and not self.passed.is_set():
            for outcome in self.reconciler.unreadable.values():
                self._metrics.count(outcome)
            self.passed.set()
