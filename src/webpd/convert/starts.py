"""Whether codec processes start at all."""

import sys
import time

MOST_BAD_STARTS = 3
"""How many processes in a row may end before they are ready."""
REST = 30.0
"""Seconds after which one more is tried: memory may have been short for a while, or a package half installed."""


class Starts:
    """Counts processes that end before they are ready; ``unfit`` says why none is started now, "" if some are.

    ``trouble`` says the same, and goes on while one more is tried, until one is ready.
    ``worker_memory`` is in bytes. Guarded by the pool's lock.
    """

    def __init__(self, worker_memory: int) -> None:
        self.unfit = ""
        self.trouble = ""
        self._worker_memory = worker_memory
        self._bad = 0
        self._again = 0.0

    def good(self) -> None:
        """A process is ready."""
        self.trouble = ""
        self._bad = 0

    def bad(self, what: str) -> bool:
        """A process ended before it was ready; tell whether no more are to be started."""
        self._bad += 1
        if self._bad < MOST_BAD_STARTS:
            return False
        self._again = time.monotonic() + REST
        self.unfit = self.trouble = (
            f"codec processes do not start: {what}. Check that {sys.executable} can import Pillow, and that "
            f"WEBPD_WORKER_MEMORY ({self._worker_memory} bytes) is enough."
        )
        return True

    def are_wanted(self, now: float) -> bool:
        """Tell whether processes are to be started; after a rest one is, to see."""
        if self.unfit and now >= self._again:
            self.unfit = ""
            self._bad = MOST_BAD_STARTS - 1
        return not self.unfit
