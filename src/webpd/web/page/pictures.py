"""Pictures below a root, opened so that no name leads anywhere else."""

import errno
import os
import stat
from typing import Literal

from webpd.tree import naming

Kind = Literal["original", "webp"]

MOST = 32 << 20
"""Bytes of the largest picture that is shown."""

_MAGIC = {b"\xff\xd8\xff": "image/jpeg", b"\x89PNG\r\n\x1a\n": "image/png"}
_FOLDER = os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC
_FILE = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC  # a pipe is opened without waiting for its writer


class NoPictureError(Exception):
    """There is nothing to be shown; ``status`` is HTTP's."""

    def __init__(self, status: int, why: str) -> None:
        super().__init__(why)
        self.status = status


def read_picture(root: str, path: str, kind: Kind) -> tuple[str, bytes]:
    """Return the media type and the bytes of an original, or of the sidecar beside it; blocks.

    ``path`` is the original's, relative to the root. No symbolic link is followed below the root. Raises
    ``NoPictureError``.
    """
    parts = path.split("/")
    if any(part in {"", ".", ".."} or "\0" in part for part in parts) or not naming.is_original(parts[-1]):
        raise NoPictureError(404, "not the name of an image below a root")
    if kind == "webp":
        parts[-1] = naming.sidecar_of(parts[-1])
    try:
        file = _open(root, parts)
    except OSError as error:
        raise _explain(error) from error
    try:
        data = _read(file)
    except OSError as error:
        raise _explain(error) from error
    finally:
        os.close(file)
    return _media_type(data, kind), data


def _open(root: str, parts: list[str]) -> int:
    folder = os.open(root, _FOLDER)
    try:
        for part in parts[:-1]:
            inner = os.open(part, _FOLDER | os.O_NOFOLLOW, dir_fd=folder)
            os.close(folder)
            folder = inner
        return os.open(parts[-1], _FILE, dir_fd=folder)
    finally:
        os.close(folder)


def _read(file: int) -> bytes:
    status = os.fstat(file)
    if not stat.S_ISREG(status.st_mode):
        raise NoPictureError(404, "not a regular file")
    with open(file, "rb", closefd=False) as opened:
        data = opened.read(MOST + 1)
    if len(data) > MOST:
        raise NoPictureError(413, f"larger than {MOST >> 20} MiB: not shown here")
    return data


def _media_type(data: bytes, kind: Kind) -> str:
    """Return what the bytes are, whatever the name says: a page that is named like an image is not shown."""
    if kind == "webp":
        if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
            return "image/webp"
        raise NoPictureError(415, "not a WebP picture")
    for magic, media_type in _MAGIC.items():
        if data.startswith(magic):
            return media_type
    raise NoPictureError(415, "neither a JPEG nor a PNG")


def _explain(error: OSError) -> NoPictureError:
    if error.errno in {errno.ENOENT, errno.ENOTDIR, errno.ELOOP, errno.ENAMETOOLONG, errno.ENXIO}:
        return NoPictureError(404, "not there any more, or a link")
    return NoPictureError(503, f"can't be read: {error.strerror}")
