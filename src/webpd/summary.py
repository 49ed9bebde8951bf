"""The numbers of one pass over the tree."""

import threading
import time
from collections import Counter

from webpd.model import Outcome, Result
from webpd.printable import printable
from webpd.tree.scanner import Look

_FAILURES_LISTED = 1000


class Summary:
    """Counts looks and outcomes, from any thread.

    ``found`` is counted when an original is seen, the rest when its outcome is known: at the end of a whole pass the
    one must equal the sum of the others.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._begun = time.monotonic()
        self.found = 0
        self.results: Counter[Result] = Counter()
        self.skipped: Counter[str] = Counter()
        self.failed: list[Outcome] = []
        self.source_bytes = 0
        self.webp_bytes = 0
        self.interrupted = False

    @property
    def done(self) -> int:
        """Originals whose outcome is known."""
        return self.results.total()

    @property
    def worked(self) -> int:
        """Originals that took more than a look at their stat."""
        return self.done - self.results[Result.FRESH]

    @property
    def seconds(self) -> float:
        return time.monotonic() - self._begun

    @property
    def saved_bytes(self) -> int:
        return self.source_bytes - self.webp_bytes

    def add_look(self, look: Look) -> None:
        with self._lock:
            self.found += look.found
            self.results[Result.FRESH] += look.fresh
            for outcome in look.settled:
                self._count(outcome)

    def add(self, outcome: Outcome) -> None:
        with self._lock:
            self._count(outcome)

    def interrupt(self) -> None:
        """Say that the pass ended early: what was seen and not done was not found by this pass."""
        with self._lock:
            self.interrupted = True
            self.found = self.done

    def _count(self, outcome: Outcome) -> None:
        self.results[outcome.result] += 1
        if outcome.result is Result.CONVERTED:
            self.source_bytes += outcome.source_bytes
            self.webp_bytes += outcome.webp_bytes
        elif outcome.result is Result.SKIPPED:
            self.skipped[str(outcome.reason)] += 1
        elif outcome.result is Result.FAILED and len(self.failed) < _FAILURES_LISTED:
            self.failed.append(outcome)

    def as_dict(self) -> dict[str, object]:
        """Return what ``webpd convert --json`` prints. Bytes are those of what was converted by this pass."""
        with self._lock:
            return {
                "found": self.found,
                "converted": self.results[Result.CONVERTED],
                "fresh": self.results[Result.FRESH],
                "kept_original": self.results[Result.KEPT_ORIGINAL],
                "skipped": dict(self.skipped),
                "failed": [
                    {"path": printable(o.path), "reason": str(o.reason), "detail": printable(o.detail)}
                    for o in self.failed
                ],
                "failed_total": self.results[Result.FAILED],
                "interrupted": self.interrupted,
                "source_bytes": self.source_bytes,
                "webp_bytes": self.webp_bytes,
                "seconds": round(self.seconds, 3),
            }
