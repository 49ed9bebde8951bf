"""The hints of one root: each image is looked at soon, and again where a mount's cache may have answered."""

import contextlib
import heapq
import itertools
import os
import threading
import time
from dataclasses import dataclass
from enum import StrEnum

import structlog

from webpd.errors import WebpdError
from webpd.reconcile.glance import Glance, Seen
from webpd.reconcile.reconciler import Reconciler
from webpd.service.guard import MountGuard
from webpd.telemetry.metrics import Metrics

_log = structlog.get_logger(__name__)

_THREADS = 4
_MOST = 1000
"""Images that wait for their first look, images that wait for a later one, folders that wait: of each so many."""
_FIRST, _MARGIN = 1.0, 1.0
"""Seconds until the second look at what is not there, and beyond the mount's cache time until the last one."""
_QUIET = 0.5
"""Seconds in which hints of images that are gone make one look at their folder."""


class Source(StrEnum):
    """Who gave a hint."""

    HTTP = "http"
    """Who has the token: something happened to the image."""
    NGINX = "nginx"
    """Whoever may write to the socket: a visitor asked for the image."""


_RESULTS = {
    Seen.OFFERED: "taken",
    Seen.ORPHAN: "taken",
    Seen.NOTHING: "known",
    Seen.NO_ROOM: "dropped",
    Seen.ABSENT: "refused",
    Seen.REFUSED: "refused",
}


@dataclass(eq=False, slots=True)
class _Hint:
    path: str
    source: Source
    since: float
    looks: int = 0


class RootHints:
    """Looks at the images that hints name, in a few threads that may hang where the mount does. Thread-safe.

    Each hint is counted once, when its last look is over. ``cache`` is for how long the mount may answer from its
    cache, in seconds: so long, what is not there yet is looked at again.
    """

    def __init__(
        self, reconciler: Reconciler, glance: Glance, guard: MountGuard, metrics: Metrics, *, cache: float
    ) -> None:
        self._reconciler = reconciler
        self._glance = glance
        self._guard = guard
        self._metrics = metrics
        self._cache = cache
        self._turn = threading.Condition()
        self._due: list[tuple[float, int, _Hint | str]] = []
        self._order = itertools.count()
        self._hints: dict[str, _Hint] = {}
        self._later = 0
        self._folders: set[str] = set()
        self._idle = 0
        self._closed = False
        self._threads: list[threading.Thread] = []

    def take(self, path: str, source: Source) -> bool:
        """Have the image (an absolute path) looked at; tell whether there was room, and the mount is well."""
        with self._turn:
            before = self._hints.get(path)
            if before is not None and not before.looks:
                self._metrics.count_hint(source, "known")
                return True
            if self._guard.halted() or self._closed or len(self._hints) - self._later >= _MOST:
                self._metrics.count_hint(source, "dropped")
                return False
            if before is not None:  # it waits for another look, and news of it has come
                self._later -= 1
                self._metrics.count_hint(before.source, "known")
            now = time.monotonic()
            self._add(_Hint(path, source, now), now)
        return True

    def stop(self) -> None:
        """Begin no more looks."""
        with self._turn:
            self._closed = True
            self._turn.notify_all()

    def join(self, deadline: float) -> bool:
        """Wait until then (monotonic seconds) for the looks that go on; tell whether no thread is left behind."""
        for thread in self._threads:
            thread.join(max(0.0, deadline - time.monotonic()))
        return not any(thread.is_alive() for thread in self._threads)

    def _add(self, what: _Hint | str, due: float) -> None:
        """Let it be looked at when it is due; the caller has the lock."""
        if isinstance(what, _Hint):
            self._hints[what.path] = what
            self._later += bool(what.looks)
        heapq.heappush(self._due, (due, next(self._order), what))
        if self._idle < len(self._due) and len(self._threads) < _THREADS:
            thread = threading.Thread(target=self._run, name="hint", daemon=True)
            with contextlib.suppress(RuntimeError):  # out of threads: those there are do it, or one of a later hint
                thread.start()
                self._threads.append(thread)
        self._turn.notify()

    def _run(self) -> None:
        while (what := self._next()) is not None:
            try:
                if isinstance(what, str):
                    self._reconciler.news(what)
                else:
                    self._attend(what)
            except (WebpdError, OSError) as error:  # polling finds it
                self._reconciler.tell(what if isinstance(what, str) else what.path, f"not looked at: {error}")
            except Exception:  # a fault of ours must not end the listening
                if not self._closed:
                    _log.exception("unexpected error, please report it")

    def _next(self) -> _Hint | str | None:
        """Wait for what is due, and take it; None where nothing is to be looked at any more."""
        with self._turn:
            while not self._closed:
                now = time.monotonic()
                if self._due and self._due[0][0] <= now:
                    what = heapq.heappop(self._due)[2]
                    if isinstance(what, str):
                        self._folders.discard(what)
                        return what
                    if self._hints.get(what.path) is what:
                        del self._hints[what.path]
                        self._later -= bool(what.looks)
                        return what
                    continue  # a newer hint took its place
                self._idle += 1
                self._turn.wait(self._due[0][0] - now if self._due else None)
                self._idle -= 1
        return None

    def _attend(self, hint: _Hint) -> None:
        result: str | None = "dropped"
        try:
            result = self._look(hint)
        finally:
            if result is not None:
                self._metrics.count_hint(hint.source, result)

    def _look(self, hint: _Hint) -> str | None:
        """Look at the image, and return what came of the hint; None where it is looked at again."""
        if self._guard.halted():
            return "dropped"
        if hint.source is Source.NGINX and self._glance.is_known(hint.path):
            return "known"
        try:
            seen = self._glance.look(hint.path)
        except OSError as error:  # of a file that is there, polling tells
            return "dropped" if self._guard.blame(error) else "refused"
        if self._guard.halted():  # what was seen may be what a sick mount made up
            return "dropped"
        if seen is Seen.ORPHAN:
            self._look_at_folder(os.path.dirname(hint.path))
        return None if self._again(hint, seen) else _RESULTS[seen]

    def _look_at_folder(self, folder: str) -> None:
        with self._turn:
            if folder not in self._folders and len(self._folders) < _MOST:
                self._folders.add(folder)
                self._add(folder, time.monotonic() + _QUIET)

    def _again(self, hint: _Hint, seen: Seen) -> bool:
        """Look again later where a cache may have answered, and there is room; tell whether."""
        now = time.monotonic()
        left = hint.since + self._cache + _MARGIN - now if self._cache else 0.0
        if seen is Seen.ABSENT:
            left = min(_FIRST * 2.0**hint.looks, left)
        elif seen is not Seen.ORPHAN and not (seen is Seen.NOTHING and hint.source is Source.HTTP):
            return False
        if left <= 0:
            return False
        hint.looks += 1
        with self._turn:
            if self._later >= _MOST or hint.path in self._hints:
                return False
            self._add(hint, now + left)
        return True
