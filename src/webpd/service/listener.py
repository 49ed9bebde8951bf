"""News from inotify, heard and passed on."""

import threading
import time

import structlog

from webpd.errors import WebpdError
from webpd.ledger.port import Ledger
from webpd.printable import printable
from webpd.reconcile.reconciler import Reconciler
from webpd.watch.watcher import FileWatcher

_log = structlog.get_logger(__name__)

_PAGE = 1000
# The shortest time between two looks at one directory, in seconds, and how many times as long as the look itself.
_QUIET, _QUIET_SHARE = 0.25, 20
# A directory for whose images the queue has no room is looked at again after so many seconds.
_NO_ROOM = 1.0


class Listener:
    """Looks at the directories of one root as soon as something happens in them, though at each only now and then.

    ``settle`` is in seconds: a look within it would only find the same files, not settled.
    """

    def __init__(self, watcher: FileWatcher, reconciler: Reconciler, ledger: Ledger, settle: float) -> None:
        self._watcher = watcher
        self._reconciler = reconciler
        self._ledger = ledger
        self._label = printable(reconciler.root)
        self._quiet_time = max(_QUIET, settle)
        self._pending: dict[str, float] = {}
        self._quiet: dict[str, float] = {}

    def run(self, stopping: threading.Event, going: threading.Event) -> None:
        """Listen until ``stopping``; while it is not ``going``, what is heard waits."""
        watched = False
        while not stopping.is_set():
            try:
                if not watched and going.wait(1.0):
                    self._watch_all(stopping)
                self._turn(stopping, going)
                watched = going.is_set()  # what is mounted again is watched no more
            except Exception:  # out of descriptors, or a fault of ours: it must not end the listening
                _log.exception("inotify was not listened to for a while", root=self._label)
                stopping.wait(_NO_ROOM)

    def _turn(self, stopping: threading.Event, going: threading.Event) -> None:
        self._hear()
        for directory in self._due():
            if stopping.is_set() or not going.is_set():
                break
            self._look(directory)

    def _hear(self) -> None:
        now = time.monotonic()
        nearest = min(self._pending.values(), default=now + 1.0) - now
        for directory in self._watcher.changed(min(1.0, max(0.0, nearest))):
            self._pending.setdefault(directory, self._quiet.get(directory, 0.0))
        now = time.monotonic()
        self._quiet = {directory: until for directory, until in self._quiet.items() if until > now}

    def _due(self) -> list[str]:
        now = time.monotonic()
        return [directory for directory, due in self._pending.items() if due <= now]

    def _look(self, directory: str) -> None:
        begun = time.monotonic()
        del self._pending[directory]
        try:
            whole = self._reconciler.news(directory)
        except (WebpdError, OSError) as error:  # polling finds it
            _log.warning("not looked at", path=directory, detail=str(error))
            whole = True
        now = time.monotonic()
        self._quiet[directory] = now + max(self._quiet_time, _QUIET_SHARE * (now - begun))
        if not whole:
            self._pending[directory] = max(now + _NO_ROOM, self._quiet[directory])

    def _watch_all(self, stopping: threading.Event) -> None:
        after: str | None = None
        while not stopping.is_set() and (page := self._ledger.directories(self._reconciler.root, after, _PAGE)):
            for directory in page:
                self._watcher.watch(self._reconciler.absolute(directory.path))
            after = page[-1].path
