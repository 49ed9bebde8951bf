"""One image in the running service: what is tried, what is learnt from it, and whether it comes again."""

import os
import stat
from collections.abc import Callable
from dataclasses import dataclass, replace

import structlog

from webpd.convert.pool import PoolClosedError
from webpd.errors import WebpdError
from webpd.ledger.port import Known, Ledger
from webpd.model import Failure, Job, Outcome, Result, Sidecar, Skip
from webpd.pipeline import Pipeline, UnsettledError
from webpd.reconcile.patience import Patience
from webpd.service.chronicle import Chronicle
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

    ``failure`` says what was in the way, where something was.
    """

    again: Job | None = None
    delay: float | None = None
    failure: str = ""


DONE = Verdict()


class Worker:
    """Works on the images of one root, in any thread.

    ``blame`` asks whether the mount is at fault for an error, and halts the root if so; ``finished`` is told of each
    image that has come to an end.
    """

    def __init__(  # noqa: PLR0913 - one for each neighbour
        self,
        root: str,
        pipeline: Pipeline,
        ledger: Ledger,
        patience: Patience,
        fingerprint: bytes,
        metrics: Metrics,
        chronicle: Chronicle,
        *,
        blame: Callable[[OSError], Health | None],
        finished: Callable[[Job], None],
    ) -> None:
        self._root = root
        self._pipeline = pipeline
        self._ledger = ledger
        self._patience = patience
        self._fingerprint = fingerprint
        self._metrics = metrics
        self._chronicle = chronicle
        self._blame = blame
        self._finished = finished
        self._doubts = Doubts()

    def work(self, job: Job) -> Verdict:
        """Do the job once. Whatever happens is in the verdict."""
        try:
            return self._work(job)
        except Exception as error:  # a fault of ours must cost no more than a later try
            _log.exception("unexpected error, please report it", path=job.path)
            return Verdict(job, failure=f"unexpected: {error!r}")

    def _work(self, job: Job) -> Verdict:
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
        self._conclude(job, outcome)
        return DONE

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
        self._metrics.retries.inc()
        return Verdict(job, failure=str(error))

    def _may_be_half(self, job: Job, outcome: Outcome) -> bool:
        """Tell whether the damage may be that of a mount's cache, which shows the beginning of a file for a while."""
        return outcome.reason is Failure.DAMAGED and self._doubts.age(job) < self._patience.cache

    def _conclude(self, job: Job, outcome: Outcome) -> None:
        if outcome.reason is not Skip.CHANGED:
            directory, name = os.path.split(job.path)
            path = os.path.relpath(directory, self._root)
            self._learn("" if path == "." else path, name, job, outcome)
        self._metrics.count(outcome)
        self._chronicle.note(job, outcome)
        told = {"path": job.path, "seconds": round(outcome.seconds, 3)}
        self._finished(job)
        if outcome.result is Result.CONVERTED:
            _log.info("converted", **told, source_bytes=outcome.source_bytes, webp_bytes=outcome.webp_bytes)
        elif outcome.result is Result.FAILED:
            _log.error("failed", **told, reason=str(outcome.reason), detail=outcome.detail)
        elif outcome.result is not Result.FRESH:
            reason = str(outcome.reason or "no_gain" if not outcome.detail else outcome.reason or "unsuited")
            _log.info(str(outcome.result), **told, reason=reason, detail=outcome.detail)

    def _learn(self, path: str, name: str, job: Job, outcome: Outcome) -> None:
        """Keep what the tree itself does not show."""
        state, result, reason = job.sidecar, outcome.result, str(outcome.reason or "")
        if result in (Result.CONVERTED, Result.FRESH):
            if self._patience.local:
                return
            # On a network mount the source may have been read from a cache: see whether it stays what it seemed.
            state, result = Sidecar.FRESH, Result.CONVERTED
        elif state is not Sidecar.ABSENT and not os.path.lexists(naming.sidecar_of(job.path)):
            state = Sidecar.ABSENT  # withdrawn
        known = Known(job.size, job.mtime_ns, state, self._fingerprint, result, reason, outcome.detail)
        self._ledger.learn(self._root, path, {name: known})
