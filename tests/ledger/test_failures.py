"""Which images failed at and below a path, and having them tried again."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.ledger.contract import known
from tests.ledger.history_contract import OTHER, ROOT, event, failed
from webpd.ledger import failures
from webpd.ledger.port import Directory
from webpd.ledger.sqlite import SqliteLedger
from webpd.model import Result


@pytest.fixture
def ledger(tmp_path: Path) -> Iterator[SqliteLedger]:
    """A ledger of failures, of which some are in a folder and in folders in it, in the order of their paths."""
    one = SqliteLedger(str(tmp_path / "ledger.sqlite"))
    paths = ["a/1.jpg", "a/b/2.jpg", "a/c.jpg", "a0/3.jpg", "a/\udcff.jpg", "top.jpg"]
    one.history.note([*map(failed, paths), failed("a/1.jpg", OTHER), event("a/good.jpg")])
    for path in paths:
        folder, name = os.path.split(path)
        one.record(ROOT, Directory(folder, 5))
        one.learn(ROOT, folder, {name: known(result=Result.FAILED), "good.jpg": known()})
    yield one
    one.close()


def test_what_failed_is_found_at_a_path_and_below_it_and_not_beside_it(ledger: SqliteLedger) -> None:
    def found(*paths: str) -> list[str]:
        return [os.path.join(one.root, one.path) for one in failures.failed(ledger.history, paths)]

    assert len(found()) == 7
    assert found(f"{ROOT}/a/b", f"{ROOT}/a0/3.jpg") == [f"{ROOT}/a/b/2.jpg", f"{ROOT}/a0/3.jpg"]
    assert found("/") == found()
    assert found(f"{ROOT}/a/\udcff.jpg") == [f"{ROOT}/a/\udcff.jpg"]
    assert found("/srv/resize") == found(f"{ROOT}/a/good.jpg") == []


def test_a_retry_forgets_each_failure_once_and_counts_them_by_directory(ledger: SqliteLedger) -> None:
    assert failures.retry(ledger, ledger.history, [f"{ROOT}/a"]) == {(ROOT, "a"): 3, (ROOT, "a/b"): 1}
    assert ledger.known(ROOT, "a") == ledger.known(ROOT, "a/b") == {"good.jpg": known()}
    assert ledger.known(ROOT, "a0") == {"3.jpg": known(result=Result.FAILED), "good.jpg": known()}
    unsettled = [each.path for each in ledger.directories(ROOT, None, 10) if each.mtime_ns is None]
    assert unsettled == ["a", "a/b"]


def test_a_retry_of_what_is_not_known_any_more_makes_nothing_known(ledger: SqliteLedger) -> None:
    assert failures.retry(ledger, ledger.history, [OTHER]) == {(OTHER, "a"): 1}
    assert ledger.directory(OTHER, "a") is None
    assert ledger.totals(ROOT).unsettled == 0
