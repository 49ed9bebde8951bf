"""What the workers of one root did, written into the history in batches."""

import os
import socket
import threading
import time

from webpd.ledger.history import Event, History
from webpd.model import Job, Outcome

_BATCH = 50
"""Events noted together: one at a time costs twice as much or more."""


class Chronicle:
    """Notes events once there are enough, or when it is told to. Thread-safe.

    ``fingerprint`` stands for the settings and the program's version.
    """

    def __init__(self, history: History, root: str, fingerprint: bytes) -> None:
        self._history = history
        self._root = root
        self._fingerprint = fingerprint
        self._host = socket.gethostname()
        self._lock = threading.Lock()
        self._events: list[Event] = []

    def note(self, job: Job, outcome: Outcome) -> None:
        """Note what came of the job."""
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
            at=time.time(),
            host=self._host,
        )
        with self._lock:
            self._events.append(event)
            enough = len(self._events) >= _BATCH
        if enough:
            self.flush()

    def forget(self, path: str) -> None:
        """Forget an image that is gone, or a folder and all in it; the path is relative to the root."""
        self.flush()
        self._history.forget(self._root, path)

    def flush(self) -> None:
        """Note what has not been noted yet."""
        with self._lock:
            events, self._events = self._events, []
        if events:
            self._history.note(events)
