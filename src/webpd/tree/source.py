"""Reading an original, and telling later whether it is still what was read."""

import errno
import os
from dataclasses import dataclass

from webpd.errors import RefusedError, RetryableError
from webpd.model import Job, Skip


class ChangedError(RetryableError):
    """The original is no longer what was seen or read."""


class GoneError(ChangedError):
    """The original is not there any more."""


@dataclass(frozen=True, slots=True)
class Version:
    """By what one state of a file is told from another: device, inode, size in bytes, mtime in nanoseconds."""

    device: int
    inode: int
    size: int
    mtime_ns: int


@dataclass(frozen=True, slots=True)
class Source:
    """An original as it was read: its path, its bytes, and the version they belong to."""

    path: str
    data: bytes
    version: Version


def version_of(stat: os.stat_result) -> Version:
    return Version(stat.st_dev, stat.st_ino, stat.st_size, stat.st_mtime_ns)


def read(job: Job, max_size: int) -> Source:
    """Read the whole original. Raises ``ChangedError``, ``GoneError``, ``RefusedError`` (too large), ``OSError``."""
    flags = os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | (0 if job.link else os.O_NOFOLLOW)
    try:
        descriptor = os.open(job.path, flags)
    except FileNotFoundError as error:
        raise GoneError("the original went away before it was read") from error
    except OSError as error:
        if error.errno == errno.ELOOP:
            raise ChangedError("the original became a symbolic link") from error
        raise
    try:
        if job.link and not _inside(os.readlink(f"/proc/self/fd/{descriptor}"), job.root):
            raise ChangedError("the symbolic link leads out of the root now")
        version = version_of(os.fstat(descriptor))
        if version.size > max_size:
            raise RefusedError(Skip.TOO_LARGE, f"{version.size} bytes; WEBPD_MAX_SOURCE allows {max_size}")
        data = _read_all(descriptor, version.size)
    finally:
        os.close(descriptor)
    original = Source(job.path, data, version)
    # SSHFS lets fstat and read tell of a state long past, and after a read lets stat of the path tell of the present.
    check(original)
    return original


def check(source: Source, folder: int | None = None) -> None:
    """Raise ``ChangedError`` or ``GoneError`` unless the path still holds what was read.

    ``folder`` is a descriptor of the file's folder, where there is one: the path to it need not be walked again.
    """
    try:
        name = source.path if folder is None else os.path.basename(source.path)
        now = version_of(os.stat(name, dir_fd=folder))
    except FileNotFoundError as error:
        raise GoneError("the original went away while it was read or converted") from error
    if now != source.version:
        raise ChangedError("the original changed while it was read or converted")


def _read_all(descriptor: int, size: int) -> bytes:
    data = os.read(descriptor, size + 1)
    while len(data) < size and (more := os.read(descriptor, size + 1 - len(data))):
        data += more
    if len(data) != size:
        raise ChangedError(f"the original is being written: {size} bytes by its stat, {len(data)} or more were read")
    return data


def _inside(path: str, root: str) -> bool:
    real = os.path.realpath(root)
    return path == real or path.startswith(os.path.join(real, ""))
