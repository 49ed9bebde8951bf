"""Which directories have news, told by inotify. It makes things sooner and no more: what it misses, polling finds."""

import ctypes
import errno
import logging
import os
import struct
import threading
import time
from bisect import bisect_left
from collections.abc import Iterable
from dataclasses import dataclass, field

from watchdog.observers.inotify_c import InotifyConstants as Flag
from watchdog.observers.inotify_c import InotifyFD, WatchDescriptor, inotify_add_watch, inotify_rm_watch

from webpd.errors import UnfitError

_log = logging.getLogger(__name__)

_MASK = (
    Flag.IN_CREATE
    | Flag.IN_CLOSE_WRITE
    | Flag.IN_MOVED_FROM
    | Flag.IN_MOVED_TO
    | Flag.IN_DELETE
    | Flag.IN_ONLYDIR
    | Flag.IN_DONT_FOLLOW
    | Flag.IN_EXCL_UNLINK
)
# A file that was only created is not written yet: its closing is news.
_FILE_NEWS = Flag.IN_CLOSE_WRITE | Flag.IN_MOVED_FROM | Flag.IN_MOVED_TO | Flag.IN_DELETE
_GOES = Flag.IN_MOVED_FROM | Flag.IN_DELETE
_NOT_OF_A_FILE = Flag.IN_ISDIR | Flag.IN_IGNORED | Flag.IN_Q_OVERFLOW | Flag.IN_UNMOUNT

# What we publish makes no news, except that a sidecar went away (the names of webpd.tree.naming, as bytes).
_TEMPORARY = b".webpd-"
_SIDECAR = b".webp"

_EVENT = struct.Struct("iIII")  # inotify(7): wd, mask, cookie, length of the name that follows
_BUFFER = 1 << 20  # bytes: as many events as the kernel holds by default (16,384), with names of usual length
_PAUSE = 0.02  # seconds between two readings, so that a stream of single events costs little
_RETRY = 60.0  # seconds until a full kernel is asked for watches again
_BETWEEN_WARNINGS = 60.0  # seconds


class FileWatcher:
    """Tells by inotify which directories to look at. Thread-safe.

    ``most`` bounds the directories watched, and so the memory: some 250 bytes each for paths of usual length, and
    about 1 KiB of the kernel's. ``events`` counts the directories told of, ``watches`` those watched now, ``failed``
    the watches that could not be set, ``overflows`` the times that the kernel lost events; ``limited`` tells that there
    was no watch left for some.
    Raises ``UnfitError`` where there is no inotify to be had.
    """

    def __init__(self, most: int = 100_000) -> None:
        self.events = 0
        self.overflows = 0
        self.failed = 0
        self.limited = False
        self._most = most
        self._watched: dict[str, WatchDescriptor] = {}
        self._paths: dict[WatchDescriptor, str] = {}  # of each watch: the same strings
        self._news: set[WatchDescriptor] = set()
        self._closed = False
        self._changed = threading.Condition()
        self._ask_again = 0.0
        self._warned: dict[str, float] = {}
        try:
            self._inotify = _Inotify(self)
        except OSError as error:
            raise UnfitError(
                f"inotify can't be used ({os.strerror(error.errno or 0)}): raise fs.inotify.max_user_instances "
                "(sysctl) or `ulimit -n`, or set WEBPD_WATCH=poll"
            ) from error
        self._inotify.start()

    @property
    def watches(self) -> int:
        return len(self._paths)

    def watch(self, directory: str) -> bool:
        """Watch the directory from now on; tell whether it is watched. Cheap when it already was.

        To miss nothing, call it before the directory is listed. It must be an absolute path of a directory itself, not
        of a link to one.
        """
        if directory in self._watched:
            return True
        with self._changed:  # held until the path is noted, so that no event comes before it is known whose it is
            if self._closed or time.monotonic() < self._ask_again:
                return False
            if len(self._paths) >= self._most and directory not in self._watched:
                return self._refuse(directory, errno.ENOSPC)
            descriptor = self._inotify.add(os.fsencode(directory))
            if descriptor == -1:
                return self._refuse(directory, ctypes.get_errno())
            moved = self._paths.get(descriptor)  # the kernel knows the directory itself, whatever its path became
            if moved is not None:
                self._watched.pop(moved, None)
            self._paths[descriptor] = directory
            self._watched[directory] = descriptor
            self.limited = False
            return True

    def changed(self, seconds: float) -> set[str]:
        """Wait up to that long for directories with news and return them; nothing when the time is up or at the end."""
        with self._changed:
            self._changed.wait_for(lambda: self._news or self._closed, seconds)
            news, self._news = self._news, set()
            return {self._paths[descriptor] for descriptor in news}

    def close(self) -> None:
        """Watch nothing any more, and wake who waits for news."""
        with self._changed:
            if self._closed:
                return
            self._closed = True
            for memory in (self._news, self._paths, self._watched):
                memory.clear()
            self._changed.notify_all()
        self._inotify.stop()
        self._inotify.join()

    def take(self, batch: "Batch") -> None:
        """Take in what the kernel told."""
        with self._changed:
            if self._closed:
                return
            self._news |= batch.news & self._paths.keys()
            self.events += len(batch.news)
            self._drop_moved(batch.moved)
            for descriptor in batch.gone:
                self._forget(descriptor)
            if self._news:
                self._changed.notify_all()
        if batch.overflows:
            self.overflows += batch.overflows
            self._warn(
                "overflow",
                "inotify lost events (%d times by now): polling finds what they told, later. If this comes often, "
                "raise fs.inotify.max_queued_events (sysctl)",
                self.overflows,
            )

    def _drop_moved(self, moved: Iterable[tuple[WatchDescriptor, bytes]]) -> None:
        """Drop the watches of directories that were moved, and of all below: their paths are no longer theirs."""
        paths = [os.path.join(self._paths[at], os.fsdecode(name)) for at, name in moved if at in self._paths]
        watched = sorted(self._watched) if paths else []
        for path in paths:
            below = path + os.sep
            dropped = [path]
            for n in range(bisect_left(watched, below), len(watched)):
                if not watched[n].startswith(below):
                    break
                dropped.append(watched[n])
            for each in dropped:
                descriptor = self._watched.get(each)
                if descriptor is not None:
                    self._inotify.remove(descriptor)
                    self._forget(descriptor)

    def _forget(self, descriptor: WatchDescriptor) -> None:
        path = self._paths.pop(descriptor, None)
        if path is not None:
            del self._watched[path]
        self._news.discard(descriptor)

    def _refuse(self, directory: str, number: int) -> bool:
        if number in {errno.ENOENT, errno.ENOTDIR, errno.ELOOP}:
            return False  # went away, or is a link by now: whoever looks finds that too
        self.failed += 1
        if number == errno.ENOSPC:
            self.limited = True
            self._ask_again = time.monotonic() + _RETRY
            self._warn_of_limit()
        else:
            self._warn(
                "watch",
                "%s: can't be watched (%s), and is polled instead; so may others be",
                os.fsencode(directory).decode("utf-8", "backslashreplace"),
                os.strerror(number),
            )
        return False

    def _warn_of_limit(self) -> None:
        if len(self._paths) >= self._most:
            self._warn("limit", "%d directories are watched, no more are: the others are polled", self._most, once=True)
            return
        limit = _max_user_watches()
        self._warn(
            "limit",
            "fs.inotify.max_user_watches (%d) is used up: %d directories are watched, the others are polled. "
            "To watch more: `sysctl fs.inotify.max_user_watches=%d`, also in a file in /etc/sysctl.d (about 1 KiB of "
            "the kernel's memory each)",
            limit,
            len(self._paths),
            max(2 * limit, 524_288),
            once=True,
        )

    def _warn(self, about: str, text: str, *details: object, once: bool = False) -> None:
        now = time.monotonic()
        if about not in self._warned or (not once and now - self._warned[about] > _BETWEEN_WARNINGS):
            self._warned[about] = now
            _log.warning(text, *details)


@dataclass(slots=True)
class Batch:
    """What one reading told: watches with news, watches that ended, directories that were moved (from where)."""

    news: set[WatchDescriptor] = field(default_factory=set)
    gone: list[WatchDescriptor] = field(default_factory=list)
    moved: list[tuple[WatchDescriptor, bytes]] = field(default_factory=list)
    overflows: int = 0


class _Inotify(InotifyFD):
    """watchdog's inotify, without an object for each watch and each event."""

    def __init__(self, watcher: FileWatcher) -> None:
        super().__init__()
        self.name = "inotify"
        self._watcher = watcher

    def add(self, path: bytes) -> WatchDescriptor:
        """Return the watch of the directory, or -1 with the reason in ``ctypes.get_errno``."""
        return inotify_add_watch(self._inotify_fd, path, _MASK)

    def remove(self, descriptor: WatchDescriptor) -> None:
        inotify_rm_watch(self._inotify_fd, descriptor)  # fails only where the watch has ended by itself

    def run(self) -> None:
        while self.should_keep_running():
            buffer = self._read_event_buffer(_BUFFER)
            if buffer:
                self._watcher.take(parse(buffer))
            if len(buffer) < _BUFFER // 2:
                self.stopped_event.wait(_PAUSE)


def parse(buffer: bytes) -> Batch:
    """Read the kernel's events (inotify(7)): most are told by two numbers and cost no more than a look at these."""
    batch = Batch()
    news = batch.news
    unpack = _EVENT.unpack_from
    at, end = 0, len(buffer)
    while at < end:
        descriptor, mask, _, length = unpack(buffer, at)
        name = at + _EVENT.size
        at = name + length
        if mask & _NOT_OF_A_FILE:
            _note(batch, descriptor, mask, buffer[name:at])
        elif descriptor not in news and mask & _FILE_NEWS and _counts(mask, buffer[name:at]):
            news.add(descriptor)
    return batch


def _note(batch: Batch, descriptor: WatchDescriptor, mask: int, name: bytes) -> None:
    if mask & Flag.IN_Q_OVERFLOW:
        batch.overflows += 1
    elif mask & Flag.IN_IGNORED:
        batch.gone.append(descriptor)
    elif mask & Flag.IN_ISDIR:
        batch.news.add(descriptor)
        if mask & Flag.IN_MOVED_FROM:
            batch.moved.append((descriptor, name.rstrip(b"\0")))


def _counts(mask: int, name: bytes) -> bool:
    if name.startswith(_TEMPORARY):
        return False
    return bool(mask & _GOES) or not name.rstrip(b"\0").endswith(_SIDECAR)


def _max_user_watches() -> int:
    with open("/proc/sys/fs/inotify/max_user_watches", encoding="ascii") as file:
        return int(file.read())
