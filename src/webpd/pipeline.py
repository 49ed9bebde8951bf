"""One original, from its path to its outcome: read, convert, publish. Synchronous: an I/O thread runs it to its end.

``Pipeline.process`` makes an outcome of whatever happens, for a single pass. ``Pipeline.attempt`` is for who can come
again: it raises what may pass.
"""

import logging
import os
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Protocol

from webpd.convert.result import REVISION, Converted
from webpd.errors import FailedError, PermanentError, RefusedError, UnsuitedError, WebpdError
from webpd.model import Encoding, Failure, Job, Outcome, Result, Sidecar, Skip, Timing
from webpd.tree import bitrix, naming, sidecar, source
from webpd.tree.publisher import DryPublisher, Publisher, PublishError
from webpd.tree.sidecar import Newer, Origin
from webpd.tree.source import ChangedError, GoneError, Source, Version

_log = logging.getLogger(__name__)

# An original that was different after each of so many conversions is being written all the time.
_TRIES = 3


class Codecs(Protocol):
    """What the pipeline needs of the codec processes."""

    def convert(self, source: bytes) -> Converted:
        """Raises ``RefusedError``, ``FailedError``."""


class UnsettledError(ChangedError):
    """The original may not be what it is going to be; to be looked at again some time later."""


class Pipeline:
    """Takes jobs to their outcomes. Thread-safe.

    ``max_source`` is in bytes. ``reconvert_changed`` encodes again what was made with another ``encoding``;
    ``overwrite_foreign`` replaces sidecars that are not ours.
    """

    def __init__(
        self,
        codecs: Codecs,
        publisher: Publisher | DryPublisher,
        encoding: Encoding,
        max_source: int,
        *,
        reconvert_changed: bool = False,
        overwrite_foreign: bool = False,
    ) -> None:
        self._codecs = codecs
        self._publisher = publisher
        self._fingerprint = sidecar.fingerprint_of(encoding, REVISION)
        self._max_source = max_source
        self._reconvert_changed = reconvert_changed
        self._overwrite_foreign = overwrite_foreign

    def process(self, job: Job) -> Outcome:
        """Do the job and tell what happened. Whatever is wrong with the image or its folder is in the outcome.

        Raises ``UnfitError`` where no image at all can be written, and whatever the codecs raise when they are closed.
        """
        begun = time.monotonic()
        try:
            outcome = self._persist(job)
        except (PublishError, OSError) as error:
            outcome = Outcome(job.path, Result.FAILED, Failure.IO, str(error))
        return replace(outcome, seconds=time.monotonic() - begun)

    def attempt(self, job: Job, *, believed: bool) -> Outcome:
        """Do the job once, if the original is still what the job says: seen twice alike, it has settled.

        An original larger than Bitrix's folder allows is only converted when it is ``believed``. Raises
        ``UnsettledError``, ``ChangedError`` and ``GoneError``; ``OSError``, ``PublishError`` and ``UnfitError`` where
        the file system is in the way; and whatever the codecs raise when they are closed.
        """
        begun = time.monotonic()

        def settled(original: Source) -> None:
            if (original.version.size, original.version.mtime_ns) != (job.size, job.mtime_ns):
                raise ChangedError("the original changed since it was looked at")
            if not believed and bitrix.oversized(job.path, original.data):
                raise UnsettledError("the picture is larger than its folder allows: a thumbnail may replace it")

        return replace(self._judged(job, settled), seconds=time.monotonic() - begun)

    def _persist(self, job: Job) -> Outcome:
        for _ in range(_TRIES):
            try:
                return self._judged(job, lambda _: None)
            except GoneError as error:
                return Outcome(job.path, Result.SKIPPED, Skip.CHANGED, str(error))
            except ChangedError as error:
                last = error
                there = os.path.lexists(naming.sidecar_of(job.path))
                job = replace(job, sidecar=Sidecar.STALE if there else Sidecar.ABSENT)
        return Outcome(job.path, Result.SKIPPED, Skip.CHANGED, f"{last} ({_TRIES} times)")

    def _judged(self, job: Job, settled: Callable[[Source], None]) -> Outcome:
        """Do the job once; make an outcome of what will be the same the next time."""
        try:
            return self._once(job, settled)
        except RefusedError as error:
            return Outcome(job.path, Result.SKIPPED, error.reason, str(error))
        except UnsuitedError as error:
            return Outcome(job.path, Result.KEPT_ORIGINAL, detail=str(error))
        except FailedError as error:
            return Outcome(job.path, Result.FAILED, error.reason, str(error))
        except (WebpdError, OSError):
            raise
        except Exception as error:  # a fault of ours: it must cost this image only, and be told
            _log.exception("%s: unexpected error, please report it", job.path)
            return Outcome(job.path, Result.FAILED, Failure.CRASHED, f"unexpected: {error!r}")

    def _once(self, job: Job, settled: Callable[[Source], None]) -> Outcome:
        old = None if job.sidecar is Sidecar.ABSENT else _find(naming.sidecar_of(job.path))
        if old and self._stays(job, old):
            return Outcome(job.path, Result.FRESH)
        begun = time.monotonic()
        original = source.read(job, self._max_source)
        read = time.monotonic()
        settled(original)
        origin = Origin(
            len(original.data), original.version.mtime_ns, sidecar.digest_of(original.data), self._fingerprint
        )
        if old and isinstance(old.origin, Origin):
            same = (old.origin.size, old.origin.digest) == (origin.size, origin.digest)
            other_settings = self._reconvert_changed and old.origin.fingerprint != origin.fingerprint
            if same and not other_settings and (outcome := self._redate(original, old)):
                return outcome
            if not same and not old.belongs and not self._overwrite_foreign:
                raise _foreign("its chunk tells of another picture or another place")
        else:
            same = False
        self._publisher.check_writable(os.path.dirname(job.path))
        asked = time.monotonic()
        try:
            converted = self._codecs.convert(original.data)
        except PermanentError:
            source.check(original)  # what was read may be half of an upload
            if old and old.belongs and not same:  # it shows what the original no longer is
                self._publisher.withdraw(naming.sidecar_of(job.path), old.version)
            raise
        answered = time.monotonic()
        outcome = self._finish(original, old, origin, converted)
        return replace(outcome, timing=Timing(read - begun, answered - asked, time.monotonic() - answered))

    def _stays(self, job: Job, old: "_Found") -> bool:
        """Tell whether the file with the sidecar's name is right, or not to be judged by this version."""
        if old.origin is None and old.version.size and not self._overwrite_foreign:
            raise _foreign("it carries no chunk of webpd's")
        if isinstance(old.origin, Origin):
            fresh = job.sidecar is Sidecar.FRESH and old.belongs and old.origin.size == job.size
            return fresh and (not self._reconvert_changed or old.origin.fingerprint == self._fingerprint)
        return isinstance(old.origin, Newer)

    def _redate(self, original: Source, old: "_Found") -> Outcome | None:
        """The picture is the same and only times differ (a restore, a copy, a touch): no encode, just the new time.

        None where the sidecar itself was damaged: it must be encoded again.
        """
        assert isinstance(old.origin, Origin)  # noqa: S101 - the caller compared its digest
        data, _ = sidecar.read_whole(naming.sidecar_of(original.path), old.version.size)
        if not sidecar.is_whole(data):
            return None
        origin = replace(old.origin, mtime_ns=original.version.mtime_ns)
        self._publisher.publish(original, sidecar.attach(sidecar.detach(data), origin), old.version)
        return Outcome(original.path, Result.FRESH, source_bytes=len(original.data), webp_bytes=len(data))

    def _finish(self, original: Source, old: "_Found | None", origin: Origin, converted: Converted) -> Outcome:
        data = sidecar.attach(converted.webp, origin)
        size, facts = len(original.data), converted.picture
        if len(data) >= size:
            source.check(original)
            if old and old.belongs:
                self._publisher.withdraw(naming.sidecar_of(original.path), old.version)
            return Outcome(original.path, Result.KEPT_ORIGINAL, source_bytes=size, webp_bytes=len(data), picture=facts)
        self._publisher.publish(original, data, old.version if old else None)
        return Outcome(original.path, Result.CONVERTED, source_bytes=size, webp_bytes=len(data), picture=facts)


@dataclass(frozen=True, slots=True)
class _Found:
    """The file that has the sidecar's name. ``belongs``: made by us, and not moved or copied here since."""

    origin: Origin | Newer | None
    version: Version
    belongs: bool


def _find(path: str) -> _Found | None:
    try:
        origin, stat = sidecar.read(path)
    except FileNotFoundError:
        return None
    except sidecar.NotRegularError as error:
        raise _foreign("it is not a regular file") from error
    return _Found(origin, source.version_of(stat), isinstance(origin, Origin) and sidecar.belongs(origin, stat))


def _foreign(why: str) -> RefusedError:
    return RefusedError(
        Skip.FOREIGN_SIDECAR, f"the .webp beside it was not made by webpd from it ({why}): left as it is"
    )
