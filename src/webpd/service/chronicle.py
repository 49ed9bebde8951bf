"""What came of the images of one root, written into the histories in batches."""

import os
import threading
from collections.abc import Sequence

from webpd.ledger.history import Event, History
from webpd.model import Ending, Job

_BATCH = 50
"""Events noted together: one at a time costs twice as much or more."""


class Chronicle:
    """Notes events once there are enough, or when it is told to. Thread-safe.

    ``fingerprint`` stands for the settings and the program's version.
    """

    def __init__(self, histories: Sequence[History], root: str, fingerprint: bytes) -> None:
        self._histories = histories
        self._root = root
        self._fingerprint = fingerprint
        self._lock = threading.Lock()
        self._events: list[Event] = []

    def note(self, job: Job, ending: Ending) -> None:
        """Note what came of the job."""
        outcome = ending.outcome
        picture = outcome.picture
        event = Event(
            root=self._root,
            path=os.path.relpath(job.path, self._root),
            size=job.size,
            mtime_ns=job.mtime_ns,
            width=picture.width if picture else 0,
            height=picture.height if picture else 0,
            format=picture.format if picture else "",
            result=outcome.result,
            reason=str(outcome.reason or ""),
            detail=outcome.detail,
            webp_bytes=outcome.webp_bytes,
            seconds=outcome.seconds,
            fingerprint=self._fingerprint,
            at=ending.at,
            host=ending.host,
        )
        with self._lock:
            self._events.append(event)
            enough = len(self._events) >= _BATCH
        if enough:
            self.flush()

    def forget(self, path: str) -> None:
        """Forget an image that is gone, or a folder and all in it; the path is relative to the root."""
        self.flush()
        for history in self._histories:
            history.forget(self._root, path)

    def flush(self) -> None:
        """Note what has not been noted yet."""
        with self._lock:
            events, self._events = self._events, []
        if events:
            for history in self._histories:
                history.note(events)
