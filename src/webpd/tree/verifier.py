"""Looking again at what is there: does every sidecar show its original, whole, and smaller?"""

import os
from dataclasses import dataclass
from enum import StrEnum
from typing import Protocol

from webpd.errors import FailedError, RefusedError
from webpd.model import Job, Picture, Sidecar
from webpd.tree import naming, sidecar, source
from webpd.tree.sidecar import Origin
from webpd.tree.source import ChangedError


class Problem(StrEnum):
    """What is wrong with a sidecar."""

    BROKEN = "broken"
    STALE = "stale"
    ORPHANED = "orphaned"
    LARGER = "larger"
    UNREADABLE = "unreadable"


class Standing(StrEnum):
    """What is no problem."""

    RIGHT = "right"
    FOREIGN = "foreign"
    WITHOUT = "without_sidecar"
    GONE = "gone"


@dataclass(frozen=True, slots=True)
class Finding:
    """What was found at one path: a problem with its detail, or that there is none."""

    path: str
    verdict: Problem | Standing
    detail: str = ""


class Inspector(Protocol):
    """What the verifier needs of the codec processes."""

    def inspect(self, webp: bytes) -> Picture:
        """Decode all of it. Raises ``FailedError``."""


class Verifier:
    """Verifies sidecars against their originals, by content. Thread-safe. ``max_source`` is in bytes."""

    def __init__(self, codecs: Inspector, max_source: int) -> None:
        self._codecs = codecs
        self._max_source = max_source

    def verify(self, job: Job) -> Finding:
        """Tell whether the original's sidecar is right. Raises whatever the codecs raise when they are closed."""
        path = naming.sidecar_of(job.path)
        if job.sidecar is Sidecar.ABSENT:
            return Finding(job.path, Standing.WITHOUT)
        try:
            with open(path, "rb") as file:
                data = file.read()
            mtime = os.stat(path).st_mtime_ns
            origin = sidecar.parse(data[:12], data[-sidecar.CHUNK_SIZE :], len(data))
            self._codecs.inspect(data)
            if not isinstance(origin, Origin):
                return Finding(path, Standing.FOREIGN)
            return self._compare(job, path, data, origin, mtime)
        except FailedError as error:
            return Finding(path, Problem.BROKEN, str(error))
        except FileNotFoundError:
            return Finding(path, Standing.GONE)
        except (OSError, ChangedError, RefusedError) as error:
            return Finding(path, Problem.UNREADABLE, str(error))

    def verify_orphan(self, path: str) -> Finding:
        """Tell whether a sidecar without an original in its listing is one of ours that was left behind."""
        try:
            origin, stat = sidecar.read(path)
            if os.path.lexists(naming.original_of(path) or path):
                return Finding(path, Standing.FOREIGN)  # the original is no file that webpd converts
        except FileNotFoundError:
            return Finding(path, Standing.GONE)
        except OSError as error:
            return Finding(path, Problem.UNREADABLE, str(error))
        if isinstance(origin, Origin) and sidecar.belongs(origin, stat):
            return Finding(path, Problem.ORPHANED, "its original is gone")
        return Finding(path, Standing.FOREIGN)

    def _compare(self, job: Job, path: str, data: bytes, origin: Origin, mtime: int) -> Finding:
        original = source.read(job, self._max_source)
        if sidecar.seconds(mtime) != sidecar.seconds(original.version.mtime_ns):
            return Finding(path, Problem.STALE, "its time is not that of the original: `webpd convert` mends it")
        if (origin.size, origin.digest) != (len(original.data), sidecar.digest_of(original.data)):
            return Finding(path, Problem.STALE, "it was made from other bytes than the original has now")
        if len(data) >= len(original.data):
            return Finding(path, Problem.LARGER, f"{len(data)} bytes for an original of {len(original.data)}")
        return Finding(path, Standing.RIGHT)
