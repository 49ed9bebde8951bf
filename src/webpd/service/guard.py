"""An eye on the mount of one root, and the word that its work may go on or has to wait."""

import asyncio
import os
import threading
import time

import structlog

from webpd.watch.health import Health, MountProbe
from webpd.watch.mount import Mount

_log = structlog.get_logger(__name__)

_INTERVAL = 1.0
"""Seconds between two questions to the mount."""
_MOST_FAILING = 16
_REST, _LONGEST_REST = 10.0, 300.0
"""Seconds for which a root rests when in so many folders, and no other between, images could not be read or written;
twice as long each time until one could."""


class MountGuard:
    """Halts the work on a root while its mount is sick.

    ``going`` is set while the work may go on, for threads; ``well`` is the same for coroutines. Both begin unset, until
    the mount has answered.
    """

    def __init__(self, root: str, mount: Mount) -> None:
        self.health = Health.WELL
        self.detail = ""
        self.well = asyncio.Event()
        self.going = threading.Event()
        self.stopping = threading.Event()
        self._root = root
        self._loop = asyncio.get_running_loop()
        self._probe = MountProbe(root, mount)
        self._failing: set[str] = set()
        self._resting = 0.0
        self._rest = _REST

    async def watch(self) -> None:
        """Ask the mount now and then, until cancelled."""
        while True:
            try:
                health = await asyncio.to_thread(self._probe.look)
            except Exception as error:  # out of descriptors or threads: no answer, and asked again
                health = Health.DEAD
                self._probe.detail = f"{self._root}: can't be asked ({error}): raise `ulimit -n` and `ulimit -u`"
            if health is not Health.WELL or time.monotonic() >= self._resting:
                self._found(health, self._probe.detail)
            await asyncio.sleep(_INTERVAL)

    @property
    def room(self) -> os.statvfs_result | None:
        """What room there was when the mount last answered."""
        return self._probe.room

    def stop(self) -> None:
        """Let all who wait go on, to their end."""
        self.stopping.set()
        self.going.set()
        self.well.set()

    def halted(self) -> bool:
        """Tell whether nothing is to be begun or concluded."""
        return self.stopping.is_set() or not self.going.is_set()

    def is_well_now(self) -> bool:
        """Ask the mount before something is concluded, from a thread; halts the work if it is sick."""
        health = self._probe.look()
        if health is not Health.WELL:
            self._halt(health)
        return health is Health.WELL

    def blame(self, error: OSError) -> Health | None:
        """Tell, in a thread, what ails the mount when a call failed so, and halt the work; None: it is the file."""
        health = self._probe.blame(error)
        if health is None or health is Health.WELL:
            return None
        if health is Health.READ_ONLY:  # an NFS export may be, and its mount not know
            self._resting = time.monotonic() + _REST
        self._halt(health)
        return health

    def note(self, path: str, failure: str, *, denied: bool = False) -> None:
        """Rest for a while when folder after folder fails: behind SSHFS no call tells of a disk that is read-only.

        ``denied`` tells that it failed because this user may not do it.
        """
        if not failure:
            self._failing.clear()
            self._rest = _REST
            return
        self._failing.add(os.path.dirname(path))
        if len(self._failing) >= _MOST_FAILING:
            self._failing.clear()
            self._resting = time.monotonic() + self._rest
            self._rest = min(2 * self._rest, _LONGEST_REST)
            what = f"nothing could be done in {_MOST_FAILING} folders in a row ({failure})"
            cure = "look whether the disk is full or read-only"
            if denied:
                what = f"permission was denied in {_MOST_FAILING} folders in a row, last in {os.path.dirname(path)}"
                cure = "run webpd as the owner of the folders, or grant it the rights (`webpd doctor` prints how)"
            self._found(Health.READ_ONLY, f"{self._root}: {what}: {cure}")

    def _halt(self, health: Health) -> None:
        self.going.clear()
        self._loop.call_soon_threadsafe(self._found, health, self._probe.detail)

    def _found(self, health: Health, detail: str) -> None:
        if health is not self.health:
            if health is Health.WELL:
                _log.info("mount is well again: going on", root=self._root, was=str(self.health))
            else:
                _log.warning("mount is sick: paused", root=self._root, mount=str(health), detail=detail)
        self.health, self.detail = health, detail
        well = health is Health.WELL
        if well or self.stopping.is_set():
            self.well.set()
            self.going.set()
        else:
            self.well.clear()
            self.going.clear()
