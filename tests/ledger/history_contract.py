"""What every history keeps, whatever it is made of."""

import itertools
import math
import os
import threading
import time
from collections.abc import Callable, Iterable
from dataclasses import replace

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from webpd.ledger.history import SECONDS, Event, History, HistoryReader, Total
from webpd.model import Failure, Result

ROOT = "/srv/resize_cache"
OTHER = "/srv/other \udcff"

# Noon of yesterday, UTC: recent enough for any history to keep it.
NOON = math.floor(time.time() / 86_400 - 1) * 86_400 + 43_200

# Opens the history: the same again each time, after closing the one it gave before.
Reopen = Callable[[], History]


def event(path: str = "a/photo.jpg", result: Result = Result.CONVERTED, at: float = NOON, root: str = ROOT) -> Event:
    return Event(
        root=root,
        path=path,
        size=1000,
        mtime_ns=1_790_000_000_123_456_789,
        width=640,
        height=480,
        format="jpeg",
        result=result,
        reason=str(Failure.DAMAGED) if result is Result.FAILED else "",
        detail="cut off in \udcff.jpg after 12 of 34 bytes — \ud800" if result is Result.FAILED else "",
        webp_bytes=700 if result is Result.CONVERTED else 0,
        seconds=0.25,
        fingerprint=b"\x00\xff345678",
        at=at,
        host="cdn-1",
    )


def failed(path: str, root: str = ROOT) -> Event:
    return event(path, Result.FAILED, root=root)


def failures_in_pages(history: HistoryReader, root: str | None, limit: int) -> list[tuple[str, str]]:
    """Return root and path of all that failed, asked for page by page."""
    found: list[tuple[str, str]] = []
    while page := history.failures(root, after=found[-1] if found else None, limit=limit):
        assert len(page) <= limit
        found += [(each.root, each.path) for each in page]
    return found


def begun(events: Iterable[Event], since: float, until: float, length: int) -> dict[tuple[int, Result], Total]:
    """Return the sums of all steps of that length that began in that time, as anybody would add them up."""
    found: dict[tuple[int, Result], list[Event]] = {}
    for each in events:
        start = int(each.at) // length * length
        if since <= start < until:
            found.setdefault((start, each.result), []).append(each)
    return {
        key: Total(
            len(those),
            sum(each.size for each in those),
            sum(each.webp_bytes for each in those),
            sum(each.seconds for each in those),
        )
        for key, those in found.items()
    }


# Seconds are multiples of 1/64, so that they add up to the same in any order.
times = st.floats(NOON - 3 * 86_400, NOON + 86_400) | st.integers(-4300, 1400).map(lambda n: NOON + 60.0 * n)
events = st.builds(
    lambda n, result, at, size, webp_bytes, ticks: replace(
        event(f"{n}.jpg", result, at), size=size, webp_bytes=webp_bytes, seconds=ticks / 64
    ),
    st.integers(0, 9),
    st.sampled_from(Result),
    times,
    st.integers(0, 1 << 31),
    st.integers(0, 1 << 31),
    st.integers(0, 1000),
)


class HistoryContract:
    """Subclasses give the fixtures ``reopen`` and ``fresh``: the latter opens an empty history each time."""

    @pytest.fixture
    def history(self, reopen: Reopen) -> History:
        return reopen()

    def test_nothing_is_told_of_what_never_happened(self, history: History) -> None:
        assert history.image(ROOT, "a/photo.jpg") is None
        assert history.failures() == history.failures(ROOT) == []
        assert history.reasons() == {}
        assert history.totals(0, NOON) == {}
        assert history.series(0, NOON, "minute") == history.series(0, NOON, "day") == []
        history.forget(ROOT, "")
        history.note([])

    def test_what_happened_is_told_as_it_was_noted_after_a_restart_too(self, history: History, reopen: Reopen) -> None:
        noted = [event("a/1.jpg"), failed("a/\udcff.png"), event("ж.jpg", Result.KEPT_ORIGINAL, root=OTHER)]
        history.note(noted)
        assert [history.image(each.root, each.path) for each in noted] == noted
        again = reopen()
        assert [again.image(each.root, each.path) for each in noted] == noted
        assert again.failures() == noted[1:2]
        assert again.image(OTHER, "a/1.jpg") is None
        assert again.totals(0, NOON + 60)[Result.CONVERTED] == Total(1, 1000, 700, 0.25)

    def test_the_latest_of_an_image_is_kept_in_whatever_order_it_is_noted(self, history: History) -> None:
        three = [event(result=Result.FAILED, at=NOON + n) for n in range(3)]
        for order in itertools.permutations(range(3)):
            history.forget(ROOT, "")
            for n in order:
                history.note([three[n]])
            assert history.image(ROOT, "a/photo.jpg") == three[2]
            history.forget(ROOT, "")
            history.note([three[n] for n in order])
            assert history.image(ROOT, "a/photo.jpg") == three[2]

    def test_what_failed_and_was_converted_later_is_no_failure_any_more(self, history: History) -> None:
        history.note([failed("a/1.jpg"), failed("a/2.jpg")])
        history.note([event("a/1.jpg", at=NOON + 1), event("a/3.jpg")])
        assert history.failures() == [failed("a/2.jpg")]
        history.note([replace(failed("a/3.jpg"), at=NOON + 1)])
        assert [each.path for each in history.failures()] == ["a/2.jpg", "a/3.jpg"]

    def test_failures_of_all_roots_are_counted_by_reason(self, history: History) -> None:
        crashed = [replace(failed(f"{n}.jpg", OTHER), reason=str(Failure.CRASHED)) for n in range(3)]
        history.note([failed("1.jpg"), failed("2.jpg"), event("3.jpg"), *crashed])
        assert history.reasons() == {"damaged": 2, "crashed": 3}
        history.note([event("1.jpg", at=NOON + 1), replace(failed("2.jpg"), reason=str(Failure.CRASHED), at=NOON + 1)])
        history.forget(OTHER, "0.jpg")
        assert history.reasons() == {"crashed": 3}

    def test_failures_come_in_pages_in_the_order_of_the_bytes_of_root_and_path(self, history: History) -> None:
        raw = [b"a", b"a b", b"a-b", b"a/b", b"a/b/c", b"a0", "ж".encode(), b"\xff", b"\xff/x", b"\xff\xff"]
        paths = [os.fsdecode(path) for path in raw]
        roots = sorted([ROOT, OTHER, "/srv", "/srv/resize_cache2"], key=os.fsencode)
        history.note([failed(path, root) for path in reversed(paths) for root in reversed(roots)])
        history.note([event(f"{path}.jpg", root=root) for path in paths for root in roots])
        for limit in (1, 2, 3, 10, 11, 1000):
            assert failures_in_pages(history, None, limit) == list(itertools.product(roots, paths))
            assert failures_in_pages(history, ROOT, limit) == [(ROOT, path) for path in paths]
        assert failures_in_pages(history, "/srv/never seen", 10) == []

    def test_paging_goes_on_where_it_was_though_failures_come_and_go(self, history: History) -> None:
        history.note([failed(f"{n}.jpg") for n in range(6)])
        assert [each.path for each in history.failures(limit=3)] == ["0.jpg", "1.jpg", "2.jpg"]
        history.note([event("2.jpg", at=NOON + 1), failed("00.jpg")])
        assert [each.path for each in history.failures(after=(ROOT, "2.jpg"))] == ["3.jpg", "4.jpg", "5.jpg"]

    def test_a_forgotten_folder_takes_all_below_it_along_and_nothing_beside_it(self, history: History) -> None:
        beside = ["x/a-.jpg", "x/a0", "x/a%/1.jpg", "x/A/1.jpg", "x/a b/1.jpg", "y/x/a/1.jpg"]
        below = ["x/a/1.jpg", "x/a/b/1.jpg", "x/a/\udcff.jpg"]
        history.note([failed(path) for path in (*beside, *below)])
        history.note([failed("x/a/1.jpg", OTHER)])
        history.forget(ROOT, "x/a")
        assert [path for path in below if history.image(ROOT, path)] == []
        assert [each.path for each in history.failures(ROOT)] == sorted(beside)
        assert history.image(OTHER, "x/a/1.jpg")

    def test_a_forgotten_original_and_a_forgotten_root_still_count_in_the_totals(self, history: History) -> None:
        history.note([failed("a/1.jpg"), failed("a/2.jpg"), failed("a/1.jpg", OTHER)])
        history.forget(ROOT, "a/1.jpg")
        assert [each.path for each in history.failures(ROOT)] == ["a/2.jpg"]
        history.forget(ROOT, "")
        assert [each.root for each in history.failures()] == [OTHER]
        assert history.totals(0, NOON + 1)[Result.FAILED].images == 3

    @settings(
        max_examples=60,
        deadline=None,
        # Each example begins with an empty history, and each subclass has its own.
        suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.differing_executors],
    )
    @given(st.lists(st.lists(events, max_size=8), max_size=8), times, times)
    def test_totals_are_the_sums_of_what_was_noted_in_that_time(
        self, fresh: Reopen, batches: list[list[Event]], one: float, other: float
    ) -> None:
        since, until = sorted((one, other))
        history = fresh()
        noted = [each for batch in batches for each in batch]
        for batch in batches:
            history.note(batch)
        for step, length in SECONDS.items():
            expected = begun(noted, since, until, length)
            series = history.series(since, until, step)
            assert {(start, result): total for start, result, total in series} == expected
            assert [(start, result) for start, result, _ in series] == sorted(expected)
        expected = begun(noted, since, until, 60)
        whole = {result: [total for (_, of), total in expected.items() if of is result] for _, result in expected}
        assert history.totals(since, until) == {
            result: Total(
                sum(each.images for each in those),
                sum(each.source_bytes for each in those),
                sum(each.webp_bytes for each in those),
                sum(each.seconds for each in those),
            )
            for result, those in whole.items()
        }

    def test_threads_may_note_and_ask_at_once_and_nothing_is_lost(self, history: History, prove: bool) -> None:
        batches = 200 if prove else 40
        errors: list[BaseException] = []

        def note(thread: int) -> None:
            try:
                for n in range(batches):
                    history.note([failed(f"{thread}/{n:04}-{m}.jpg") for m in range(5)])
                    history.note([event("same.jpg", at=NOON + n)])
                    assert history.image(ROOT, f"{thread}/{n:04}-4.jpg")
                    history.totals(0, NOON + 1)
            except BaseException as error:  # told by the test below
                errors.append(error)

        threads = [threading.Thread(target=note, args=(number,)) for number in range(2)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert errors == []
        assert len(failures_in_pages(history, ROOT, 1000)) == 2 * 5 * batches
        assert history.totals(0, NOON + 86_400)[Result.FAILED].images == 2 * 5 * batches
        assert history.totals(0, NOON + 86_400)[Result.CONVERTED].images == 2 * batches
        assert history.image(ROOT, "same.jpg") == event("same.jpg", at=NOON + batches - 1)
