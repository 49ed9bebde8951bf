"""The history on SQLite: the contract, its bounds, a killed writer, damage, a full disk."""

import contextlib
import itertools
import os
import random
import signal
import sqlite3
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from tests.ledger.history_contract import NOON, OTHER, ROOT, HistoryContract, Reopen, event, failed, failures_in_pages
from tests.ledger.writer import writing
from webpd.errors import UnfitError
from webpd.ledger import sqlite_history
from webpd.ledger.history import History, RecentReader, Total
from webpd.ledger.port import Directory, LedgerReader
from webpd.ledger.sqlite import SqliteLedger, read_ledger
from webpd.ledger.sqlite_history import SqliteHistory, read_history
from webpd.model import Result

_DAY = 86_400
_PAGE = 4096


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "state" / "ledger.sqlite"


@pytest.fixture
def reopen(file: Path) -> Iterator[Reopen]:
    current: list[SqliteLedger] = []

    def again() -> History:
        while current:
            current.pop().close()
        current.append(SqliteLedger(str(file)))
        return current[0].history

    yield again
    for ledger in current:
        ledger.close()


@pytest.fixture
def fresh(reopen: Reopen, file: Path) -> Reopen:
    def anew() -> History:
        reopen()
        with contextlib.closing(sqlite3.connect(file)) as connection, connection:
            connection.execute("DELETE FROM image")
            connection.execute("DELETE FROM total")
        return reopen()

    return anew


@pytest.fixture
def ledger(file: Path) -> Iterator[SqliteLedger]:
    with contextlib.closing(SqliteLedger(str(file))) as one:
        yield one


class TestSqliteHistory(HistoryContract):
    """The contract, on SQLite."""


def test_the_ledger_goes_on_when_the_history_beside_it_is_closed(file: Path) -> None:
    ledger = SqliteLedger(str(file))
    ledger.history.note([event()])
    ledger.history.close()
    ledger.record(ROOT, Directory("a", 5))
    ledger.forget(ROOT, "")
    ledger.close()
    ledger.history.close()
    assert read_history(str(file)).image(ROOT, "a/photo.jpg") == event()


def test_a_ledger_of_the_first_version_is_set_aside_and_the_history_begins(reopen: Reopen, file: Path) -> None:
    file.parent.mkdir()
    with contextlib.closing(sqlite3.connect(file)) as connection:
        connection.execute("CREATE TABLE root (id INTEGER PRIMARY KEY, path BLOB)")
        connection.execute("PRAGMA user_version = 1")
    history = reopen()
    history.note([event()])
    assert history.image(ROOT, "a/photo.jpg") == event()
    assert len(list(file.parent.glob("ledger.sqlite.damaged-*"))) == 1


# The last conversions


def test_the_last_conversions_are_told_newest_first_of_all_roots(ledger: SqliteLedger) -> None:
    history = ledger.history
    assert history.recent(10) == []
    noted = [event(f"{n}.jpg", at=NOON + n, root=(ROOT, OTHER)[n % 2]) for n in range(5)]
    history.note(
        [noted[3], failed("failed.jpg"), event("kept.jpg", Result.KEPT_ORIGINAL, NOON + 9), *noted[:3], noted[4]]
    )
    assert history.recent(10) == noted[::-1]
    assert history.recent(2) == [noted[4], noted[3]]
    again = event("0.jpg", at=NOON + 10)
    history.note([again])
    assert history.recent(2) == [again, noted[4]]


def test_conversions_behind_too_many_other_images_are_not_looked_for(
    ledger: SqliteLedger, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sqlite_history, "MOST_RECENT", 10)
    ledger.history.note([event("old.jpg"), *(replace(failed(f"{n}.jpg"), at=NOON + 1) for n in range(9))])
    assert [each.path for each in ledger.history.recent(5)] == ["old.jpg"]
    ledger.history.note([replace(failed("9.jpg"), at=NOON + 1)])
    assert ledger.history.recent(5) == []


# What is kept


def test_minutes_are_kept_for_35_days_and_days_for_400(reopen: Reopen) -> None:
    history = reopen()
    ages = (1, 34, 37, 398, 402)
    moments = [time.time() - age * _DAY for age in ages]
    history.note([event(f"{age}.jpg", at=at) for age, at in zip(ages, moments, strict=True)])
    history = reopen()
    now = time.time()
    history.note([event("now.jpg", Result.FAILED, now)])  # the first of a process lets go of what is old
    minutes = [start for start, result, _ in history.series(0, now, "minute") if result is Result.CONVERTED]
    assert minutes == [int(at) // 60 * 60 for at in reversed(moments[:2])]
    days = [start for start, result, _ in history.series(0, now, "day") if result is Result.CONVERTED]
    assert days == [int(at) // _DAY * _DAY for at in reversed(moments[:4])]
    assert history.totals(0, now)[Result.CONVERTED] == Total(4, 4000, 2800, 1.0)
    day = int(moments[2]) // _DAY * _DAY
    assert history.totals(day, day + _DAY)[Result.CONVERTED].images == 1
    assert history.totals(day + 60, day + _DAY) == {}  # a part of that day can't be told any more


def test_of_too_many_images_the_oldest_go_first(reopen: Reopen, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sqlite_history, "MOST_IMAGES", 100)
    monkeypatch.setattr(sqlite_history, "_PURGE_EVERY", 50)
    monkeypatch.setattr(sqlite_history, "_PURGE_BATCH", 7)
    history = reopen()
    for n in range(0, 1000, 10):
        # Every second one is older than all before it, so that the order of noting is not that of time.
        history.note([failed(f"{m:04}.jpg") if m % 2 else event(f"{m:04}.jpg", at=NOON - m) for m in range(n, n + 10)])
    assert sum(history.image(ROOT, f"{m:04}.jpg") is not None for m in range(1000)) < 100 + 50
    history = reopen()
    history.note([failed("last.jpg")])
    assert len(failures_in_pages(history, ROOT, 1000)) == 100
    assert not any(history.image(ROOT, f"{m:04}.jpg") for m in range(0, 1000, 2))
    assert sum(total.images for total in history.totals(0, NOON + _DAY).values()) == 1001


def test_the_file_does_not_grow_when_the_same_images_come_again(reopen: Reopen, file: Path) -> None:
    sizes = []
    for turn in range(4):
        history = reopen()
        for n in range(20):
            history.note(
                [event(f"{n}/{m}.jpg", Result.FAILED if turn % 2 else Result.FRESH, NOON + turn) for m in range(50)]
            )
        history.flush()
        reopen()
        sizes.append(file.stat().st_size)
    assert sizes[3] <= sizes[1] * 1.3


# A killed process


def test_a_killed_process_loses_at_most_its_last_batch_and_totals_and_images_agree(
    file: Path, caplog: pytest.LogCaptureFixture
) -> None:
    count = 0
    for flushes in (1, 3, 2):
        with writing(file, count) as writer:
            assert writer.stdout
            flushed = [int(line) for line in itertools.islice(writer.stdout, flushes)]
            os.kill(writer.pid, signal.SIGKILL)
        ledger = SqliteLedger(str(file))
        history = ledger.history
        count, rest = divmod(history.totals(0, NOON + _DAY)[Result.CONVERTED].images, 5)
        assert rest == 0
        assert count > flushed[-1]
        assert all(history.image(ROOT, f"{n:09}-{m}.jpg") for n in range(count) for m in range(5))
        assert history.image(ROOT, f"{count:09}-0.jpg") is None
        ledger.close()
        with contextlib.closing(sqlite3.connect(file)) as connection:
            assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
    assert not caplog.records


# Damage, and a full disk


def fill(history: History) -> None:
    for n in range(20):
        history.note([failed(f"{n}/{m}.jpg") if m % 3 else event(f"{n}/{m}.jpg", at=NOON + n * 60) for m in range(10)])
    history.flush()


def ask(history: RecentReader) -> None:
    """Ask everything once."""
    history.recent(10)
    history.image(ROOT, "7/1.jpg")
    failures_in_pages(history, None, 100)
    history.reasons()
    history.totals(0, NOON + _DAY)
    history.series(0, NOON + _DAY, "minute")


def read_everything(ledger: LedgerReader) -> None:
    for root in ledger.roots():
        ledger.totals(root)
        ledger.results(root)
        ledger.passed(root)
        ledger.kind(root)
        ledger.files(root, Result.FAILED, "damaged", 10)


def use(history: SqliteHistory) -> None:
    """Call everything, and then what tells whether it works."""
    ask(history)
    history.note([failed("7/1.jpg"), event("7/2.jpg")])
    history.forget(ROOT, "3")
    history.flush()
    history.note([event("new.jpg")])
    assert history.image(ROOT, "new.jpg") == event("new.jpg")


def test_whichever_page_was_overwritten_no_call_fails_and_a_reader_answers_or_says_so(
    tmpfs: Callable[[str], Path],
) -> None:
    file = tmpfs("size=32m") / "ledger.sqlite"
    ledger = SqliteLedger(str(file))
    fill(ledger.history)
    ledger.record(ROOT, Directory("a", 5, images=3))
    ledger.note_kind(ROOT, "ext4 /")
    ledger.note_pass(ROOT, NOON, full=True)
    ledger.close()
    whole = file.read_bytes()
    noise = random.Random(1)
    told = 0
    for page in range(len(whole) // _PAGE):
        elsewhere = noise.randrange(len(whole) // _PAGE) * _PAGE
        for other in (bytes(_PAGE), noise.randbytes(_PAGE), whole[elsewhere : elsewhere + _PAGE]):
            file.write_bytes(whole[: page * _PAGE] + other + whole[(page + 1) * _PAGE :])
            try:
                ask(read_history(str(file)))
                read_everything(read_ledger(str(file)))
            except UnfitError as error:
                told += str(error).startswith(f"{file}: ")
            for _ in range(2):
                ledger = SqliteLedger(str(file))
                use(ledger.history)
                ledger.close()
    assert told > 10


def test_a_full_disk_stops_nothing_and_what_happens_afterwards_is_noted(tmpfs: Callable[[str], Path]) -> None:
    folder = tmpfs("size=2m")
    ledger = SqliteLedger(str(folder / "ledger.sqlite"))
    history = ledger.history
    fill(history)
    filler = folder / "filler"
    with filler.open("wb", buffering=0) as opened, contextlib.suppress(OSError):
        while True:
            opened.write(bytes(_PAGE))
    for n in range(1000):  # the last pages of the log may still have room
        history.note([event(f"full/{n}.jpg")])
        history.flush()
    assert history.image(ROOT, "full/999.jpg") is None
    assert history.image(ROOT, "7/1.jpg") == failed("7/1.jpg")
    filler.unlink()
    history.note([event("after.jpg")])
    ledger.close()
    assert read_history(str(folder / "ledger.sqlite")).image(ROOT, "after.jpg") == event("after.jpg")
