"""What the rooms of the house say to one another: plain frozen values, no behaviour that touches the world."""

from dataclasses import dataclass
from enum import StrEnum
from typing import NamedTuple


class Result(StrEnum):
    """How the work on one image ended."""

    CONVERTED = "converted"
    FRESH = "fresh"
    KEPT_ORIGINAL = "kept_original"
    SKIPPED = "skipped"
    FAILED = "failed"


class Skip(StrEnum):
    """Why an image was left as it is. Nothing is wrong with the service; nothing is to be tried again."""

    FOREIGN_SIDECAR = "foreign_sidecar"
    NOT_AN_IMAGE = "not_an_image"
    EMPTY = "empty"
    TOO_LARGE = "too_large"
    NAME_TOO_LONG = "name_too_long"
    CHANGED = "changed"


class Failure(StrEnum):
    """Why an image that should have been converted was not."""

    DAMAGED = "damaged"
    CRASHED = "crashed"
    TIMED_OUT = "timed_out"
    MEMORY = "memory"
    IO = "io"


@dataclass(frozen=True, slots=True)
class Encoding:
    """How to encode: all that the bytes of a sidecar depend on, beside the source.

    ``quality`` is libwebp's, 0 to 100; ``method`` is libwebp's effort, 0 (fast) to 6 (small).
    """

    quality: int
    method: int


@dataclass(frozen=True, slots=True)
class Picture:
    """What the converter learnt of a source image.

    ``width`` and ``height`` are in pixels as shown, so after the EXIF turn; ``format`` is ``jpeg`` or ``png``;
    ``frames`` is 1 for a still picture; ``lossless`` says which of WebP's two coders was used.
    """

    width: int
    height: int
    format: str
    frames: int
    lossless: bool


class Sidecar(StrEnum):
    """What the stats say of the file that has the sidecar's name."""

    ABSENT = "absent"
    STALE = "stale"
    FRESH = "fresh"


@dataclass(frozen=True, slots=True)
class Job:
    """One original to look at: its path, and the root (an absolute path) that it belongs to.

    ``size`` (bytes) and ``mtime_ns`` (nanoseconds) are as of the look at it; ``link`` says that the original is a
    symbolic link.
    """

    path: str
    root: str
    size: int
    mtime_ns: int = 0
    sidecar: Sidecar = Sidecar.ABSENT
    link: bool = False


class Timing(NamedTuple):
    """How long each step took, in seconds; converting includes waiting for a codec process."""

    read: float
    convert: float
    publish: float


@dataclass(frozen=True, slots=True)
class Outcome:
    """What happened to one original.

    ``reason`` is set for skipped and failed; ``detail`` tells the administrator more. ``source_bytes`` counts what
    was read, ``webp_bytes`` the sidecar with its chunk, ``seconds`` the whole way; ``timing`` tells of the steps where
    it was converted.
    """

    path: str
    result: Result
    reason: Skip | Failure | None = None
    detail: str = ""
    source_bytes: int = 0
    webp_bytes: int = 0
    seconds: float = 0.0
    picture: Picture | None = None
    timing: Timing | None = None


@dataclass(frozen=True, slots=True)
class Known:
    """What is known of one file, for as long as all but ``result``, ``reason`` and ``detail`` stays as it is.

    ``size`` is in bytes, ``mtime_ns`` in nanoseconds; ``sidecar`` is what the stats said of the file beside it;
    ``fingerprint`` stands for the settings and the program's version.
    """

    size: int
    mtime_ns: int
    sidecar: Sidecar
    fingerprint: bytes
    result: Result
    reason: str = ""
    detail: str = ""


@dataclass(frozen=True, slots=True)
class Ending:
    """How a job ended on ``host``, for who found it: ``known`` is what is to be remembered, None for nothing.

    ``at`` is when, in seconds of Unix time.
    """

    outcome: Outcome
    known: Known | None
    host: str
    at: float
