"""Directories with work in them, in which nothing moves: they are looked at less and less often."""

import time
from collections.abc import Callable
from dataclasses import dataclass, replace

# The shortest time between two looks, though something moves, and the longest, in seconds.
_SHORTEST, _LONGEST = 1.0, 300.0
_MOST = 100_000


@dataclass(frozen=True, slots=True)
class _Wait:
    mtime_ns: int
    until: float
    seconds: float


class Backoff:
    """Until when to let directories be, by path; the first time for ``first`` seconds, then twice as long each time.

    What has to be done in them is in the queue already, or in the hands of who writes there.
    """

    def __init__(self, first: float) -> None:
        self._first = first
        self._waits: dict[str, _Wait] = {}

    def note(self, path: str, mtime_ns: int, begun: float, *, waits: bool) -> None:
        """Take in a look that began then (monotonic seconds), and whether there is anything to wait for."""
        before = self._waits.pop(path, None)
        if not waits or len(self._waits) >= _MOST:
            return
        still = before is not None and before.mtime_ns == mtime_ns
        seconds = min(2 * before.seconds, _LONGEST) if before and still else self._first
        self._waits[path] = _Wait(mtime_ns, begun + seconds, seconds)

    def restart(self, path: str) -> None:
        """Something has come to an end in the directory, though no mtime may show it."""
        wait = self._waits.get(path)
        if wait is not None:
            self._waits[path] = replace(wait, until=time.monotonic() + self._first, seconds=self._first)

    def waits(self, path: str) -> bool:
        return path in self._waits

    def holds(self, path: str, mtime_ns: int, now: float, age: float) -> bool:
        """Tell whether to let the directory be, ``age`` seconds after the last look at it."""
        wait = self._waits.get(path)
        return wait is not None and now < wait.until and (wait.mtime_ns == mtime_ns or age < _SHORTEST)

    def forget(self, gone: Callable[[str], bool]) -> None:
        """Forget the paths of which that is true."""
        self._waits = {path: wait for path, wait in self._waits.items() if not gone(path)}
