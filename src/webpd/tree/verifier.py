"""Looking again at what is there: does every sidecar show its original, whole, and smaller?"""

from dataclasses import dataclass
from enum import StrEnum
from typing import Protocol

from webpd.errors import FailedError, RefusedError
from webpd.model import Job, Picture, Sidecar
from webpd.tree import naming, sidecar, source
from webpd.tree.pruner import PruneError, Verdict, examine
from webpd.tree.sidecar import Origin
from webpd.tree.source import ChangedError, GoneError


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
            data, status = sidecar.read_whole(path, self._max_source)
            origin = sidecar.parse(data[:12], data[-sidecar.CHUNK_SIZE :], len(data))
            self._codecs.inspect(data)
            if not isinstance(origin, Origin):
                return Finding(path, Standing.FOREIGN)
            return self._compare(job, path, data, origin, status.st_mtime_ns)
        except FailedError as error:
            return Finding(path, Problem.BROKEN, f"{error}; delete it, and `webpd convert` makes another")
        except sidecar.NotRegularError:
            return Finding(path, Standing.FOREIGN)
        except (FileNotFoundError, GoneError):
            return Finding(path, Standing.GONE)  # deleted since the listing: the next look tells of what is left
        except (OSError, ChangedError, RefusedError) as error:
            return Finding(path, Problem.UNREADABLE, str(error))

    def verify_orphan(self, path: str) -> Finding:
        """Tell whether a sidecar without an original in its listing is one of ours that was left behind."""
        try:
            verdict, _ = examine(path)
        except PruneError as error:
            return Finding(path, Problem.UNREADABLE, str(error))
        if verdict is Verdict.OURS:
            return Finding(path, Problem.ORPHANED, "its original is gone: `webpd prune --yes` removes it")
        return Finding(path, Standing.GONE if verdict is Verdict.GONE else Standing.FOREIGN)

    def _compare(self, job: Job, path: str, data: bytes, origin: Origin, mtime: int) -> Finding:
        original = source.read(job, self._max_source)
        if not sidecar.is_whole(data):
            return Finding(
                path, Problem.BROKEN, "its bytes are not those that were written: delete it and convert again"
            )
        if not sidecar.same_time(mtime, original.version.mtime_ns):
            return Finding(path, Problem.STALE, "its time is not that of the original: `webpd convert` mends it")
        if (origin.size, origin.digest) != (len(original.data), sidecar.digest_of(original.data)):
            return Finding(
                path, Problem.STALE, "it shows other bytes than the original has now: delete it and convert again"
            )
        if len(data) >= len(original.data):
            return Finding(path, Problem.LARGER, f"{len(data)} bytes for an original of {len(original.data)}")
        return Finding(path, Standing.RIGHT)
