"""One root kept right: which directories to look at, and what a look means for the queue and the ledger.

Synchronous, for threads of its own. A directory is *settled* when a look at it found nothing to do, and only then its
mtime is remembered. Whatever is unfinished when the service ends, however it ends, is therefore looked at again.
"""

import logging
import os
import stat
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Protocol

from webpd.errors import WebpdError
from webpd.ledger.port import Directory, Ledger
from webpd.model import Failure, Job, Known, Outcome, Result, Sidecar, Skip
from webpd.queue.port import Lane
from webpd.reconcile.backoff import Backoff
from webpd.reconcile.patience import Patience
from webpd.reconcile.visit import Cycle, Visit
from webpd.tree.pruner import Verdict, examine
from webpd.tree.publisher import sweep
from webpd.tree.scanner import Look, Scanner

_log = logging.getLogger(__name__)

_PAGE = 1000
_FIRST_PAGE = 16
# What a look at one image costs, at the most, in seconds of a core: a directory with so many is looked at accordingly.
_LARGE = 1000
# Instead of the mtime of a directory that does not answer: none has this one, a nanosecond before 1970.
_NO_ANSWER = -1
_LOOK_COST = 2e-5
SHARE, _SHARE_WHILE_FULL = 0.02, 0.2
"""Of one core, how much polling may take, and looks at large directories that had no room in the queue."""
# Bounds on what is kept in memory: orphans, images just finished, troubles told.
_MOST_ORPHANS, _MOST_FINISHED, _MOST_TOLD = 100_000, 20_000, 1_000


class Watcher(Protocol):
    """What the reconciler asks of ``FileWatcher``."""

    def watch(self, directory: str) -> bool:
        """Watch the directory from now on."""


class Reconciler:
    """Looks at the directories of one root. Thread-safe but for ``cycle``, which has one caller.

    ``offer`` hands jobs to a lane and returns how many were taken in; ``halted`` tells that the mount is sick or the
    service is stopping, and nothing is to be concluded. ``fingerprint`` stands for the settings and the version.
    ``ask`` asks the mount how it is, and halts if it is sick; ``gone`` is told of images (by their path below the
    root) that are not as they were when they failed; ``apart`` are folders that are roots of their own.
    """

    def __init__(  # noqa: PLR0913 - one for each neighbour
        self,
        scanner: Scanner,
        ledger: Ledger,
        offer: Callable[[Sequence[Job], Lane, float], int],
        halted: Callable[[], bool],
        patience: Patience,
        fingerprint: bytes,
        *,
        ask: Callable[[], object] = lambda: None,
        gone: Callable[[str], object] = lambda _: None,
        apart: Sequence[str] = (),
        watcher: Watcher | None = None,
    ) -> None:
        self.root = scanner.root
        self.listed = self.entries = 0
        """How many directories were listed since the start, and how many names were in them."""
        self.orphans: dict[str, dict[str, float]] = {}
        """Sidecars without an original: by directory and path, since when (monotonic seconds)."""
        self.unreadable: dict[str, Outcome] = {}
        """Directories that could not be read, or held something that could not: by path."""
        self._prefix = os.path.join(self.root, "")
        self._scanner = scanner
        self._ledger = ledger
        self._offer = offer
        self._halted = halted
        self._patience = patience
        self._fingerprint = fingerprint
        self._ask = ask
        self._gone = gone
        self._apart = apart
        self._watcher = watcher
        self._begun = False
        self._tracked = 0
        self._lock = threading.Lock()
        self._looking: dict[str, bool] = {}
        self._full: set[Lane] = set()
        self._backoff = Backoff(max(1.0, patience.settle))
        self._finished: OrderedDict[str, tuple[int, int, float]] = OrderedDict()
        self._told: dict[str, str] = {}

    def cycle(self, *, full: bool, threads: ThreadPoolExecutor | None = None) -> Cycle:
        """Ask all known directories for their mtimes, and look at those that need it; ``full``: at all of them.

        ``threads`` look and ask side by side, for mounts where each call is a round trip.
        """
        cycle = Cycle(full, time.monotonic())
        if not self._begun:
            self._begin()
        self._full.clear()
        self._ledger.discover(self.root, [""])
        after, size = None, _FIRST_PAGE
        while not self._halted():
            begun = time.thread_time()
            page = self._ledger.directories(self.root, after, size)
            if not page:
                break
            due = self._due(page, cycle, threads)
            used = time.thread_time() - begun
            looks = threads.map(self._visit, due) if threads else map(self._visit, due)
            after, size = page[-1].path, min(_PAGE, 2 * size)
            for directory, (offered, found) in zip(due, looks, strict=True):
                cycle.listed += 1
                cycle.offered += offered
                if found and directory.path < after:  # what was found comes before the rest of the page
                    after, size = directory.path, _FIRST_PAGE
                    used = 0.0  # asking twice comes of what is new, and not of every cycle
                if self._halted():
                    return cycle
            cycle.seconds += used
        return cycle

    def _begin(self) -> None:
        """Doubt what was known under other settings, and forget what is a root of its own by now."""
        self._begun = True
        self._ledger.outdate(self.root, self._fingerprint)
        for folder in map(self._relative, self._apart):
            if folder and self._ledger.directory(self.root, folder):
                self._ledger.forget(self.root, folder)

    def news(self, directory: str) -> bool:
        """Look at a directory (an absolute path) that something happened in; tell whether there was room for all."""
        path = os.path.relpath(directory, self.root)
        pending = ["" if path == "." else path]
        while pending and not self._halted():
            looked = self._look(pending.pop(), Lane.FRESH)
            if looked is None:
                continue  # the thread that is at it looks once more
            _, found, whole = looked
            pending += found
            if not whole:
                return False
        return not self._halted()

    def finished(self, job: Job) -> None:
        """The image has come to an end, which a look that began before, or in a cache's past, does not know."""
        self._backoff.restart(self._relative(os.path.dirname(job.path)))
        with self._lock:
            self._finished[job.path] = (job.size, job.mtime_ns, time.monotonic())
            self._finished.move_to_end(job.path)
            if len(self._finished) > _MOST_FINISHED:
                self._finished.popitem(last=False)

    def is_finished(self, job: Job, begun: float) -> bool:
        """Tell whether the image has come to an end that a look begun then (monotonic seconds) may not know of."""
        size, mtime_ns, at = self._finished.get(job.path, (-1, 0, 0.0))
        same = (size, mtime_ns) == (job.size, job.mtime_ns)
        return same and job.sidecar is Sidecar.ABSENT and begun <= at + self._patience.cache

    def look_again(self, path: str) -> bool:
        """Look at a directory for who must know how it is now; tell whether, or another thread was at it already."""
        return self._look(path, Lane.BACKFILL) is not None

    def forget(self, vanished: Iterable[str]) -> set[str]:
        """Forget directories that are still not there, and return them. The caller has just seen the mount well."""
        gone = {path for path in vanished if self._mtime(path) is None}
        for path in gone:
            self._ledger.forget(self.root, path)
        if gone:
            self.orphans = {path: each for path, each in self.orphans.items() if not _is_below(path, gone)}
            self._backoff.forget(lambda path: _is_below(path, gone))
            self._tracked = sum(map(len, self.orphans.values()))
        return gone

    def tell(self, path: str, detail: str, level: int = logging.WARNING) -> None:
        """Log what is wrong with a path, once for as long as it stays the same."""
        if self._told.get(path) != detail:
            if len(self._told) >= _MOST_TOLD:
                self._told.clear()
            self._told[path] = detail
            _log.log(level, "%s: %s", path, detail, extra={"path": path, "root": self.root})

    def absolute(self, path: str) -> str:
        return os.path.join(self.root, path) if path else self.root

    def _visit(self, directory: Directory) -> tuple[int, bool]:
        """Look at a directory of the index; return how many jobs were offered, and whether directories were found."""
        if self._halted():
            return 0, False
        lane = Lane.BACKFILL if directory.mtime_ns is None else Lane.FRESH
        looked = self._look(directory.path, lane)
        if looked is None:
            return 0, False
        offered, found, whole = looked
        if not whole:
            self._full.add(lane)
        return offered, bool(found)

    def _due(self, page: Sequence[Directory], cycle: Cycle, threads: ThreadPoolExecutor | None) -> list[Directory]:
        parts = [page[at : at + 64] for at in range(0, len(page), 64)] if threads else [page]
        answers: Iterable[tuple[list[int | None], float]]
        answers = threads.map(self._mtimes, parts) if threads else map(self._mtimes, parts)
        due = []
        now = time.monotonic()
        for part, (mtimes, seconds) in zip(parts, answers, strict=True):
            cycle.seconds += seconds if threads else 0.0  # without threads the caller measures it
            for directory, mtime in zip(part, mtimes, strict=True):
                if mtime is None:
                    cycle.vanish(directory.path)
                elif self._is_due(directory, mtime, cycle, now):
                    if (Lane.BACKFILL if directory.mtime_ns is None else Lane.FRESH) in self._full:
                        cycle.postponed += 1
                    else:
                        due.append(directory)
        return due

    def _mtimes(self, directories: Sequence[Directory]) -> tuple[list[int | None], float]:
        """Return the directories' mtimes, None for those that are gone."""
        begun = time.thread_time()
        mtimes = [self._mtime(directory.path) for directory in directories]
        return mtimes, time.thread_time() - begun

    def _mtime(self, path: str) -> int | None:
        try:
            status = os.lstat(self._prefix + path) if path else os.stat(self.root)
        except (FileNotFoundError, NotADirectoryError):
            return None
        except OSError:
            return _NO_ANSWER  # the look tells what is wrong
        return status.st_mtime_ns if stat.S_ISDIR(status.st_mode) else None

    def _is_due(self, directory: Directory, mtime: int, cycle: Cycle, now: float) -> bool:
        looked = directory.looked if directory.looked <= now else 0.0  # the clock begins anew with the machine
        if looked >= cycle.begun:
            return False
        new = directory.path not in self.orphans and self._tracked < _MOST_ORPHANS
        if directory.orphans and new:  # counted before this process began
            return True
        if cycle.full:
            return True
        age = now - looked
        waits = self._backoff.waits(directory.path)
        # Where there was no room for all, there may be some by now.
        share = SHARE if waits or directory.mtime_ns is not None else _SHARE_WHILE_FULL
        if directory.images > _LARGE and age < directory.images * _LOOK_COST / share:
            return False
        if waits and self._backoff.holds(directory.path, mtime, now, age):
            return False
        return mtime != directory.mtime_ns or (not directory.sure and age >= self._patience.sure)

    def _look(self, path: str, lane: Lane) -> tuple[int, list[str], bool] | None:
        """Look at a directory; by one thread at a time, and again if another one wanted to meanwhile.

        Return how many jobs were offered, which new directories were found, and whether there was room for all jobs;
        None where another thread was at it.
        """
        with self._lock:
            if path in self._looking:
                self._looking[path] = True
                return None
            self._looking[path] = False
        offered, whole = 0, True
        found: list[str] = []
        try:
            while True:
                more = self._look_once(path, lane)
                offered, found, whole = offered + more[0], found + more[1], more[2]
                with self._lock:
                    if not self._looking[path]:
                        return offered, found, whole
                    self._looking[path] = False
        finally:
            with self._lock:
                del self._looking[path]

    def _look_once(self, path: str, lane: Lane) -> tuple[int, list[str], bool]:
        begun = time.monotonic()
        absolute = self.absolute(path)
        if self._scanner.leaves_alone(absolute):  # by settings that are newer than the index
            self._ledger.forget(self.root, path)
            return 0, [], True
        if self._watcher:
            self._watcher.watch(absolute)
        mtime = self._mtime(path)
        if mtime is None:
            return 0, [], True  # the next cycle finds out why
        before = self._ledger.directory(self.root, path) or Directory(path)
        known = self._ledger.known(self.root, path)
        visit = Visit(begun, known)
        self.unreadable.pop(path, None)
        for look in self._scanner.look(absolute):
            self._take(look, visit, lane)
        self.listed += 1
        if self._halted():  # what was listed may be what a sick mount made up
            return visit.offered, [], True
        found = self._ledger.discover(self.root, (self._relative(child) for child in visit.directories))
        orphans = self._note_orphans(path, visit)
        settled = not visit.busy and mtime != _NO_ANSWER
        self._backoff.note(path, mtime, begun, waits=visit.unfinished or (visit.busy and visit.whole))
        unchanged = before.mtime_ns == mtime and not before.sure and begun - before.looked >= self._patience.sure
        sure = settled and (self._patience.is_old(mtime) or unchanged)
        if visit.unfinished and self._patience.may_go_on(mtime):
            sure = False
        self._ledger.record(
            self.root,
            before._replace(
                mtime_ns=mtime if settled else None,
                sure=sure,
                looked=begun,
                images=visit.images,
                orphans=len(orphans),
                orphaned=min(orphans.values(), default=0.0),
            ),
        )
        if visit.whole and (outdated := list(visit.outdated(sure=sure))):
            self._ledger.unlearn(self.root, path, outdated)
            for name in outdated:
                if known[name].result is Result.FAILED:
                    self._gone(os.path.join(path, name))
        return visit.offered, list(found), visit.whole

    def _take(self, look: Look, visit: Visit, lane: Lane) -> None:
        self.entries += look.entries
        jobs = [job for job in look.jobs if visit.needs(job, self._fingerprint)]
        jobs = [job for job in jobs if not self.is_finished(job, visit.begun)]
        if jobs:
            visit.busy = True
            taken = self._offer(jobs, lane, self._patience.delay(jobs)) if visit.whole and not self._halted() else 0
            visit.offered += taken
            visit.whole = taken == len(jobs)
        visit.images += look.found
        visit.directories += look.directories
        visit.orphans += [path for path in look.orphans if not visit.is_foreign(path)]
        for outcome in look.settled:
            if outcome.reason is Failure.IO:
                visit.busy = True
                self._ask()
                if self._halted():
                    return
                self.unreadable[self._relative(look.directory)] = outcome
                self.tell(outcome.path, outcome.detail)
            else:
                self.tell(outcome.path, f"skipped: {outcome.detail}", logging.INFO)
            visit.unfinished |= outcome.reason is Skip.EMPTY
        for temporary in look.temporary:
            try:
                sweep(temporary)
            except WebpdError as error:
                self.tell(temporary, f"left where it is: {error}")

    def _note_orphans(self, path: str, visit: Visit) -> dict[str, float]:
        """Keep since when each sidecar of ours has been without its original; learn which are not ours."""
        before = self.orphans.get(path, {})
        now = time.monotonic()
        orphans = {}
        for orphan in visit.orphans:
            if orphan in before or self._is_ours(path, orphan, visit):
                orphans[orphan] = before.get(orphan, now)
        tracked = self._tracked - len(self.orphans.pop(path, ()))
        if orphans and (before or tracked + len(orphans) <= _MOST_ORPHANS):
            self.orphans[path] = orphans
            tracked += len(orphans)
        self._tracked = tracked
        return orphans

    def _is_ours(self, path: str, orphan: str, visit: Visit) -> bool:
        try:
            verdict, version = examine(orphan)
        except WebpdError as error:
            visit.busy = True
            self.tell(orphan, str(error))
            return False
        if verdict is Verdict.FOREIGN and version is not None:
            name = os.path.basename(orphan)
            size, mtime_ns = version.size, version.mtime_ns
            foreign = Known(size, mtime_ns, Sidecar.ABSENT, b"", Result.SKIPPED, Skip.FOREIGN_SIDECAR)
            self._ledger.learn(self.root, path, {name: foreign})
            visit.seen.add(name)
        return verdict is Verdict.OURS

    def _relative(self, directory: str) -> str:
        return directory[len(self._prefix) :]


def _is_below(path: str, folders: set[str]) -> bool:
    """Tell whether the path is one of the folders, or inside one."""
    while path not in folders:
        if not path:
            return False
        path = path.rpartition("/")[0]
    return True
