"""What goes over the wire, as JSON: batches of jobs to those who work, letters to those who watch.

Paths are relative to the root, and need not be UTF-8: JSON keeps the lone surrogates that stand for other bytes.
"""

import hashlib
import json
import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from webpd.model import Ending, Failure, Job, Known, Outcome, Picture, Result, Sidecar, Skip
from webpd.queue.port import Lane
from webpd.redis import PREFIX

_VERSION = 1
"""Of all that is written here: hosts of different versions do not hear of one another."""
_LONGEST_DELAY = 86_400.0
_GARBLED = (AttributeError, KeyError, OverflowError, RecursionError, TypeError)


def place_of(root: str, fingerprint: bytes) -> str:
    """Return the prefix of all keys for this root under these settings: a host without either never sees them."""
    digest = hashlib.blake2b(f"{_VERSION}\0".encode(), digest_size=8)
    digest.update(os.fsencode(root) + b"\0" + fingerprint)
    return f"{PREFIX}q:{digest.hexdigest()}"


@dataclass(frozen=True, slots=True)
class Item:
    """One job of a batch, with what its ticket says."""

    job: Job
    lane: Lane
    tries: int


@dataclass(frozen=True, slots=True)
class Batch:
    """Jobs of one root that go to one host. ``key`` names it; ``owner`` is who found them and wants to hear of them."""

    key: str
    owner: str
    items: Sequence[Item]

    def encode(self) -> str:
        items = [[*_job_out(item.job), item.lane, item.tries] for item in self.items]
        return json.dumps({"key": self.key, "owner": self.owner, "items": items}, separators=(",", ":"))

    @classmethod
    def decode(cls, text: str | bytes, root: str) -> "Batch":
        """Raises ``ValueError``: it is not what ``encode`` gives, or a path leads out of the root."""
        try:
            fields = json.loads(text)
            items = [Item(_job_in(job, root), Lane(lane), int(tries)) for *job, lane, tries in fields["items"]]
            return cls(str(fields["key"]), str(fields["owner"]), items)
        except _GARBLED as error:
            raise ValueError(f"not a batch: {error!r}") from error


@dataclass(frozen=True, slots=True)
class Report:
    """What became of the job at ``place`` of a batch: it ended, or comes again as ``again`` after ``delay`` seconds."""

    batch: str
    place: int
    ending: Ending | None = None
    again: Job | None = None
    delay: float | None = None


@dataclass(frozen=True, slots=True)
class Letter:
    """From a host that works on the root at ``place``: for how many jobs it has room, and what became of some."""

    place: str
    worker: str
    room: int
    reports: Sequence[Report]

    def encode(self) -> str:
        reports = [
            [
                report.batch,
                report.place,
                None if report.ending is None else ending_out(report.ending),
                None if report.again is None else _job_out(report.again),
                report.delay,
            ]
            for report in self.reports
        ]
        return json.dumps([self.place, self.worker, self.room, reports], separators=(",", ":"))

    @classmethod
    def decode(cls, text: str | bytes, roots: dict[str, str]) -> "Letter":
        """``roots`` are those known, by their place. Raises ``ValueError``: garbled, or about another root."""
        try:
            place, worker, room, reports = json.loads(text)
            root = roots[place]
            return cls(place, str(worker), int(room), [_report_in(report, root) for report in reports])
        except _GARBLED as error:
            raise ValueError(f"not a letter: {error!r}") from error


def _report_in(fields: Any, root: str) -> Report:
    batch, place, ending, again, delay = fields
    return Report(
        str(batch),
        int(place),
        None if ending is None else ending_in(ending),
        None if again is None else _job_in(again, root),
        None if delay is None else _delay_in(delay),
    )


def _delay_in(delay: Any) -> float:
    seconds = float(delay)
    if not 0 <= seconds <= _LONGEST_DELAY:  # nor NaN, which would put the event loop's timers out of order
        raise ValueError(f"not a delay: {delay!r}")
    return seconds


def _job_out(job: Job) -> list[Any]:
    return [os.path.relpath(job.path, job.root), job.size, job.mtime_ns, job.sidecar, job.link]


def _job_in(fields: Any, root: str) -> Job:
    path, size, mtime_ns, sidecar, link = fields
    if path.startswith("/") or "\0" in path or not {"", ".", ".."}.isdisjoint(path.split("/")):
        raise ValueError(f"a path that leads out of the root: {path!r}")
    return Job(f"{root}/{path}", root, int(size), int(mtime_ns), Sidecar(sidecar), bool(link))


def ending_out(ending: Ending) -> list[Any]:
    """Return the ending without its path, which the job has."""
    outcome, known = ending.outcome, ending.known
    remembered = None
    if known is not None:
        remembered = [
            known.size,
            known.mtime_ns,
            known.sidecar,
            known.fingerprint.hex(),
            known.result,
            known.reason,
            known.detail,
        ]
    happened = [
        outcome.result,
        outcome.reason,
        outcome.detail,
        outcome.source_bytes,
        outcome.webp_bytes,
        round(outcome.seconds, 4),
        asdict(outcome.picture) if outcome.picture else None,
    ]
    return [happened, remembered, ending.host, ending.at]


def ending_in(fields: Any, path: str = "") -> Ending:
    """Raises ``TypeError`` or ``ValueError``: it is not what ``ending_out`` gives."""
    (result, reason, detail, source_bytes, webp_bytes, seconds, picture), remembered, host, at = fields
    known = None
    if remembered is not None:
        size, mtime_ns, sidecar, fingerprint, was, why, more = remembered
        digest = bytes.fromhex(fingerprint)
        known = Known(int(size), int(mtime_ns), Sidecar(sidecar), digest, Result(was), str(why), str(more))
    result = Result(result)
    outcome = Outcome(
        path,
        result,
        _reason_in(result, reason),
        str(detail),
        int(source_bytes),
        int(webp_bytes),
        float(seconds),
        Picture(**picture) if picture else None,
    )
    return Ending(outcome, known, str(host), float(at))


def _reason_in(result: Result, reason: str | None) -> Skip | Failure | None:
    if reason is None:
        return None
    return Skip(reason) if result is Result.SKIPPED else Failure(reason)
