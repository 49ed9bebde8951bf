"""One look at one image that somebody named, without listing its folder."""

import os
import stat
import time
from collections.abc import Callable, Sequence
from enum import Enum, auto

from webpd.ledger.port import Ledger
from webpd.model import Job, Result
from webpd.queue.port import Lane
from webpd.reconcile.patience import Patience
from webpd.reconcile.reconciler import Reconciler
from webpd.reconcile.visit import Visit
from webpd.tree import naming
from webpd.tree.scanner import Scanner


class Seen(Enum):
    """What a look at one image comes to."""

    OFFERED = auto()
    """There is something to do, and the queue has it."""
    NOTHING = auto()
    """There is nothing to do."""
    NO_ROOM = auto()
    """There is something to do, and the queue has no room for it: polling finds it."""
    ORPHAN = auto()
    """It is not there, but something has its sidecar's name."""
    ABSENT = auto()
    """It is not there."""
    REFUSED = auto()
    """It is no original of this root."""


class Glance:
    """Looks at single images of one root for who can't wait for the next walk. Thread-safe.

    ``offer`` hands jobs to a lane and returns how many were taken in. ``fingerprint`` stands for the settings and the
    version.
    """

    def __init__(
        self,
        reconciler: Reconciler,
        scanner: Scanner,
        ledger: Ledger,
        offer: Callable[[Sequence[Job], Lane, float], int],
        patience: Patience,
        fingerprint: bytes,
    ) -> None:
        self._reconciler = reconciler
        self._scanner = scanner
        self._ledger = ledger
        self._offer = offer
        self._patience = patience
        self._fingerprint = fingerprint
        self._prefix = os.path.join(scanner.root, "")

    def is_known(self, path: str) -> bool:
        """Tell whether the image (an absolute path) is known to stay without a sidecar; asks no file system."""
        directory, name = self._split(path)
        record = self._ledger.known(self._scanner.root, directory, name).get(name)
        return record is not None and record.fingerprint == self._fingerprint and record.result is not Result.CONVERTED

    def look(self, path: str) -> Seen:
        """Look at the image (an absolute path below the root), and offer what there is to do as urgent.

        A directory that was not known is, from then on. Raises ``OSError`` where the mount or the rights are in the
        way.
        """
        if self._scanner.leaves_alone(os.path.dirname(path)):
            return Seen.REFUSED
        directory, name = self._split(path)
        begun = time.monotonic()
        try:
            if not self._is_ours(directory):
                return Seen.REFUSED
        except (FileNotFoundError, NotADirectoryError):
            return Seen.ABSENT
        try:
            found = self._scanner.glance(path)
        except (FileNotFoundError, NotADirectoryError):
            return Seen.ORPHAN if os.path.lexists(naming.sidecar_of(path)) else Seen.ABSENT
        if not found.found:
            return Seen.REFUSED
        visit = Visit(begun, self._ledger.known(self._scanner.root, directory, name))
        jobs = [job for job in found.jobs if visit.needs(job, self._fingerprint)]
        jobs = [job for job in jobs if not self._reconciler.is_finished(job, begun)]
        if not jobs:
            return Seen.NOTHING
        return Seen.OFFERED if self._offer(jobs, Lane.URGENT, self._patience.delay(jobs)) else Seen.NO_ROOM

    def _split(self, path: str) -> tuple[str, str]:
        directory, name = os.path.split(path)
        return directory[len(self._prefix) :], name

    def _is_ours(self, directory: str) -> bool:
        """Tell whether the directory is one that the walk comes by, and have the index know it.

        What the index has was no link when it was listed; what it does not have is asked.
        """
        new = []
        while directory and self._ledger.directory(self._scanner.root, directory) is None:
            if not stat.S_ISDIR(os.lstat(self._prefix + directory).st_mode):
                return False
            new.append(directory)
            directory = os.path.dirname(directory)
        if new:
            self._ledger.discover(self._scanner.root, reversed(new))
        return True
