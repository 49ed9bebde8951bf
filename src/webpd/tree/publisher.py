"""Putting a sidecar in its place so that a reader sees the old one, or the new one, and nothing between.

A temporary name in the same directory, owner and mode where they differ, the source's mtime, fsync, one more look at
the source, rename. What a killed run leaves behind has a name that says whose it was.
"""

import contextlib
import errno
import functools
import hashlib
import itertools
import logging
import os
import socket
import time
from collections.abc import Iterator
from typing import NoReturn

from webpd.errors import RetryableError, UnfitError
from webpd.tree import naming, source
from webpd.tree.source import Source, Version

_log = logging.getLogger(__name__)

# A temporary file of another host can't be asked whether its writer lives. No image takes this long (seconds).
_OTHER_HOST_AGE = 3600

_CURES = {
    errno.ENOSPC: "the disk is full or has no inodes left: free some (`df -h`, `df -i`)",
    errno.EDQUOT: "the disk quota is used up: raise it or free some",
    errno.EROFS: "the file system is read-only: remount it read-write",
    errno.EACCES: "no permission to write in this folder: run webpd as its owner, or grant the rights",
    errno.EPERM: "not permitted: check the owner, `lsattr`, and on SSHFS whether the origin's disk is full",
    errno.EIO: "input/output error: check the disk or the mount, and on SSHFS whether the origin's disk is full",
    errno.ENOTCONN: "the mount is dead: mount it again",
    errno.ENAMETOOLONG: "the path is too long for a file beside it: shorten the folder's name",
    errno.EMFILE: "too many open files: raise `ulimit -n`, or lower WEBPD_IO_THREADS",
}
_NO_IMAGE_CAN_BE_WRITTEN = {errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.ENOTCONN}


_numbers = itertools.count()
# Names of temporary files of this process that could not be removed at their time, as when their mount died.
_left: set[str] = set()


class PublishError(RetryableError):
    """A sidecar could not be written; nothing half-done was left."""


class StorageError(UnfitError):
    """No sidecar at all can be written here now; nothing half-done was left."""


class Publisher:
    """Writes sidecars of one owner and mode below one root. Thread-safe.

    ``owner`` is (uid, gid), or None to leave it. ``fsync`` makes each sidecar durable before it is named. ``remote``
    tells that each call is a round trip: what a new file is like is then asked once, and not of each. ``bare`` is the
    device that the root's folders are on while its file system is not mounted; nothing is ever written there.
    """

    def __init__(
        self,
        owner: tuple[int, int] | None,
        mode: int,
        *,
        fsync: bool,
        remote: bool = False,
        bare: int | None = None,
    ) -> None:
        self._owner = owner
        self._mode = mode
        self._fsync = fsync
        self._bare = bare
        self._remote = remote
        self._new: os.stat_result | None = None  # what new files are like there
        self._keeps_owner = False  # what a mount has refused once it is not asked again
        self._refused = False
        self._prefix = f"{naming.TEMPORARY_PREFIX}{_host()}-{os.getpid()}-{_started(os.getpid())}-"

    def publish(self, original: Source, data: bytes, replaces: Version | None) -> None:
        """Give the original this sidecar in place of the version that is known to be ours (None: of nothing).

        Raises ``ChangedError`` or ``GoneError`` when the original is not what was read or something else has the
        sidecar's name by now, ``PublishError``, ``StorageError``.
        """
        directory, name = os.path.split(original.path)
        final = naming.sidecar_of(name)
        temporary = f"{self._prefix}{next(_numbers)}{naming.TEMPORARY_SUFFIX}"
        try:
            with self._opened(directory) as folder:
                try:
                    self._write(folder, temporary, data, original.version.mtime_ns)
                    source.check(original, folder)
                    _check_place(final, replaces, folder)
                    os.rename(temporary, final, src_dir_fd=folder, dst_dir_fd=folder)
                except BaseException:
                    _left.add(temporary)
                    with contextlib.suppress(FileNotFoundError):
                        os.unlink(temporary, dir_fd=folder)
                    _left.discard(temporary)
                    raise
        except OSError as error:
            if isinstance(error, FileNotFoundError):
                raise source.GoneError("the folder went away while the image was converted") from error
            self._refused |= error.errno in (errno.EACCES, errno.EPERM)
            _explain(error, naming.sidecar_of(original.path))

    def check_writable(self, directory: str) -> None:
        """Raise ``PublishError`` where nothing can be written, before the work is done for nothing.

        Asks only once a folder has refused: where all is well the question is a round trip for nothing.
        """
        if self._refused and not os.access(directory, os.W_OK | os.X_OK) and os.path.isdir(directory):
            _explain(PermissionError(errno.EACCES, "Permission denied"), directory)

    def withdraw(self, sidecar: str, known: Version) -> None:
        """Remove a sidecar of ours that no longer shows its original, if it is still this version of it.

        Raises ``ChangedError``, ``PublishError``, ``StorageError``.
        """
        try:
            _check_place(sidecar, known)
            os.unlink(sidecar)
        except FileNotFoundError:
            return
        except OSError as error:
            _explain(error, sidecar)

    @contextlib.contextmanager
    def _opened(self, directory: str) -> Iterator[int]:
        """Hold the folder itself: whatever is mounted or unmounted at its path meanwhile, what follows stays in it."""
        folder = os.open(directory, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            if self._bare is not None and os.fstat(folder).st_dev == self._bare:
                raise StorageError(f"{directory}: its file system is not mounted: mount it again")
            yield folder
        finally:
            os.close(folder)

    def _write(self, folder: int, temporary: str, data: bytes, mtime_ns: int) -> None:
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW
        descriptor = os.open(temporary, flags, self._mode, dir_fd=folder)
        try:
            view = memoryview(data)
            while view:
                view = view[os.write(descriptor, view) :]
            status = self._new or os.fstat(descriptor)
            if self._remote:
                self._new = status
            if status.st_mode & 0o7777 != self._mode:
                os.fchmod(descriptor, self._mode)
            os.utime(descriptor, ns=(mtime_ns, mtime_ns))
            if self._owner not in (None, (status.st_uid, status.st_gid)) and not self._keeps_owner:
                self._give_away(descriptor, status)  # last: after it CAP_CHOWN alone allows no other change
            if self._fsync:
                os.fsync(descriptor)
        finally:
            os.close(descriptor)

    def _give_away(self, descriptor: int, status: os.stat_result) -> None:
        assert self._owner is not None  # noqa: S101 - the caller asked
        try:
            os.fchown(descriptor, *self._owner)
        except PermissionError:
            if not self._keeps_owner:
                self._keeps_owner = True
                _log.warning(
                    "sidecars can't be given to %d:%d here (not permitted) and stay with %d:%d; run as root, grant "
                    "CAP_CHOWN, or set WEBPD_OWNER to what you want",
                    *self._owner,
                    status.st_uid,
                    status.st_gid,
                )


class DryPublisher:
    """Publishes nothing: for a dry run."""

    def publish(self, original: Source, _data: bytes, _replaces: Version | None) -> None:
        """Check only that the original is still what was read."""
        source.check(original)

    def check_writable(self, directory: str) -> None:
        """Ask for nothing."""

    def withdraw(self, sidecar: str, known: Version) -> None:
        """Leave the sidecar."""


def _check_place(final: str, expected: Version | None, folder: int | None = None) -> None:
    try:
        found: Version | None = source.version_of(os.stat(final, dir_fd=folder, follow_symlinks=False))
    except FileNotFoundError:
        found = None
    if found is not None and found != expected:
        raise source.ChangedError("something else wrote the sidecar meanwhile")


def sweep(path: str) -> None:
    """Remove a temporary file if whoever was writing it is dead. Raises ``PublishError``, ``StorageError``."""
    try:
        if not _is_written_now(path):
            os.unlink(path)
            _left.discard(os.path.basename(path))
    except FileNotFoundError:
        return
    except OSError as error:
        _explain(error, path)


def _is_written_now(path: str) -> bool:
    name = os.path.basename(path)
    try:
        host, pid, started, _ = name[len(naming.TEMPORARY_PREFIX) : -len(naming.TEMPORARY_SUFFIX)].split("-")
        if host == _host():
            return name not in _left if int(pid) == os.getpid() else _is_alive(int(pid), started)
    except (ValueError, OverflowError):
        return True  # not a name that we ever gave: let it be
    return time.time() - os.lstat(path).st_ctime < _OTHER_HOST_AGE


def _is_alive(pid: int, started: str) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass  # another user's, but there
    try:
        return _started(pid) == started
    except OSError:
        return True  # /proc hides it (hidepid): believe the signal


def _started(pid: int) -> str:
    """Return the start time of a process, in clock ticks since boot: field 22 of proc_pid_stat(5)."""
    with open(f"/proc/{pid}/stat", "rb") as file:
        return file.read().rpartition(b")")[2].split()[19].decode("ascii")


@functools.cache
def _host() -> str:
    """Return what tells this machine, and this PID name space on it, from others that may share the tree."""
    identity = socket.gethostname() + os.readlink("/proc/self/ns/pid")
    with contextlib.suppress(OSError), open("/etc/machine-id", encoding="ascii") as file:
        identity += file.read()
    return hashlib.blake2b(identity.encode(), digest_size=4).hexdigest()


def _explain(error: OSError, path: str) -> NoReturn:
    number = error.errno or 0
    cure = _CURES.get(number, "see the system's log")
    kind = StorageError if number in _NO_IMAGE_CAN_BE_WRITTEN else PublishError
    raise kind(f"{path}: {os.strerror(number)}: {cure}") from error
