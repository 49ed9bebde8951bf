"""What the workers did is in the history, in batches, and nothing of it twice."""

import time
from pathlib import Path

import pytest

from webpd.ledger.sqlite import SqliteLedger
from webpd.model import Ending, Failure, Job, Outcome, Picture, Result
from webpd.service.chronicle import Chronicle

ROOT = "/srv/tree"


@pytest.fixture
def ledger(tmp_path: Path) -> SqliteLedger:
    return SqliteLedger(str(tmp_path / "state/ledger.sqlite"))


def convert(chronicle: Chronicle, name: str) -> None:
    path = f"{ROOT}/{name}"
    picture = Picture(160, 120, "jpeg", 1, False)
    outcome = Outcome(path, Result.CONVERTED, webp_bytes=300, seconds=0.5, picture=picture)
    chronicle.note(Job(path, ROOT, 1000, 5), Ending(outcome, None, "cdn1", time.time()))


def test_what_was_noted_is_there_when_it_is_flushed_or_enough(ledger: SqliteLedger) -> None:
    chronicle = Chronicle([ledger.history], ROOT, b"settings")
    convert(chronicle, "a/1.jpg")
    assert ledger.history.image(ROOT, "a/1.jpg") is None
    chronicle.flush()
    chronicle.flush()
    event = ledger.history.image(ROOT, "a/1.jpg")
    assert event is not None
    assert (event.size, event.width, event.height, event.format, event.webp_bytes) == (1000, 160, 120, "jpeg", 300)
    for number in range(50):
        convert(chronicle, f"b/{number}.jpg")
    assert ledger.history.image(ROOT, "b/49.jpg") is not None
    assert ledger.history.totals(0, 2**40)[Result.CONVERTED].images == 51
    ledger.close()


def test_what_is_gone_is_forgotten_even_if_it_was_not_noted_yet(ledger: SqliteLedger) -> None:
    chronicle = Chronicle([ledger.history], ROOT, b"settings")
    path = f"{ROOT}/a/broken.jpg"
    outcome = Outcome(path, Result.FAILED, Failure.DAMAGED, "cut off")
    chronicle.note(Job(path, ROOT, 9, 5), Ending(outcome, None, "cdn1", time.time()))
    chronicle.forget("a")
    assert ledger.history.failures() == []
    assert ledger.history.totals(0, 2**40)[Result.FAILED].images == 1
    ledger.close()
