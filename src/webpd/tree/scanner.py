"""Looking at directories, and deciding from names and stats alone which originals need work.

``Scanner.look`` looks at one directory; ``Scanner.walk`` at a whole root, with memory that grows with the largest
directory and the depth, not with the tree.
"""

import contextlib
import os
import stat
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, field

from webpd.errors import UnfitError
from webpd.model import Failure, Job, Outcome, Result, Sidecar, Skip
from webpd.tree import naming
from webpd.tree.sidecar import same_time

# Originals of one directory that are handed on together.
_BATCH = 1024


@dataclass(slots=True)
class Look:
    """What was found in one directory, or in a part of a large one.

    ``entries`` counts the names listed; ``jobs`` are the originals that need a closer look; ``fresh`` counts those
    whose sidecar is right by its stat, with their ``source_bytes`` and ``webp_bytes``; ``settled`` are those whose
    outcome is known from the stat alone (empty, name too long) or that could not be looked at (io). ``temporary``,
    ``orphans`` and ``directories`` are paths: of the publisher's temporary files, of sidecars whose original is not
    listed, and of the folders below.
    """

    directory: str
    entries: int = 0
    jobs: list[Job] = field(default_factory=list)
    fresh: int = 0
    source_bytes: int = 0
    webp_bytes: int = 0
    settled: list[Outcome] = field(default_factory=list)
    temporary: list[str] = field(default_factory=list)
    orphans: list[str] = field(default_factory=list)
    directories: list[str] = field(default_factory=list)

    @property
    def found(self) -> int:
        return len(self.jobs) + self.fresh + len(self.settled)


class Scanner:
    """Looks at the directories below ``root``, an absolute path of a folder, or at the one image that it names.

    ``every`` makes a job of every original that has a sidecar, fresh or not. Thread-safe.
    """

    def __init__(self, root: str, exclude: naming.Exclusion, *, every: bool = False) -> None:
        self.root = root
        self._exclude = exclude
        self._every = every

    def walk(self, threads: int = 1) -> Iterator[Look]:
        """Yield a look, or several, for each directory below the root, the root included.

        With ``threads`` over 1 that many directories are looked at side by side, for mounts where each look is a round
        trip. A directory that can't be read yields its failure; raises ``UnfitError`` where that is the root.
        """
        if os.path.isfile(self.root):
            look = Look(os.path.dirname(self.root))
            there = os.path.lexists(naming.sidecar_of(self.root))
            self._judge(look, os.path.basename(self.root), there, os.path.islink(self.root))
            yield look
        elif threads == 1:
            yield from self._walk_here()
        else:
            yield from self._walk_threaded(threads)

    def leaves_alone(self, directory: str) -> bool:
        """Tell whether the walk passes over the directory: it, or one on the way to it, is hidden or excluded."""
        while len(directory) > len(self.root):
            if directory in self._exclude or os.path.basename(directory).startswith("."):
                return True
            directory = os.path.dirname(directory)
        return False

    def look(self, directory: str) -> Iterator[Look]:
        """Look at one directory: yield what is there, a thousand originals at a time."""
        look = Look(directory)
        try:
            originals, sidecars = self._list(look)
        except OSError as error:
            if directory == self.root:
                raise UnfitError(f"{directory}: can't be listed: {error.strerror}") from error
            if not isinstance(error, FileNotFoundError):  # gone since its parent was listed: nothing to convert in it
                look.settled.append(_unreadable(directory, error))
                yield look
            return
        for name, link in originals:
            if look.found >= _BATCH:
                yield look
                look = Look(directory)
            sidecar = naming.sidecar_of(name)
            self._judge(look, name, sidecar in sidecars, link)
            sidecars.discard(sidecar)
        look.orphans = [os.path.join(directory, name) for name in sidecars if naming.original_of(name)]
        yield look

    def glance(self, path: str) -> Look:
        """Look at one original alone, in a directory that the walk does not pass over: two calls where it is no link.

        What is no file, or a link that leads out of the root, is not in the look. Raises ``FileNotFoundError`` or
        ``NotADirectoryError`` where it is not there, ``OSError`` where it can't be looked at.
        """
        directory, name = os.path.split(path)
        look = Look(directory)
        original = os.lstat(path)
        link = stat.S_ISLNK(original.st_mode)
        if link:
            if not self._leads_inside(path):
                return look
            original = os.stat(path)
        sidecar = None
        if naming.fits(name):
            with contextlib.suppress(FileNotFoundError):
                sidecar = os.lstat(naming.sidecar_of(path))
        self._sort(look, name, original, sidecar, link)
        return look

    def _walk_here(self) -> Iterator[Look]:
        stack = [self.root]
        while stack:
            for look in self.look(stack.pop()):
                stack.extend(look.directories)
                yield look

    def _walk_threaded(self, threads: int) -> Iterator[Look]:
        stack = [self.root]
        running: set[Future[list[Look]]] = set()
        with ThreadPoolExecutor(threads, thread_name_prefix="scan") as pool:
            while stack or running:
                while stack and len(running) < threads:
                    running.add(pool.submit(lambda directory: list(self.look(directory)), stack.pop()))
                done, running = wait(running, return_when=FIRST_COMPLETED)
                for future in done:
                    for look in future.result():
                        stack.extend(look.directories)
                        yield look

    def _list(self, look: Look) -> tuple[list[tuple[str, bool]], set[str]]:
        originals: list[tuple[str, bool]] = []
        sidecars: set[str] = set()
        with os.scandir(look.directory) as entries:
            for entry in entries:
                name = entry.name
                look.entries += 1
                if name.endswith(naming.SIDECAR):
                    sidecars.add(name)
                if entry.is_dir(follow_symlinks=False):
                    if not name.startswith(".") and entry.path not in self._exclude:
                        look.directories.append(entry.path)
                elif naming.is_original(name):
                    link = entry.is_symlink()
                    if not link or self._leads_inside(entry.path):
                        originals.append((name, link))
                elif naming.is_temporary(name):
                    look.temporary.append(entry.path)
        return originals, sidecars

    def _leads_inside(self, link: str) -> bool:
        target = os.path.realpath(link)
        return target.startswith(os.path.join(os.path.realpath(self.root), ""))

    def _judge(self, look: Look, name: str, has_sidecar: bool, link: bool) -> None:
        path = os.path.join(look.directory, name)
        try:
            original = os.stat(path)
            sidecar = os.lstat(naming.sidecar_of(path)) if has_sidecar else None
        except FileNotFoundError:
            return  # gone since the listing
        except OSError as error:
            if not link:  # a link that leads in a circle is one that leads nowhere
                look.settled.append(_unreadable(path, error))
            return
        self._sort(look, name, original, sidecar, link)

    def _sort(
        self, look: Look, name: str, original: os.stat_result, sidecar: os.stat_result | None, link: bool
    ) -> None:
        if not stat.S_ISREG(original.st_mode):
            return
        path = os.path.join(look.directory, name)
        state = _state(original, sidecar)
        if state is Sidecar.FRESH and not self._every:
            look.fresh += 1
            look.source_bytes += original.st_size
            look.webp_bytes += sidecar.st_size if sidecar else 0
        elif state is Sidecar.ABSENT and original.st_size == 0:
            look.settled.append(Outcome(path, Result.SKIPPED, Skip.EMPTY, "the file has no bytes"))
        elif not naming.fits(name):
            detail = f"{len(os.fsencode(name))} bytes: no room for {naming.SIDECAR} within 255"
            look.settled.append(Outcome(path, Result.SKIPPED, Skip.NAME_TOO_LONG, detail))
        else:
            look.jobs.append(Job(path, self.root, original.st_size, original.st_mtime_ns, state, link))


def _state(original: os.stat_result, sidecar: os.stat_result | None) -> Sidecar:
    """Tell by the stats alone whether the sidecar was made from this state of the original.

    Times are equal or not, and never "newer": the clocks of two hosts differ.
    """
    if sidecar is None:
        return Sidecar.ABSENT
    usable = sidecar.st_size > 0 and stat.S_ISREG(sidecar.st_mode)
    same = same_time(sidecar.st_mtime_ns, original.st_mtime_ns)
    return Sidecar.FRESH if usable and same else Sidecar.STALE


def interleave(looks: Iterable[Look], width: int = 64) -> Iterator[Job]:
    """Yield the jobs of up to ``width`` looks in turn.

    Calls that create or rename in one directory queue behind one another on a network mount: neighbours in time should
    not be neighbours on disk.
    """
    source = iter(looks)
    lanes: deque[deque[Job]] = deque()
    while True:
        while len(lanes) < width and (look := next(source, None)) is not None:
            if look.jobs:
                lanes.append(deque(look.jobs))
            if lanes:  # one look a job: what is known goes on while the rest of the tree is looked at
                break
        if not lanes:
            return
        lane = lanes.popleft()
        yield lane.popleft()
        if lane:
            lanes.append(lane)


def _unreadable(path: str, error: OSError) -> Outcome:
    return Outcome(
        path, Result.FAILED, Failure.IO, f"can't be looked at: {error.strerror}: check its rights and the disk"
    )
