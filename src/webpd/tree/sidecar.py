"""The chunk by which a sidecar says what it was made from. ``docs/sidecar.md`` documents it byte for byte."""

import contextlib
import errno
import hashlib
import os
import stat
import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass

from webpd.errors import FailedError
from webpd.model import Encoding, Failure

FOURCC = b"WPDS"
VERSION = 1

_PAYLOAD = struct.Struct("<B3sIq8s8s")
_HEADER = struct.Struct("<4sI")
CHUNK_SIZE = _HEADER.size + _PAYLOAD.size

_ALPHA = 0x10  # flag of VP8X, RFC 9649 section 2.7
_VP8X_SIZE = 10

_SECOND = 1_000_000_000  # in nanoseconds
_MOST_MTIME = 2**63 - 1  # in nanoseconds: the year 2262


@dataclass(frozen=True, slots=True)
class Origin:
    """What a sidecar was made from, and how.

    ``size`` is in bytes and under 4 GiB, ``mtime_ns`` in nanoseconds since 1970 as the file system told it, ``digest``
    is ``digest_of`` the source's bytes, ``fingerprint`` is ``fingerprint_of`` the encoding.
    """

    size: int
    mtime_ns: int
    digest: bytes
    fingerprint: bytes


@dataclass(frozen=True, slots=True)
class Newer:
    """The chunk of a later version of webpd: ours, and to be left alone."""

    version: int


def digest_of(source: bytes) -> bytes:
    """Return the 8-byte BLAKE2b hash that stands for the source's content."""
    return hashlib.blake2b(source, digest_size=8).digest()


def fingerprint_of(encoding: Encoding, revision: int) -> bytes:
    """Return 8 bytes that differ when the encoder's settings, or the converter's own ``revision``, differ."""
    text = f"webp quality={encoding.quality} method={encoding.method} revision={revision}"
    return hashlib.blake2b(text.encode("ascii"), digest_size=8).digest()


class NotRegularError(OSError):
    """A folder, a link, a pipe or the like has the sidecar's name."""


def same_time(one_ns: int, other_ns: int) -> bool:
    """Tell whether two mtimes are one: in whole seconds where either has no others, as on SSHFS."""
    if one_ns % _SECOND and other_ns % _SECOND:
        return one_ns == other_ns
    return one_ns // _SECOND == other_ns // _SECOND


def belongs(origin: Origin, status: os.stat_result) -> bool:
    """Tell whether the sidecar is still the file that we published, and not a copy that came here by other hands."""
    return same_time(origin.mtime_ns, status.st_mtime_ns)


def is_whole(data: bytes) -> bool:
    """Tell whether a sidecar's bytes, which end with a chunk, are those that it was published with."""
    return data[1 - CHUNK_SIZE + _HEADER.size : 4 - CHUNK_SIZE + _HEADER.size] == _checksum(data[12:-CHUNK_SIZE])


def attach(webp: bytes, origin: Origin) -> bytes:
    """Return the WebP file with the chunk as its last one; the picture's own bytes stay as they are.

    Raises ``FailedError`` (crashed): such an answer can only come from a codec process that went astray.
    """
    if len(webp) < 20 or webp[:4] != b"RIFF" or webp[8:12] != b"WEBP":
        raise FailedError(Failure.CRASHED, "the encoder's answer is no WebP file")
    body = webp[12 : 8 + int.from_bytes(webp[4:8], "little")]
    if body[:4] != b"VP8X":
        body = _vp8x(body) + body
    mtime = max(-_MOST_MTIME - 1, min(_MOST_MTIME, origin.mtime_ns))
    payload = _PAYLOAD.pack(VERSION, _checksum(body), origin.size, mtime, origin.digest, origin.fingerprint)
    chunk = _HEADER.pack(FOURCC, len(payload)) + payload
    return b"".join((_HEADER.pack(b"RIFF", 4 + len(body) + len(chunk)), b"WEBP", body, chunk))


def detach(sidecar: bytes) -> bytes:
    """Return the sidecar without its chunk, as ``attach`` takes it. The caller has read the chunk before."""
    return _HEADER.pack(b"RIFF", len(sidecar) - CHUNK_SIZE - 8) + sidecar[8:-CHUNK_SIZE]


def parse(head: bytes, tail: bytes, size: int) -> Origin | Newer | None:
    """Return what a WebP file's chunk says; None where there is no chunk of ours.

    ``head`` is the first 12 bytes of the file, ``tail`` its last ``CHUNK_SIZE`` bytes, ``size`` its length in bytes.
    """
    if len(head) < 12 or len(tail) != CHUNK_SIZE or head[:4] != b"RIFF" or head[8:12] != b"WEBP":
        return None
    if int.from_bytes(head[4:8], "little") + 8 != size or _HEADER.unpack_from(tail) != (FOURCC, _PAYLOAD.size):
        return None
    version, _, length, mtime_ns, digest, fingerprint = _PAYLOAD.unpack_from(tail, _HEADER.size)
    if version > VERSION:
        return Newer(version)
    return Origin(length, mtime_ns, digest, fingerprint)


def read(path: str) -> tuple[Origin | Newer | None, os.stat_result]:
    """Return what the chunk of the file at ``path`` says, and the file's stat. Reads 52 bytes.

    Raises ``NotRegularError``, ``OSError``.
    """
    with _opened(path) as (descriptor, status):
        head = os.pread(descriptor, 12, 0)
        tail = os.pread(descriptor, CHUNK_SIZE, max(0, status.st_size - CHUNK_SIZE))
    return parse(head, tail, status.st_size), status


def read_whole(path: str, most: int) -> tuple[bytes, os.stat_result]:
    """Return all bytes of the file at ``path``, ``most`` at the most, and its stat.

    Raises ``NotRegularError``, ``OSError``.
    """
    with _opened(path) as (descriptor, status), open(descriptor, "rb", closefd=False) as file:
        return file.read(most), status


@contextlib.contextmanager
def _opened(path: str) -> Iterator[tuple[int, os.stat_result]]:
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
    except OSError as error:
        if error.errno in (errno.ELOOP, errno.ENXIO):
            raise NotRegularError(error.errno, "not a regular file", path) from error
        raise
    try:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            raise NotRegularError(errno.EINVAL, "not a regular file", path)
        yield descriptor, status
    finally:
        os.close(descriptor)


def _checksum(body: bytes) -> bytes:
    return (zlib.crc32(body) & 0xFFFFFF).to_bytes(3, "little")


def _vp8x(body: bytes) -> bytes:
    """Return the VP8X chunk for a file that has none. Layouts: RFC 6386 section 9.1, RFC 9649 sections 2.5 to 2.7."""
    kind = body[:4]
    if kind == b"VP8 " and body[11:14] == b"\x9d\x01\x2a":
        width, height = (int.from_bytes(body[at : at + 2], "little") & 0x3FFF for at in (14, 16))
        flags = 0
    elif kind == b"VP8L" and body[8:9] == b"\x2f":
        bits = int.from_bytes(body[9:13], "little")
        width, height = (bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1
        flags = _ALPHA if bits >> 28 & 1 else 0
    else:
        raise FailedError(Failure.CRASHED, f"the encoder's answer is no WebP picture: its first chunk is {kind!r}")
    sizes = (width - 1).to_bytes(3, "little") + (height - 1).to_bytes(3, "little")
    return _HEADER.pack(b"VP8X", _VP8X_SIZE) + bytes((flags, 0, 0, 0)) + sizes
