"""One image in the running service: what is tried, what is learnt from it, and whether it comes again."""

import errno
import os
import stat
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace

import structlog

from webpd.convert.pool import PoolClosedError
from webpd.errors import WebpdError
from webpd.model import Ending, Failure, Job, Known, Outcome, Result, Sidecar, Skip
from webpd.pipeline import Pipeline, UnsettledError
from webpd.queue.port import Lane
from webpd.reconcile.patience import Patience
from webpd.service.doubts import Doubts
from webpd.telemetry.metrics import Metrics
from webpd.tree import naming
from webpd.tree.source import ChangedError, GoneError
from webpd.watch.health import Health

_log = structlog.get_logger(__name__)

# A picture larger than Bitrix's folder allows is believed when no thumbnail took its place for so many seconds.
OVERSIZE_WAIT = 15.0


@dataclass(frozen=True, slots=True)
class Verdict:
    """What is to be done with the ticket: nothing more, or ``again`` as this job after ``delay`` (None: growing).

    ``failure`` says what was in the way, where something was, and ``denied`` whether that was a lack of rights;
    ``ending`` what came of the image, where it was not gone.
    """

    again: Job | None = None
    delay: float | None = None
    failure: str = ""
    denied: bool = False
    ending: Ending | None = field(default=None, compare=False)


DONE = Verdict()


class Worker:
    """Works on the images of one root, in any thread.

    ``blame`` asks whether the mount is at fault for an error, and halts the root if so; ``concluded`` is told of each
    image that has come to an end. ``host`` is the name of this one.
    """

    def __init__(
        self,
        pipeline: Pipeline,
        patience: Patience,
        fingerprint: bytes,
        host: str,
        metrics: Metrics,
        *,
        blame: Callable[[OSError], Health | None],
        concluded: Callable[[Job, Ending], None],
    ) -> None:
        self._pipeline = pipeline
        self._patience = patience
        self._fingerprint = fingerprint
        self._host = host
        self._metrics = metrics
        self._blame = blame
        self._concluded = concluded
        self._doubts = Doubts()

    def work(self, job: Job, lane: Lane = Lane.BACKFILL) -> Verdict:
        """Do the job once, that was taken from this lane. Whatever happens is in the verdict."""
        try:
            return self._work(job, lane)
        except Exception as error:  # a fault of ours must cost no more than a later try
            _log.exception("unexpected error, please report it", path=job.path)
            return Verdict(job, failure=f"unexpected: {error!r}")

    def _work(self, job: Job, lane: Lane) -> Verdict:
        try:
            outcome = self._pipeline.attempt(job, believed=self._doubts.age(job) >= OVERSIZE_WAIT)
        except GoneError:
            self._doubts.drop(job)
            return DONE
        except UnsettledError:
            self._doubts.add(job)
            return Verdict(job, OVERSIZE_WAIT + 0.1)
        except ChangedError:
            return self._look_again(job)
        except PoolClosedError:
            return Verdict(job, 0.0)
        except (WebpdError, OSError) as error:
            return self._in_the_way(job, error)
        if self._may_be_half(job, outcome):
            self._doubts.add(job)
            return Verdict(job, self._patience.sure)
        self._doubts.drop(job)
        ending = Ending(outcome, self._known(job, outcome), self._host, time.time())
        self._concluded(job, ending)
        self._metrics.count(job, outcome, lane.name.lower())
        _tell(outcome)
        return Verdict(ending=ending)

    def _look_again(self, job: Job) -> Verdict:
        try:
            now = os.lstat(job.path)
            if stat.S_ISLNK(now.st_mode):
                return DONE  # whether a link leads where it may is for a look at its folder to tell
            there = os.path.lexists(naming.sidecar_of(job.path))
        except FileNotFoundError:
            return DONE
        except OSError as error:
            return self._in_the_way(job, error)
        state = Sidecar.STALE if there else Sidecar.ABSENT
        job = replace(job, size=now.st_size, mtime_ns=now.st_mtime_ns, sidecar=state)
        return Verdict(job, self._patience.delay([job]))

    def _in_the_way(self, job: Job, error: Exception) -> Verdict:
        cause = error if isinstance(error, OSError) else error.__cause__
        if isinstance(cause, IsADirectoryError):
            return DONE
        if isinstance(cause, OSError) and self._blame(cause):
            return Verdict(job, 0.0)
        self._metrics.count_retry()
        denied = isinstance(cause, OSError) and cause.errno == errno.EACCES  # EPERM: on SSHFS, also a full disk
        return Verdict(job, failure=str(error), denied=denied)

    def _may_be_half(self, job: Job, outcome: Outcome) -> bool:
        """Tell whether the damage may be that of a mount's cache, which shows the beginning of a file for a while."""
        return outcome.reason is Failure.DAMAGED and self._doubts.age(job) < self._patience.cache

    def _known(self, job: Job, outcome: Outcome) -> Known | None:
        """Return what the tree itself does not show."""
        state, result, reason = job.sidecar, outcome.result, str(outcome.reason or "")
        if outcome.reason is Skip.CHANGED:
            return None
        if result in (Result.CONVERTED, Result.FRESH):
            if self._patience.local:
                return None
            # On a network mount the source may have been read from a cache: see whether it stays what it seemed.
            state, result = Sidecar.FRESH, Result.CONVERTED
        elif state is not Sidecar.ABSENT and not os.path.lexists(naming.sidecar_of(job.path)):
            state = Sidecar.ABSENT  # withdrawn
        return Known(job.size, job.mtime_ns, state, self._fingerprint, result, reason, outcome.detail)


def _tell(outcome: Outcome) -> None:
    told = {"path": outcome.path, "seconds": round(outcome.seconds, 3)}
    if outcome.result is Result.CONVERTED:
        _log.info("converted", **told, source_bytes=outcome.source_bytes, webp_bytes=outcome.webp_bytes)
    elif outcome.result is Result.FAILED:
        _log.error("failed", **told, reason=str(outcome.reason), detail=outcome.detail)
    elif outcome.result is not Result.FRESH:
        reason = str(outcome.reason or "no_gain" if not outcome.detail else outcome.reason or "unsuited")
        _log.info(str(outcome.result), **told, reason=reason, detail=outcome.detail)
