"""What the page is told of the backlog, and that a large history makes no large answer."""

import asyncio
import json
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from webpd.errors import UnfitError
from webpd.ledger.history import Event
from webpd.ledger.port import Directory
from webpd.ledger.sqlite import SqliteLedger
from webpd.model import Known, Result, Sidecar
from webpd.queue.port import Lane, QueueState
from webpd.service.pageview import PageView
from webpd.settings import database_of, load

ROOT = "/srv/tree"


class Service:
    """What the view asks of a service, with one root and as much to do as is set."""

    def __init__(self) -> None:
        self.waiting = self.in_flight = self.folders = self.done = self.skipped = 0
        self.conditions: Any = SimpleNamespace(now=list)
        self.started = True
        self.stopping = asyncio.Event()

    @property
    def keepers(self) -> Sequence[Any]:
        if not self.started:
            return []
        poller = SimpleNamespace(unsettled=self.folders, flush=lambda: None)
        return [SimpleNamespace(root=ROOT, poller=poller, state=lambda: {"orphans": 3, "prune_refused": 2})]

    @property
    def queue(self) -> QueueState:
        lanes = dict.fromkeys(Lane, 0)
        return QueueState({**lanes, Lane.BACKFILL: self.waiting}, 0, self.in_flight, dict.fromkeys(Lane, 0.0))

    @property
    def metrics(self) -> Any:
        return SimpleNamespace(outcomes={Result.CONVERTED: self.done, Result.SKIPPED: self.skipped})

    async def retry(self, paths: Sequence[str]) -> int:
        raise NotImplementedError


@pytest.fixture
def service() -> Service:
    return Service()


@pytest.fixture
def view(service: Service, tmp_path: Path) -> PageView:
    return PageView(service, load({}, {"WEBPD_STATE_DIR": str(tmp_path)}).settings)


def work(view: PageView) -> Mapping[str, Any]:
    told: Mapping[str, Any] = view.live()["work"]
    return told


# The backlog


def test_the_time_left_is_that_in_which_the_rest_is_done_at_the_speed_of_the_last_minutes(
    service: Service, view: PageView, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = 0.0
    monkeypatch.setattr(time, "monotonic", lambda: clock)
    for second in range(0, 65, 5):
        clock = float(second)
        service.done, service.waiting = 2 * second, 1000 - 2 * second
        view.sample(charted=True)
    told = work(view)
    assert told["pace"] == 120
    assert told["left"] == (1000 - 120) // 2
    assert told["backlog"][:2] == [1000, 990]
    # Folders that have yet to be looked at take longer than what waits in the queue.
    for second in range(65, 125, 5):
        clock = float(second)
        service.done, service.folders = 2 * second, 10_000 - 10 * (second - 60)
        view.sample(charted=True)
    assert work(view)["left"] == pytest.approx((10_000 - 600) / 10, rel=0.1)


def test_what_is_skipped_shortens_the_time_left_and_is_no_speed(
    service: Service, view: PageView, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = 0.0
    monkeypatch.setattr(time, "monotonic", lambda: clock)
    for second in range(0, 65, 5):
        clock = float(second)
        service.skipped, service.waiting = 2 * second, 1000 - 2 * second
        view.sample(charted=True)
    told = work(view)
    assert (told["pace"], told["left"]) == (0, (1000 - 120) // 2)


def test_no_time_is_told_while_nothing_moves_and_none_where_nothing_is_to_be_done(
    service: Service, view: PageView
) -> None:
    assert work(view)["left"] == 0
    service.folders = 7
    view.sample(charted=True)
    assert work(view)["left"] is None
    service.folders, service.in_flight = 0, 1
    assert work(view)["left"] is None
    service.in_flight = 0
    assert work(view)["left"] == 0


def test_the_chart_of_the_backlog_covers_an_hour_at_most(service: Service, view: PageView) -> None:
    for number in range(1000):
        service.waiting = number
        view.sample(charted=number % 2 == 0)
    assert work(view)["backlog"] == [*range(880, 1000, 2), 999]


# What is remembered


def test_however_many_images_are_known_the_answer_stays_small(view: PageView, service: Service, prove: bool) -> None:
    folders = 1000 if prove else 5
    ledger = SqliteLedger(database_of(view._settings))
    now = time.time()
    for number in range(folders):
        folder = f"iblock/{number:04}"
        names = [f"{n:03}.jpg" for n in range(1000)]
        ledger.record(ROOT, Directory(folder, 1, images=1000))
        ledger.history.note(
            [event(f"{folder}/{name}", now - folders + number, failed=n % 5 == 0) for n, name in enumerate(names)]
        )
        skipped = Known(1000, 1, Sidecar.STALE, b"12345678", Result.SKIPPED, "foreign_sidecar")
        ledger.learn(ROOT, folder, dict.fromkeys(names[::2], skipped))
    ledger.flush()
    begun = time.monotonic()
    told = view.remembered()
    foreign = view.leftovers("foreign", 100)
    if prove:
        print(f"{folders * 1000:,} images: told in {time.monotonic() - begun:.2f} s, {len(json.dumps(told)):,} bytes")
    ledger.close()
    assert told["totals"]["all"] == {"images": 800 * folders, "source": 800_000 * folders, "webp": 320_000 * folders}
    assert told["failures"]["total"] == 200 * folders
    assert told["leftovers"] == {"orphans": 3, "refused": 2, "foreign": 500 * folders}
    assert (len(told["recent"]), len(told["failures"]["shown"]), len(foreign)) == (24, 50, 100)
    assert foreign[0] == {"root": ROOT, "path": "iblock/0000/000.jpg"}
    assert len(json.dumps(told)) < 32_000


def test_while_it_starts_nothing_is_remembered_and_nothing_is_tried_again(view: PageView, service: Service) -> None:
    service.started = False
    assert view.remembered() == {}
    with pytest.raises(UnfitError, match="is starting"):
        asyncio.run(view.retry([]))


def event(path: str, at: float, *, failed: bool) -> Event:
    result, reason, size = (Result.FAILED, "damaged", 0) if failed else (Result.CONVERTED, "", 400)
    return Event(ROOT, path, 1000, 1, 160, 120, "jpeg", result, reason, "", size, 0.1, b"12345678", at, "cdn1")
