"""A real tree, a real ledger, and a queue that only keeps what is offered to it."""

import io
import os
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from PIL import Image

from tests.conftest import write
from webpd.ledger.port import Directory
from webpd.ledger.sqlite import SqliteLedger
from webpd.model import Encoding, Job, Known, Result
from webpd.queue.port import Lane
from webpd.reconcile import pruning as pruning_module
from webpd.reconcile import reconciler as reconciler_module
from webpd.reconcile.patience import Patience
from webpd.reconcile.pruning import Pruning
from webpd.reconcile.reconciler import Reconciler, Watcher
from webpd.reconcile.visit import Cycle
from webpd.tree import naming, sidecar, source
from webpd.tree.naming import Exclusion
from webpd.tree.pruner import Pruner
from webpd.tree.publisher import Publisher
from webpd.tree.scanner import Look, Scanner
from webpd.tree.sidecar import Origin

FINGERPRINT = sidecar.fingerprint_of(Encoding(80, 4), 1)
IMAGE = b"an original: nobody decodes it here"
LOCAL = Patience(settle=0.0, cache=0.0, local=True)


def _webp() -> bytes:
    file = io.BytesIO()
    Image.new("RGB", (4, 4), "teal").save(file, "WEBP")
    return file.getvalue()


WEBP = _webp()


class Clock:
    """The monotonic clock that the reconciler reads, put forward: what waits for an hour is seen at once."""

    thread_time = staticmethod(time.thread_time)

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.ahead = 0.0
        for module in (pruning_module, reconciler_module):
            monkeypatch.setattr(module, "time", self)

    def pass_by(self, seconds: float) -> None:
        self.ahead += seconds

    def time(self) -> float:
        """Return what the wall says: folders are aged by their own mtimes."""
        return time.time()

    def monotonic(self) -> float:
        return time.monotonic() + self.ahead


class Inbox:
    """Takes in up to ``room`` jobs a lane, one for each path, and keeps all that was ever offered."""

    def __init__(self, room: int = 1_000_000) -> None:
        self.room = room
        self.waiting: dict[Lane, dict[str, Job]] = {lane: {} for lane in Lane}
        self.offers: list[tuple[str, Lane, float]] = []
        self._lock = threading.Lock()

    def offer(self, jobs: Sequence[Job], lane: Lane, delay: float) -> int:
        with self._lock:
            for taken, job in enumerate(jobs):
                queue = self.waiting[lane]
                if job.path not in queue and len(queue) >= self.room:
                    return taken
                queue[job.path] = job
                self.offers.append((job.path, lane, delay))
            return len(jobs)

    def take(self) -> list[Job]:
        """Take all that waits."""
        with self._lock:
            jobs = [job for queue in self.waiting.values() for job in queue.values()]
            for queue in self.waiting.values():
                queue.clear()
            return jobs

    def lanes(self, root: Path) -> dict[str, Lane]:
        """Return what waits, by path from the root."""
        return {os.path.relpath(path, root): lane for lane, queue in self.waiting.items() for path in queue}


class Scene:
    """A tree at ``root``, and reconcilers of it that share one ledger. ``halted`` is what they are told."""

    def __init__(self, folder: Path, clock: Clock) -> None:
        self.root = folder / "tree"
        self.root.mkdir()
        self.clock = clock
        self.ledger = SqliteLedger(str(folder / "state" / "ledger.sqlite"))
        self.inbox = Inbox()
        self.halted = False
        self.publisher = Publisher(None, 0o644, fsync=False)
        self.removed: list[str] = []

    def reconciler(
        self,
        patience: Patience = LOCAL,
        *,
        fingerprint: bytes = FINGERPRINT,
        watcher: Watcher | None = None,
        scanner: Callable[..., Scanner] = Scanner,
        exclude: Iterable[str] = (),
    ) -> Reconciler:
        return Reconciler(
            scanner(str(self.root), Exclusion(exclude), every=not patience.local),
            self.ledger,
            self.inbox.offer,
            lambda: self.halted,
            patience,
            fingerprint,
            watcher=watcher,
        )

    def pruning(
        self, reconciler: Reconciler, *, after: float = 60.0, folders_after: float = 600.0, floor: int = 100
    ) -> Pruning:
        return Pruning(
            reconciler,
            self.ledger,
            Pruner(str(self.root), self.publisher, floor=floor),
            lambda: self.halted,
            self.removed.append,
            after=after,
            folders_after=folders_after,
        )

    def image(self, path: str, data: bytes = IMAGE, mtime: float | None = None) -> Path:
        return write(self.root / path, data, mtime)

    def age(self, seconds: float = 3600.0) -> None:
        """Nothing happened for so long in any folder of the tree."""
        for folder, _, _ in os.walk(self.root):
            self.age_folder(Path(folder), seconds)

    def age_folder(self, folder: Path, seconds: float = 3600.0) -> None:
        os.utime(folder, (time.time() - seconds,) * 2)

    def work(self) -> set[str]:
        """Give every image that waits its sidecar; return their paths from the root."""
        jobs = self.inbox.take()
        for job in jobs:
            self.convert(job)
        return {os.path.relpath(job.path, self.root) for job in jobs}

    def convert(self, job: Job) -> None:
        there = naming.sidecar_of(job.path)
        replaces = source.version_of(os.lstat(there)) if os.path.lexists(there) else None
        original = source.read(job, 1 << 20)
        origin = Origin(len(original.data), original.version.mtime_ns, sidecar.digest_of(original.data), FINGERPRINT)
        self.publisher.publish(original, sidecar.attach(WEBP, origin), replaces)

    def finish(self, reconciler: Reconciler) -> set[str]:
        """Cycle and work until there is nothing to do, all folders being old; return the images worked on."""
        done: set[str] = set()
        worked: set[str] | None = None
        for _ in range(20):
            if worked != set():
                self.age()
            self.clock.pass_by(400.0)
            cycle = reconciler.cycle(full=False)
            worked = self.work()
            done |= worked
            if not worked and not cycle.listed:
                return done
        raise AssertionError("it never comes to rest")

    def restarted(self, **options: object) -> Reconciler:
        """Return what a new process begins with: nothing but the ledger."""
        self.ledger.flush()
        self.inbox = Inbox(self.inbox.room)
        return self.reconciler(**options)  # type: ignore[arg-type]

    def directory(self, path: str) -> Directory:
        found = self.ledger.directory(str(self.root), path)
        assert found is not None, f"{path!r} is not in the index"
        return found

    def remembered(self) -> dict[str, Directory]:
        """Return all directories of the index by path."""
        return {one.path: one for one in self.ledger.directories(str(self.root), None, 1_000_000)}

    def learn(self, job: Job, result: Result, reason: str = "", fingerprint: bytes = FINGERPRINT) -> None:
        """Remember how it ended, as a worker does."""
        directory, name = os.path.split(os.path.relpath(job.path, self.root))
        known = Known(job.size, job.mtime_ns, job.sidecar, fingerprint, result, reason)
        self.ledger.learn(str(self.root), directory, {name: known})

    def known(self, directory: str = "") -> set[str]:
        return set(self.ledger.known(str(self.root), directory))


def in_threads(reconciler: Reconciler, *, full: bool = False) -> Cycle:
    """Cycle as on a network mount."""
    with ThreadPoolExecutor(4) as threads:
        return reconciler.cycle(full=full, threads=threads)


class Meddled(Scanner):
    """Has somebody at work while it lists: ``meanwhile`` is called with the directory, once it was listed."""

    meanwhile: Callable[[str], object] = staticmethod(lambda _: None)

    def look(self, directory: str) -> Iterator[Look]:
        looks = list(super().look(directory))
        self.meanwhile(directory)
        yield from looks


def meddled(meanwhile: Callable[[str], object]) -> Callable[..., Scanner]:
    """Return a maker of such scanners."""

    def make(root: str, exclude: Exclusion, *, every: bool) -> Scanner:
        scanner = Meddled(root, exclude, every=every)
        scanner.meanwhile = meanwhile
        return scanner

    return make


def once(function: Callable[[], object]) -> Callable[[str], object]:
    """Return what calls the function the first time, whatever it is called with, and does nothing from then on."""
    left = [function]
    return lambda _: left.pop()() if left else None
