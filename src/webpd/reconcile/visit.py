"""What one look at a directory, and one walk over all of them, comes to."""

import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from webpd.model import Failure, Job, Known, Result, Sidecar, Skip

# What a file comes to that is cut short, or was filled with zeros before its bytes come.
_UNFINISHED = frozenset({str(Failure.DAMAGED), str(Skip.NOT_AN_IMAGE)})
# A bound on what is kept in memory.
_MOST_VANISHED = 10_000


@dataclass(slots=True)
class Cycle:
    """What one walk over the directory index came to.

    ``listed`` directories were looked at, ``offered`` jobs went to the queue, ``postponed`` directories wait for room
    in it. ``seconds`` is the processor time that asking for the mtimes took.
    """

    full: bool
    begun: float
    listed: int = 0
    offered: int = 0
    postponed: int = 0
    seconds: float = 0.0
    vanished: list[str] = field(default_factory=list)

    def vanish(self, path: str) -> None:
        """Note that a directory is not there; what does not fit is noted by a later cycle."""
        if path and len(self.vanished) < _MOST_VANISHED:
            self.vanished.append(path)


@dataclass(slots=True)
class Visit:
    """What the looks at one directory came to. ``known`` is what the ledger knows of its files.

    ``begun`` is when (monotonic seconds), ``busy`` tells that there is something to do, ``unfinished`` that a file
    looks as if it were still being written, ``whole`` that there was room for all jobs.
    """

    begun: float
    known: Mapping[str, Known]
    seen: set[str] = field(default_factory=set)
    directories: list[str] = field(default_factory=list)
    orphans: list[str] = field(default_factory=list)
    images: int = 0
    offered: int = 0
    busy: bool = False
    unfinished: bool = False
    whole: bool = True

    def needs(self, job: Job, fingerprint: bytes) -> bool:
        """Tell whether there is anything to do that is not known to lead nowhere."""
        name = os.path.basename(job.path)
        record = self.known.get(name)
        if record is None:
            return job.sidecar is not Sidecar.FRESH
        self.seen.add(name)
        same = (record.size, record.mtime_ns) == (job.size, job.mtime_ns)
        self.unfinished |= same and record.reason in _UNFINISHED
        if job.sidecar is Sidecar.FRESH:  # made from what a cache told: is that what there is?
            return not same
        return not (same and record.sidecar is job.sidecar and record.fingerprint == fingerprint)

    def is_foreign(self, orphan: str) -> bool:
        """Tell whether the sidecar without an original is known not to be ours."""
        name = os.path.basename(orphan)
        record = self.known.get(name)
        if record is None:
            return False
        try:
            status = os.lstat(orphan)
        except OSError:
            return False
        self.seen.add(name)
        return (record.size, record.mtime_ns) == (status.st_size, status.st_mtime_ns)

    def outdated(self, *, sure: bool) -> Iterator[str]:
        """Yield the names whose record is of no use any more."""
        for name, record in self.known.items():
            if name not in self.seen or (sure and record.result is Result.CONVERTED):
                yield name
