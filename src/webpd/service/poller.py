"""The side of a root that finds work: polled, listened to, kept in mind, and tidied up."""

import asyncio
import functools
import os
import threading
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import structlog

from webpd.errors import UnfitError, WebpdError
from webpd.ledger.port import Totals
from webpd.model import Job, Result
from webpd.printable import printable
from webpd.queue.port import Lane
from webpd.reconcile.glance import Glance
from webpd.reconcile.patience import Patience
from webpd.reconcile.pruning import Pruning
from webpd.reconcile.reconciler import SHARE, Reconciler
from webpd.reconcile.visit import Cycle
from webpd.service.chronicle import Chronicle
from webpd.service.guard import MountGuard
from webpd.service.listener import Listener
from webpd.service.places import Place
from webpd.service.recorder import Recorder
from webpd.service.root_hints import RootHints
from webpd.service.shared import Finding, Shared
from webpd.tree import naming
from webpd.tree.naming import Exclusion
from webpd.tree.pruner import Pruner
from webpd.tree.publisher import Publisher
from webpd.tree.scanner import Scanner
from webpd.watch.watcher import FileWatcher

_log = structlog.get_logger(__name__)

_SCAN_THREADS = 16
_FIRST_FULL = 300.0
"""Seconds after the start until the first full pass, at the least."""
_NOTE_INTERVAL = 60.0
"""Seconds after which a walk that found nothing new is noted all the same."""
_INTERVAL_ONCE = 0.5
"""Seconds between two cycles of a single pass."""


class Poller:
    """Finds what there is to do in one root, offers it, and prunes. ``once`` asks for one pass only."""

    def __init__(
        self,
        place: Place,
        shared: Shared,
        finding: Finding,
        guard: MountGuard,
        publisher: Publisher,
        patience: Patience,
        *,
        once: bool,
    ) -> None:
        settings = shared.settings
        self.cycles = 0
        self.watching = False
        """Whether all directories known have been asked once."""
        self.passed = asyncio.Event()
        """Set, in a single pass, when there is nothing more to do."""
        self.given_up: set[str] = set()
        """Paths that a single pass does not offer again."""
        self._root = root = place.path
        self._label = printable(root)
        self._settings = settings
        self._queue = finding.queue
        self._ledger = finding.ledger
        self._metrics = shared.metrics
        self._guard = guard
        self._once = once
        self._loop = asyncio.get_running_loop()
        self._mount = place.mount
        self._lookers = None if place.mount.local else ThreadPoolExecutor(_SCAN_THREADS, thread_name_prefix="look")
        self._watcher = None if once else self._watcher_for(settings.watch)
        self._chronicle = Chronicle(finding.histories, root, shared.fingerprint)
        scanner = Scanner(root, Exclusion(settings.exclude, place.apart), every=not place.mount.local)
        self.reconciler = Reconciler(
            scanner,
            self._ledger,
            self._offer,
            guard.halted,
            patience,
            shared.fingerprint,
            ask=guard.is_well_now,
            gone=self._chronicle.forget,
            apart=place.apart,
            watcher=self._watcher,
        )
        glance = Glance(self.reconciler, scanner, self._ledger, self._offer, patience, shared.fingerprint)
        self.hints = RootHints(self.reconciler, glance, guard, shared.metrics, cache=patience.cache)
        self.pruning = Pruning(
            self.reconciler,
            self._ledger,
            Pruner(root, publisher, share=settings.prune_share / 100),
            guard.halted,
            self._pruned,
            after=max(settings.prune_after, patience.sure),  # or both looks may come from one cache
            folders_after=settings.prune_folders_after,
        )
        self.recorder = Recorder(root, self._ledger, self._chronicle, self.reconciler.finished)
        self._offered = 0
        self._trouble = ""
        self._told_done = False
        self._note_due = 0.0
        self._totals = Totals(0, 0, 0, 0)
        self._parked = 0
        self._wake = threading.Event()
        self._threads: list[threading.Thread] = []

    def start(self) -> None:
        """Begin to poll and to listen."""
        self._threads = [threading.Thread(target=self._poll, name="poll", daemon=True)]
        if self._watcher:
            listener = Listener(self._watcher, self.reconciler, self._ledger, self._settings.settle)
            hear = functools.partial(listener.run, self._guard.stopping, self._guard.going)
            self._threads.append(threading.Thread(target=hear, name="news", daemon=True))
        for thread in self._threads:
            thread.start()

    async def stop(self) -> None:
        """Find nothing more; the guard has been stopped before."""
        self.hints.stop()
        self._wake.set()
        if self._watcher:
            await asyncio.to_thread(self._watcher.close)

    async def close(self, seconds: float) -> bool:
        """Let go of everything; tell whether no thread is left behind."""
        ended = await asyncio.to_thread(self._join, time.monotonic() + seconds)
        await asyncio.to_thread(self._chronicle.flush)
        if self._lookers:
            self._lookers.shutdown(wait=False, cancel_futures=True)
        return ended

    def flush(self) -> None:
        """Have the history know all that happened so far."""
        self._chronicle.flush()

    def look_at(self, directories: Sequence[str]) -> None:
        """Look at these directories (relative to the root) soon, from a thread; polling finds what has no room now."""
        for directory in directories:
            if not self.reconciler.news(self.reconciler.absolute(directory)):
                break
        self._wake.set()

    @property
    def trouble(self) -> str:
        """What broke the last walk off, "" where it went through."""
        return self._trouble

    @property
    def unsettled(self) -> int:
        """How many directories there was something to do in, at the end of the last cycle."""
        return self._totals.unsettled

    def state(self) -> dict[str, Any]:
        """Return what it found, for the health page."""
        return {
            "watch": "inotify" if self._watcher else "poll",
            "watches": self._watcher.watches if self._watcher else 0,
            "overflows": self._watcher.overflows if self._watcher else 0,
            "cycles": self.cycles,
            "watch_failures": self._watcher.failed if self._watcher else 0,
            "watch_events": self._watcher.events if self._watcher else 0,
            "listed": self.reconciler.listed,
            "entries": self.reconciler.entries,
            "directories": self._totals.directories,
            "unsettled": self._totals.unsettled,
            "images": self._totals.images,
            "orphans": self._totals.orphans,
            "parked": self._parked,
            "unreadable": len(self.reconciler.unreadable),
            "prune_refused": self.pruning.refused,
        }

    def _watcher_for(self, wanted: str) -> FileWatcher | None:
        sees_all = self._mount.reports_all_changes
        if wanted == "poll" or (wanted == "auto" and not sees_all):
            why = "as set" if wanted == "poll" else f"{self._mount.kind} does not report what other hosts change"
            _log.info("polling alone", root=self._root, why=why)
            return None
        try:
            watcher = FileWatcher()
        except UnfitError as error:
            _log.warning("polling alone", root=self._root, why=str(error))
            return None
        _log.info("watching with inotify", root=self._root, why=f"{self._mount.kind}, {wanted}")
        return watcher

    def _join(self, deadline: float) -> bool:
        for thread in self._threads:
            thread.join(max(0.0, deadline - time.monotonic()))
        return self.hints.join(deadline) and not any(thread.is_alive() for thread in self._threads)

    def _offer(self, jobs: Sequence[Job], lane: Lane, delay: float) -> int:
        wanted = [job for job in jobs if job.path not in self.given_up] if self.given_up else jobs
        taken = asyncio.run_coroutine_threadsafe(self._queue.offer(wanted, lane, delay), self._loop).result()
        self._offered += taken
        return taken if taken < len(wanted) else len(jobs)

    def _pruned(self, path: str) -> None:
        self._metrics.count_pruned()
        if original := naming.original_of(path):
            self._chronicle.forget(os.path.relpath(original, self._root))
        _log.info("pruned", path=path)

    def _poll(self) -> None:
        full_due = time.monotonic() + self._until_full()
        while not self._guard.stopping.is_set():
            if not self._guard.going.wait(1.0) or self._guard.halted():
                continue
            self._wake.clear()
            full = time.monotonic() >= full_due
            begun = time.thread_time()
            interval, whole = self._cycle(full=full)
            if full and whole:
                used = time.thread_time() - begun
                full_due = time.monotonic() + max(self._settings.full_interval, used / SHARE)
            if not self._guard.stopping.is_set():
                self._wake.wait(interval)

    def _until_full(self) -> float:
        """Return the seconds until the first full pass: as if the service had not been away, but not at once."""
        interval = self._settings.full_interval
        passed = self._ledger.passed(self._root)
        since = time.time() - passed.full if passed and passed.full else interval
        return min(max(_FIRST_FULL, interval - max(since, 0.0)), interval)

    def _cycle(self, *, full: bool) -> tuple[float, bool]:
        """Walk over the index once; return for how many seconds to let it be, and whether the walk was whole."""
        interval = _INTERVAL_ONCE if self._once else self._settings.poll_interval
        offered = self._offered
        trouble, whole = "", False
        try:
            begun = time.monotonic()
            cycle = self.reconciler.cycle(full=full, threads=self._lookers)
            if not self._guard.halted():
                self._metrics.scan.labels("full" if full else "poll").observe(time.monotonic() - begun)
                whole = True
                self._after(cycle)
                if self._once and not cycle.postponed and self._offered == offered:
                    self._loop.call_soon_threadsafe(self._pass_if_idle)
                interval = max(interval, cycle.seconds / SHARE)
        except (WebpdError, OSError) as error:
            trouble = str(error)
            if trouble != self._trouble:
                _log.warning("cycle broken off", root=self._root, detail=trouble)
        except Exception as error:  # a fault of ours must not end the watching
            trouble = repr(error)
            if trouble != self._trouble:
                _log.exception("unexpected error, please report it", root=self._root)
        self._trouble = trouble
        return interval, whole

    def _after(self, cycle: Cycle) -> None:
        if cycle.vanished and self._guard.is_well_now():
            for path in self.reconciler.forget(cycle.vanished):
                self._chronicle.forget(path)
        self.pruning.prune(cycle.begun)
        self._chronicle.flush()
        self._totals = self._ledger.totals(self._root)
        results = self._ledger.results(self._root).items()
        self._parked = sum(files for (result, _), files in results if result is Result.FAILED)
        if not cycle.postponed and (cycle.full or cycle.listed or time.monotonic() >= self._note_due):
            self._note_due = time.monotonic() + _NOTE_INTERVAL
            self._ledger.note_pass(self._root, time.time(), full=cycle.full)
        self.cycles += 1
        if not self._told_done and not self._totals.unsettled:
            self._told_done = True
            _log.info(
                "first pass done" if self._once else "first pass done: watching",
                root=self._root,
                images=self._totals.images,
            )
        self.watching = True

    def _pass_if_idle(self) -> None:
        if self._queue.state().idle and not self.passed.is_set():
            for outcome in self.reconciler.unreadable.values():
                self._metrics.count(Job(outcome.path, self._root, 0), outcome, "backfill")
            self.passed.set()
