"""What the page shows of the running service."""

import asyncio
import contextlib
import itertools
import os
import time
import urllib.parse
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

from webpd import __version__
from webpd.errors import UnfitError
from webpd.ledger.history import Event, RecentReader
from webpd.ledger.port import LedgerReader
from webpd.ledger.sqlite import read_ledger
from webpd.ledger.sqlite_history import read_history
from webpd.model import Result, Skip
from webpd.printable import printable
from webpd.queue.port import QueueState
from webpd.service.condition import Conditions, State
from webpd.service.keeper import Keeper
from webpd.service.shared import host_name
from webpd.settings import Settings, database_of
from webpd.telemetry.metrics import Metrics
from webpd.web.page.subject import Leftovers

_SAMPLE = 5.0
"""Seconds between two samples of the backlog."""
_CHARTED = 12
"""Every so many samples one is charted."""
_MOST_CHARTED = 60
_WINDOW = 120
"""Samples by which the time left is told: ten minutes."""
_PACE = 12
"""Samples of the last minute, by which the speed is told."""
_RECENT = 24
_FAILURES = 50
_DAYS = 30
_MINUTES = 60


class Standing(Protocol):
    """What is asked of the service, on its event loop; all of it answers at once."""

    @property
    def keepers(self) -> Sequence[Keeper]: ...
    @property
    def queue(self) -> QueueState | None: ...
    @property
    def conditions(self) -> Conditions: ...
    @property
    def metrics(self) -> Metrics: ...
    @property
    def stopping(self) -> asyncio.Event: ...
    async def retry(self, paths: Sequence[str]) -> int: ...


class _Sample(NamedTuple):
    at: float
    made: int
    """Images that were converted, or whose WebP was found to be no better."""
    done: int
    """All that came to an end."""
    waiting: int
    folders: int


@dataclass(frozen=True, slots=True)
class _Memory:
    ledger: LedgerReader
    history: RecentReader


class PageView:
    """Implements ``PageSubject`` for the service. Belongs to its event loop, but where a thread is named."""

    def __init__(self, service: Standing, settings: Settings) -> None:
        self._service = service
        self._settings = settings
        self._samples: deque[_Sample] = deque(maxlen=_WINDOW)
        self._charted: deque[int] = deque(maxlen=_MOST_CHARTED)

    async def run(self) -> None:
        """Take samples until cancelled."""
        for number in itertools.count():
            self.sample(charted=number % _CHARTED == 0)
            await asyncio.sleep(_SAMPLE)

    def sample(self, *, charted: bool) -> None:
        """Note how much there is to do now, and whether the chart shows it."""
        now = self._now()
        self._samples.append(now)
        if charted:
            self._charted.append(now.waiting + now.folders)

    def live(self) -> Mapping[str, Any]:
        service = self._service
        now = self._now()
        then = self._minute_ago(now)
        queue = service.queue
        in_flight = queue.in_flight if queue else 0
        host = {"host": host_name(self._settings), "version": __version__, "role": self._settings.role}
        work = {
            "pace": round(60 * (now.made - then.made) / max(now.at - then.at, _SAMPLE), 1),
            "waiting": now.waiting,
            "in_flight": in_flight,
            "folders": now.folders,
            "left": self._left(now, in_flight),
            "backlog": [*self._charted, now.waiting + now.folders],
        }
        return {"service": host, "parts": [*_parts(service.conditions)], "work": work}

    def remembered(self) -> Mapping[str, Any]:
        if self._settings.role == "work":
            return {"trouble": "no_history"}
        if not self._service.keepers:  # it is starting: what is remembered may not be there yet, or be another's
            return {}
        memory = self._memory()
        for keeper in self._service.keepers:
            if keeper.poller:
                keeper.poller.flush()
        history, now = memory.history, time.time()
        reasons = history.reasons()
        return {
            "totals": {name: _sums(history, since, now) for name, since in _since(now)},
            "charts": _charts(history, now),
            "recent": [_as_image(event) | _sizes(event) for event in history.recent(_RECENT)],
            "failures": {
                "total": sum(reasons.values()),
                "reasons": dict(reasons),
                "shown": [_as_image(event) | _reason(event) for event in history.failures(limit=_FAILURES)],
            },
            "leftovers": self._counts(memory.ledger),
        }

    def leftovers(self, kind: Leftovers, limit: int) -> Sequence[Mapping[str, str]]:
        found = self._orphans() if kind == "orphans" else self._foreign(limit)
        return [_named(root, path) for root, path in itertools.islice(found, limit)]

    def answers(self, root: str) -> bool | None:
        return next((keeper.answers for keeper in self._service.keepers if keeper.root == root), None)

    async def retry(self, paths: Sequence[str]) -> int:
        if self._settings.role == "work":
            raise UnfitError("this host remembers no failures: ask the one that watches")
        if not self._service.keepers:
            raise UnfitError("the service is starting: try again in a moment")
        return await self._service.retry(paths)

    async def pause(self, seconds: float) -> bool:
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._service.stopping.wait(), seconds)
        return not self._service.stopping.is_set()

    def _memory(self) -> _Memory:
        """Return what is remembered, read beside who writes it: nobody waits for the page. Raises ``UnfitError``."""
        path = database_of(self._settings)
        return _Memory(read_ledger(path), read_history(path))

    def _now(self) -> _Sample:
        queue, outcomes = self._service.queue, self._service.metrics.outcomes
        pollers = [keeper.poller for keeper in self._service.keepers if keeper.poller]
        return _Sample(
            time.monotonic(),
            outcomes.get(Result.CONVERTED, 0) + outcomes.get(Result.KEPT_ORIGINAL, 0),
            sum(outcomes.values()),
            sum(queue.depth.values()) if queue else 0,
            sum(poller.unsettled for poller in pollers),
        )

    def _minute_ago(self, now: _Sample) -> _Sample:
        """Return how it was a minute ago, or at the first look, if that was later."""
        return self._samples[max(0, len(self._samples) - _PACE)] if self._samples else now

    def _left(self, now: _Sample, in_flight: int) -> int | None:
        """Return the seconds until all is done, as things went the last minutes; None where there is no telling."""
        queued = now.waiting + in_flight
        if not queued and not now.folders:
            return 0
        then = self._minute_ago(now)
        pace = (now.done - then.done) / max(now.at - then.at, _SAMPLE)  # whatever comes of one, it waits no more
        guesses = [queued / pace] if pace > 0 else []
        then = max(self._samples, key=lambda sample: sample.folders, default=now)
        if then.folders > now.folders > 0:
            guesses.append(now.folders * (now.at - then.at) / (then.folders - now.folders))
        return max(1, round(max(guesses))) if guesses else None

    def _counts(self, ledger: LedgerReader) -> Mapping[str, int]:
        foreign = (Result.SKIPPED, str(Skip.FOREIGN_SIDECAR))
        states = [keeper.state() for keeper in self._service.keepers]
        return {
            "orphans": sum(state.get("orphans", 0) for state in states),
            "refused": sum(state.get("prune_refused", 0) for state in states),
            "foreign": sum(ledger.results(keeper.root).get(foreign, 0) for keeper in self._service.keepers),
        }

    def _orphans(self) -> Iterator[tuple[str, str]]:
        for keeper in self._service.keepers:
            if keeper.poller:
                # Copies, each made at one stroke: the thread that polls changes them.
                for orphans in list(keeper.poller.reconciler.orphans.values()):
                    for path in list(orphans):
                        yield keeper.root, os.path.relpath(path, keeper.root)

    def _foreign(self, limit: int) -> Iterator[tuple[str, str]]:
        ledger = self._memory().ledger
        for keeper in self._service.keepers:
            for path in ledger.files(keeper.root, Result.SKIPPED, str(Skip.FOREIGN_SIDECAR), limit):
                yield keeper.root, path


# What is told, ready for JSON


def _parts(conditions: Conditions) -> Iterator[Mapping[str, Any]]:
    """Yield how each part is that is not off; the backlog has its own place on the page."""
    for one in conditions.now():
        if one.state is not State.OFF and one.part != "queue":
            about = {"part": one.part, "subject": one.subject, "state": one.state, "how": one.key}
            reason, cure = ("", "") if one.state is State.OK else (printable(one.reason), printable(one.cure))
            yield {**about, "since": round(conditions.since(one)), "reason": reason, "cure": cure}


def _since(now: float) -> Iterator[tuple[str, float]]:
    yield from (("all", 0.0), ("day", now - 86_400), ("hour", now - 3600))


def _sums(history: RecentReader, since: float, now: float) -> Mapping[str, int]:
    total = history.totals(since, now).get(Result.CONVERTED)
    if total is None:
        return {"images": 0, "source": 0, "webp": 0}
    return {"images": total.images, "source": total.source_bytes, "webp": total.webp_bytes}


def _charts(history: RecentReader, now: float) -> Mapping[str, Sequence[int]]:
    """Return what was saved on each of the last days, and how many images were done in each of the last minutes."""
    saved, rate = [0] * _DAYS, [0] * _MINUTES
    today, minute = int(now // 86_400), int(now // 60)
    for start, result, total in history.series((today - _DAYS + 1) * 86_400, now, "day"):
        if result is Result.CONVERTED:
            saved[start // 86_400 - today - 1] += total.source_bytes - total.webp_bytes
    for start, result, total in history.series((minute - _MINUTES + 1) * 60, now, "minute"):
        if result is not Result.FRESH:
            rate[start // 60 - minute - 1] += total.images
    return {"saved": saved, "rate": rate}


def _named(root: str, path: str) -> dict[str, str]:
    return {"root": printable(root), "path": printable(path)}


def _as_image(event: Event) -> dict[str, Any]:
    query = {"root": os.fsencode(event.root), "path": os.fsencode(event.path)}
    ref = urllib.parse.urlencode(query, quote_via=urllib.parse.quote)
    return {**_named(event.root, event.path), "ref": ref, "at": round(event.at, 3)}


def _sizes(event: Event) -> dict[str, Any]:
    return {"source": event.size, "webp": event.webp_bytes}


def _reason(event: Event) -> dict[str, Any]:
    return {"reason": event.reason, "detail": printable(event.detail[:500])}
