"""How long to wait before a file or a directory is believed."""

import time
from collections.abc import Iterable
from dataclasses import dataclass

from webpd.model import Job

# Two names made 0.5 s apart can share a directory's second; 2 s is for clocks read at either end of one.
_SAME_MTIME = 2.0
# The clocks of two hosts that share a tree are taken to differ by less than this (seconds).
_CLOCKS = 86_400.0
# For how long (seconds) a writer may leave a file empty or cut short and then go on, which no mtime but its own shows.
_UNFINISHED = 3600.0
# A whole second, and the time for which a kernel may keep a network file's attributes while it passes.
_WHOLE_SECOND = 1.25


@dataclass(frozen=True, slots=True)
class Patience:
    """How long to wait, in seconds.

    ``settle`` until a file that stayed as it was is read; ``cache`` is for how long the mount may answer from its
    cache; ``local`` tells that the directory's mtimes come from our own clock.
    """

    settle: float
    cache: float
    local: bool

    @property
    def sure(self) -> float:
        """Seconds between two looks at a young directory, after which nothing can have come under its mtime."""
        return _SAME_MTIME + self.cache

    def is_old(self, mtime_ns: int) -> bool:
        """Tell whether a directory's mtime is so long ago that no name can come under it any more."""
        return time.time() - mtime_ns / 1e9 > (self.sure if self.local else self.sure + _CLOCKS)

    def may_go_on(self, mtime_ns: int) -> bool:
        """Tell whether a file that looks unfinished, in a directory of that mtime, may still be being written."""
        return abs(time.time() - mtime_ns / 1e9) < _UNFINISHED

    def delay(self, jobs: Iterable[Job]) -> float:
        """Return how long to wait before the jobs' files are read: where mtimes have whole seconds, one has to pass."""
        whole = any(job.mtime_ns % 1_000_000_000 == 0 for job in jobs)
        return max(self.settle, _WHOLE_SECOND if whole else 0.0)
