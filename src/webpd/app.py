"""The parts put together: what is started, in which order, and how it is stopped."""

import contextlib
import logging
import os
import random
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import TypeVar

from webpd.convert.frames import Limits
from webpd.convert.pool import CodecPool
from webpd.crew import Crew
from webpd.errors import UnfitError, UsageError, WebpdError
from webpd.model import Job, Outcome, Result
from webpd.pipeline import Pipeline
from webpd.settings import Settings, available_cores, refuse_nested
from webpd.summary import Summary
from webpd.tree import naming
from webpd.tree.pruner import Pruner, PruningPass, Report
from webpd.tree.publisher import DryPublisher, Publisher, sweep
from webpd.tree.scanner import Look, Scanner, interleave
from webpd.tree.verifier import Finding, Verifier
from webpd.watch.mount import Mount, cache_time, mount_of

_log = logging.getLogger(__name__)

_THREADS_PER_WORKER = 4
_SCAN_THREADS = 16

# How long an interrupted pass waits for images in flight before it discards them, in seconds.
_GRACE = 5.0

# Images that a dry run really encodes.
_SAMPLE = 200

# The least time between two looks at what is to be removed, in seconds.
_SECOND_LOOK = 2.0

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Root:
    """One folder, or one image, to work on: its absolute path and the mount it is on."""

    path: str
    mount: Mount


@dataclass(frozen=True, slots=True)
class Estimate:
    """What a conversion would do: originals that need a closer look and their bytes, and what a sample of them came to.

    ``sampled_webp_bytes`` counts an original that would get no sidecar with its own size.
    """

    originals: int
    source_bytes: int
    sampled: int
    sampled_source_bytes: int
    sampled_webp_bytes: int
    sampled_results: dict[str, int]

    @property
    def saved_bytes(self) -> int:
        """Bytes saved, if the rest is like the sample."""
        if not self.sampled_source_bytes:
            return 0
        return round(self.source_bytes * (1 - self.sampled_webp_bytes / self.sampled_source_bytes))

    def as_dict(self) -> dict[str, object]:
        """Return what ``webpd convert --dry-run --json`` prints, bytes throughout."""
        return {**asdict(self), "saved_bytes": self.saved_bytes}


def roots_of(paths: Sequence[str]) -> list[Root]:
    """Return the roots that the paths name.

    Raises ``UsageError`` (nested, or a file that is no JPEG or PNG by its name), ``UnfitError`` (not there).
    """
    if "" in paths:
        raise UsageError("PATH: an empty path: is a variable unset?")
    refuse_nested(tuple(paths), "PATH")
    roots = []
    for path in map(os.path.abspath, paths):
        if not os.path.exists(path):
            raise UnfitError(f"{path}: no such file or folder (is it mounted?)")
        if not os.path.isdir(path) and not naming.is_original(os.path.basename(path)):
            raise UsageError(f"{path}: neither a folder nor a .jpg, .jpeg or .png")
        roots.append(Root(path, mount_of(path)))
    return roots


class Pass:
    """One pass over the roots: a crew of threads works on what a walk finds.

    ``every`` hands on every original that has a sidecar, fresh or not.
    """

    def __init__(self, settings: Settings, roots: Sequence[Root], *, every: bool = False) -> None:
        self.settings = settings
        self.roots = roots
        self.workers = settings.workers or available_cores()
        exclude = naming.Exclusion(settings.exclude)
        self._stopping = False
        self._scanners = [(root, Scanner(root.path, exclude, every=every)) for root in roots]

    def looks(self) -> Iterator[Look]:
        """Look at every directory of every root. Raises ``UnfitError``."""
        for root, scanner in self._scanners:
            for look in scanner.walk(1 if root.mount.local else _SCAN_THREADS):
                if self._stopping:
                    return
                yield look

    def pool(self) -> CodecPool:
        limits = Limits(self.settings.max_pixels, self.settings.worker_memory, self.settings.job_timeout)
        return CodecPool(self.settings.encoding, limits, self.workers)

    def run(self, items: Iterator[T], work: Callable[[T], None], pool: CodecPool | None = None) -> bool:
        """Work on the items; tell whether all were done. An interrupt finishes what is in flight or discards it."""
        crew = Crew(work, items, self._threads(), "io")
        try:
            crew.start()
            crew.finish()
        except KeyboardInterrupt:
            self._stopping = True
            crew.stop()
            _wind_down(crew, pool)
            return False
        return True

    def _threads(self) -> int:
        remote = [root.mount.useful_threads for root in self.roots if not root.mount.local]
        return self.settings.io_threads or max([_THREADS_PER_WORKER * self.workers, *remote])


def count(settings: Settings, roots: Sequence[Root], *, every: bool) -> Iterator[int]:
    """Yield how many images there are to work on, as far as has been seen: a walk of its own, for a progress bar."""
    total = 0
    for look in Pass(settings, roots, every=every).looks():
        total += len(look.jobs) + len(look.settled)
        yield total


def convert(
    settings: Settings, roots: Sequence[Root], summary: Summary, *, reconvert_changed: bool, overwrite_foreign: bool
) -> None:
    """Convert what is missing or stale below the roots; the summary counts along.

    Raises ``UnfitError`` where the work could not go on; the summary then tells what was done before.
    """
    one = Pass(settings, roots, every=reconvert_changed or overwrite_foreign)
    with one.pool() as pool:
        pipelines = {
            root.path: Pipeline(
                pool,
                Publisher(
                    settings.owner,
                    settings.mode,
                    fsync=settings.syncs(local=root.mount.local),
                    remote=not root.mount.local,
                ),
                settings.encoding,
                settings.max_source,
                reconvert_changed=reconvert_changed,
                overwrite_foreign=overwrite_foreign,
            )
            for root in roots
        }

        def looks() -> Iterator[Look]:
            for look in one.looks():
                summary.add_look(look)
                for temporary in look.temporary:
                    _sweep(temporary)
                yield look

        def work(job: Job) -> None:
            summary.add(pipelines[job.root].process(job))

        try:
            whole = one.run(interleave(looks()), work, pool)
        except WebpdError:
            summary.interrupt()
            raise
        if not whole:
            summary.interrupt()


def estimate(
    settings: Settings, roots: Sequence[Root], summary: Summary, *, reconvert_changed: bool, overwrite_foreign: bool
) -> Estimate:
    """Look at the whole tree and encode a sample of what needs a closer look; write nothing. Raises ``UnfitError``."""
    one = Pass(settings, roots, every=reconvert_changed or overwrite_foreign)
    chance = random.Random(0)  # noqa: S311 - a fair sample, the same each time, is all that is asked of it
    sample: list[Job] = []
    originals = size = 0
    for look in one.looks():
        summary.add_look(look)
        for job in look.jobs:
            originals += 1
            size += job.size
            if len(sample) < _SAMPLE:
                sample.append(job)
            elif (place := chance.randrange(originals)) < _SAMPLE:
                sample[place] = job
    with one.pool() as pool:
        pipeline = Pipeline(
            pool,
            DryPublisher(),
            settings.encoding,
            settings.max_source,
            reconvert_changed=reconvert_changed,
            overwrite_foreign=overwrite_foreign,
        )
        tried: list[tuple[Job, Outcome]] = []
        if not one.run(iter(sample), lambda job: tried.append((job, pipeline.process(job))), pool):
            summary.interrupt()
    return Estimate(
        originals,
        size,
        len(tried),
        sum(job.size for job, _ in tried),
        sum(o.webp_bytes if o.result is Result.CONVERTED else job.size for job, o in tried),
        dict(Counter(str(o.result) for _, o in tried)),
    )


def verify(settings: Settings, roots: Sequence[Root], report: Callable[[Finding], None]) -> bool:
    """Verify every sidecar below the roots; tell whether all were looked at. ``report`` is called from any thread.

    Raises ``UnfitError``.
    """
    one = Pass(settings, roots, every=True)
    with one.pool() as pool:
        verifier = Verifier(pool, settings.max_source)

        def looks() -> Iterator[Look]:
            for look in one.looks():
                for path in look.orphans:
                    report(verifier.verify_orphan(path))
                yield look

        return one.run(interleave(looks()), lambda job: report(verifier.verify(job)), pool)


def prune(settings: Settings, roots: Sequence[Root], report: Report, *, remove: bool, everything: bool) -> bool:
    """Look for sidecars of ours whose original is gone; with ``remove`` remove them. Tell whether all was done.

    ``everything`` removes them even where no original is left. ``report`` is called from any thread. Raises
    ``UnfitError``.
    """
    for root in roots:
        one = Pass(settings, [root])
        pruner = Pruner(root.path, Publisher(settings.owner, settings.mode, fsync=False))
        scanner = Scanner(root.path, naming.Exclusion(settings.exclude))
        looks = PruningPass(scanner, pruner, report, young=settings.prune_folders_after)
        if not one.run(one.looks(), looks.first):
            return False
        if not remove or not looks.orphans:
            continue
        if not looks.images and not everything:
            raise UnfitError(
                f"{root.path}: not one original is left, but {looks.orphans:,} sidecars: is all mounted that should "
                "be? Nothing was removed here; `webpd prune --yes --all` removes them"
            )
        time.sleep(_second_look_after(settings, root.mount))
        if not one.run(looks.folders(), looks.second):
            return False
    return True


def _second_look_after(settings: Settings, mount: Mount) -> float:
    return max(_SECOND_LOOK, cache_time(mount) if settings.cache_time is None else settings.cache_time)


def _sweep(temporary: str) -> None:
    try:
        sweep(temporary)
    except WebpdError as error:  # a left-over that stays is no reason to convert nothing
        _log.warning("left where it is: %s", error)


def _wind_down(crew: Crew[T], pool: CodecPool | None) -> None:
    with contextlib.suppress(KeyboardInterrupt, WebpdError):  # asked twice: discard what is in flight
        if crew.finish(_GRACE):
            return
    if pool is None:
        return
    pool.close()
    with contextlib.suppress(WebpdError):
        crew.finish(_GRACE)
