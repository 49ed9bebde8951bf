"""What goes between hosts arrives as it was sent, and nothing else is taken for it."""

import json
import os
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.queue.contract import BACKFILL, ROOT, job
from webpd.model import Ending, Failure, Job, Known, Outcome, Picture, Result, Sidecar, Skip
from webpd.queue.cluster.wire import Batch, Item, Letter, Report, ending_in, ending_out, place_of
from webpd.queue.port import Lane

NAMES = st.binary(min_size=1, max_size=20).map(os.fsdecode).filter(lambda name: not set(name) & set("/\0"))
PATHS = st.lists(NAMES.filter(lambda name: name not in {".", ".."}), min_size=1, max_size=4).map("/".join)
NUMBERS = st.integers(0, 2**62)
TEXTS = st.text(max_size=20) | NAMES
JOBS = st.builds(
    lambda path, *rest: Job(f"{ROOT}/{path}", ROOT, *rest),
    PATHS,
    NUMBERS,
    st.integers(-(2**62), 2**62),
    st.sampled_from(Sidecar),
    st.booleans(),
)
ITEMS = st.builds(Item, JOBS, st.sampled_from(Lane), st.integers(0, 100))
PICTURES = st.builds(Picture, NUMBERS, NUMBERS, st.sampled_from(["jpeg", "png"]), NUMBERS, st.booleans())
REASONS = {Result.SKIPPED: st.sampled_from(Skip), Result.FAILED: st.sampled_from(Failure)}
SECONDS = st.integers(0, 864_000_000).map(lambda number: number / 10_000)  # up to a day, the longest delay there is


@st.composite
def endings(draw: st.DrawFn) -> Ending:
    result = draw(st.sampled_from(Result))
    reason = draw(REASONS.get(result, st.none()))
    known = st.builds(
        Known, NUMBERS, NUMBERS, st.sampled_from(Sidecar), st.binary(), st.sampled_from(Result), TEXTS, TEXTS
    )
    outcome = Outcome(
        "", result, reason, draw(TEXTS), draw(NUMBERS), draw(NUMBERS), draw(SECONDS), draw(st.none() | PICTURES)
    )
    return Ending(outcome, draw(st.none() | known), draw(TEXTS), draw(SECONDS))


REPORTS = st.builds(Report, TEXTS, NUMBERS, ending=st.none() | endings()) | st.builds(
    Report, TEXTS, NUMBERS, again=JOBS, delay=st.none() | SECONDS
)


@given(key=TEXTS, owner=TEXTS, items=st.lists(ITEMS, max_size=5))
def test_a_batch_arrives_as_it_was_sent(key: str, owner: str, items: list[Item]) -> None:
    batch = Batch(key, owner, items)
    assert Batch.decode(batch.encode().encode("ascii"), ROOT) == batch


@given(worker=TEXTS, room=NUMBERS, reports=st.lists(REPORTS, max_size=5))
def test_a_letter_arrives_as_it_was_sent(worker: str, room: int, reports: list[Report]) -> None:
    letter = Letter("place", worker, room, reports)
    assert Letter.decode(letter.encode().encode("ascii"), {"place": ROOT}) == letter


@given(ending=endings())
def test_an_ending_arrives_as_it_was_sent(ending: Ending) -> None:
    assert ending_in(json.loads(json.dumps(ending_out(ending)))) == ending


@pytest.mark.parametrize(
    "path", ["/etc/passwd.jpg", "../x.jpg", "a/../../x.jpg", "a/./x.jpg", "a//x.jpg", "", "a/", "a\0.jpg", None, 7]
)
def test_a_path_that_is_not_below_the_root_is_refused(path: object) -> None:
    batch = json.loads(Batch("key", "owner", [Item(job("a/0.jpg"), BACKFILL, 0)]).encode())
    batch["items"][0][0] = path
    with pytest.raises(ValueError, match=r"out of the root|not a batch"):
        Batch.decode(json.dumps(batch), ROOT)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(), lambda inner: st.lists(inner, max_size=4)
)


@given(garbage=st.binary() | JSON.map(json.dumps) | st.dictionaries(st.text(), JSON).map(json.dumps))
def test_garbage_is_told_as_such(garbage: str | bytes) -> None:
    with pytest.raises(ValueError, match=r"."):
        Batch.decode(garbage, ROOT)
    with pytest.raises(ValueError, match=r"."):
        Letter.decode(garbage, {"place": ROOT})


@given(fields=st.lists(JSON, min_size=4, max_size=4))
def test_a_letter_with_a_garbled_report_is_told_as_such(fields: list[object]) -> None:
    with pytest.raises(ValueError, match=r"."):
        Letter.decode(json.dumps(["place", "worker", 1, [[*fields, 0], 0]]), {"place": ROOT})


def test_each_root_under_each_setting_has_a_place_of_its_own() -> None:
    places = {place_of(root, settings) for root in ("/a", "/b", "/a/b") for settings in (b"1", b"2")}
    assert len(places) == 6
    assert all(place.startswith("webpd:q:") for place in places)


def test_a_version_of_a_job_is_told_from_another() -> None:
    batch = Batch("key", "owner", [Item(replace(job("a/0.jpg"), mtime_ns=2**63 - 1), BACKFILL, 3)])
    assert Batch.decode(batch.encode(), ROOT).items[0].job.mtime_ns == 2**63 - 1
