"""One look for all who watch, and nobody kept waiting by a history that is slow, broken or large."""

import asyncio
import contextlib
import http.client
import json
import threading
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import write
from tests.web.site import Site
from webpd.errors import UnfitError
from webpd.web.page.feed import Feed
from webpd.web.page.texts import Phrasebook


class Subject:
    """What a feed asks, with a history as slow or broken as ``history`` makes it."""

    def __init__(self, history: Callable[[], Mapping[str, Any]], looks: int = 3) -> None:
        self.history = history
        self.asked: Counter[str] = Counter()
        self._looks = looks

    def live(self) -> Mapping[str, Any]:
        self.asked["live"] += 1
        return {"work": {"waiting": self.asked["live"] // 60}}

    def remembered(self) -> Mapping[str, Any]:
        self.asked["remembered"] += 1
        return self.history()

    async def pause(self, seconds: float) -> bool:
        await asyncio.sleep(min(seconds, 0.01))
        self._looks -= 1
        return self._looks > 0

    def leftovers(self, kind: Any, limit: int) -> Sequence[Mapping[str, str]]:
        raise NotImplementedError

    def answers(self, root: str) -> bool | None:
        raise NotImplementedError

    async def retry(self, paths: Sequence[str]) -> int:
        raise NotImplementedError


async def until(feed: Feed, condition: Callable[[dict[str, Any]], bool]) -> dict[str, Any]:
    """Return what the feed tells once that holds."""
    for _ in range(3000):
        told = await feed.sections()
        if condition(told):
            return told
        await asyncio.sleep(0.02)
    raise AssertionError(told)


def test_many_who_watch_cost_one_look() -> None:
    subject = Subject(lambda: {"totals": 7})

    async def scene() -> list[dict[str, Any]]:
        feed = Feed(subject)
        return await asyncio.gather(*(feed.sections() for _ in range(50)))

    assert all(told == {"work": {"waiting": 0}, "totals": 7, "trouble": None} for told in asyncio.run(scene()))
    assert subject.asked["remembered"] == 1


def test_while_the_history_hangs_what_is_known_without_it_is_told() -> None:
    hang = threading.Event()
    subject = Subject(lambda: {"totals": hang.wait()})

    async def scene() -> None:
        feed = Feed(subject)
        for _ in range(3):
            assert await feed.sections() == {"work": {"waiting": 0}}
        assert subject.asked["remembered"] == 1
        hang.set()
        await until(feed, lambda told: "totals" in told)

    asyncio.run(asyncio.wait_for(scene(), 60))


def test_a_history_that_can_not_be_read_is_told_of_and_what_was_read_before_stays(
    caplog: pytest.LogCaptureFixture,
) -> None:
    answers = iter([{"totals": 1}])

    def read() -> Mapping[str, Any]:
        with contextlib.suppress(StopIteration):
            return next(answers)
        raise UnfitError("ledger.sqlite: is damaged")

    async def scene() -> None:
        feed = Feed(Subject(read))
        assert (await feed.sections())["totals"] == 1
        told = await until(feed, lambda told: told["trouble"] is not None)
        assert told == {"work": {"waiting": 0}, "totals": 1, "trouble": "ledger.sqlite: is damaged"}

    asyncio.run(asyncio.wait_for(scene(), 60))


def test_only_what_has_changed_is_sent_again_until_the_service_stops() -> None:
    numbers = iter(range(100))
    subject = Subject(lambda: {"same": "\n é", "other": next(numbers)}, looks=120)

    async def scene() -> list[str]:
        return [event.decode("ascii") async for event in Feed(subject).events(Phrasebook({}))]

    events = [event for batch in asyncio.run(asyncio.wait_for(scene(), 60)) for event in batch.split("\n\n") if event]
    names = Counter(event.partition("\n")[0].removeprefix("event: ") for event in events)
    assert names["same"] == names["trouble"] == 1
    assert names["other"] >= 2
    assert names["work"] == 3
    (same,) = [event for event in events if event.startswith("event: same\n")]
    assert json.loads(same.partition("data: ")[2]) == "\n é"


# The service


def test_no_more_than_some_may_watch_and_those_who_leave_make_room(site: Site) -> None:
    watching = [http.client.HTTPConnection("127.0.0.1", site.service.health_port, timeout=60) for _ in range(20)]
    try:
        answers = []
        for one in watching:
            one.request("GET", "/events")
            answers.append(one.getresponse())
        assert sorted({answer.status for answer in answers}) == [200, 503]
        assert next(answer for answer in answers if answer.status == 503).getheader("retry-after")
        assert site.service.alive()
    finally:
        for one in watching:
            one.close()
    site.service.wait_until(lambda: site.ask("/events").status == 200, "there is room again")


def test_what_the_page_is_told_is_true_and_stays_small(site: Site, photograph: Callable[..., bytes]) -> None:
    for number in range(70):
        write(site.root / "many" / f"{number}.jpg", photograph(80))
    before = site.sections()["totals"]["all"]["images"]

    def known() -> bool:
        done = len(list(Path(site.root).rglob("*.webp"))) - 1  # without the foreign one
        return bool(site.sections()["totals"]["all"]["images"] >= max(done, 70))

    site.service.wait_until(known, "all are told of")
    told = site.sections()
    assert told["totals"]["all"]["images"] >= before
    assert told["totals"]["hour"] == told["totals"]["day"] == told["totals"]["all"]
    assert len(told["recent"]) == 24
    assert [image["at"] for image in told["recent"]] == sorted((image["at"] for image in told["recent"]), reverse=True)
    newest = told["recent"][0]
    assert newest["webp"] == (site.root / f"{newest['path']}.webp").stat().st_size
    assert newest["source"] == (site.root / newest["path"]).stat().st_size
    assert site.ask(f"/picture?{newest['ref']}&kind=webp").status == 200
    assert sum(told["charts"]["rate"]) >= told["totals"]["all"]["images"]
    assert told["charts"]["saved"][-1] + told["charts"]["saved"][-2] == (
        told["totals"]["all"]["source"] - told["totals"]["all"]["webp"]
    )
    assert told["failures"]["total"] == sum(told["failures"]["reasons"].values()) >= 1
    assert told["leftovers"]["foreign"] == 1
    assert told["trouble"] is None
    assert len(json.dumps(told)) < 32_000


def test_sidecars_left_without_original_are_counted_and_listed(site: Site, photograph: Callable[..., bytes]) -> None:
    gone = write(site.root / "gone" / "gone.jpg", photograph())
    site.service.wait_until(Path(f"{gone}.webp").exists)
    gone.unlink()
    site.service.wait_until(lambda: site.sections()["leftovers"]["orphans"] == 1, "the orphan is counted")
    files = json.loads(site.ask("/leftovers?kind=orphans").body)["files"]
    assert files == [{"root": str(site.root), "path": "gone/gone.jpg.webp"}]
    write(gone, photograph())
    site.service.wait_until(lambda: site.sections()["leftovers"]["orphans"] == 0, "it is none any more")
