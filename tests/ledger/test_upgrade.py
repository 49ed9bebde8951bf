"""A database of an older version: what is dear in it is kept."""

import contextlib
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from webpd.errors import UnfitError
from webpd.ledger.history import Total
from webpd.ledger.port import Directory, Pass, Totals
from webpd.ledger.sqlite import SqliteLedger, read_ledger
from webpd.ledger.sqlite_history import read_history
from webpd.model import Known, Result, Sidecar

ROOT = "/srv/resize_cache"
VERSION_2 = (Path(__file__).parent / "version_2.sql").read_text("utf-8")


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "ledger.sqlite"


def make(file: Path, statements: str = VERSION_2) -> None:
    """Make a database by these statements."""
    with contextlib.closing(sqlite3.connect(file)) as connection:
        connection.executescript(statements)


def version(file: Path) -> int:
    with contextlib.closing(sqlite3.connect(file)) as connection:
        (number,) = connection.execute("PRAGMA user_version").fetchone()
    return int(number)


def layout(file: Path) -> set[tuple[str, ...]]:
    """Return all tables, indexes and triggers."""
    with contextlib.closing(sqlite3.connect(file)) as connection:
        return set(connection.execute("SELECT type, name, tbl_name, sql FROM sqlite_master"))


def test_a_database_of_version_2_is_taken_over_with_its_index_and_its_history(
    file: Path, caplog: pytest.LogCaptureFixture
) -> None:
    make(file)
    with contextlib.closing(SqliteLedger(str(file))) as ledger:
        assert [each.path for each in ledger.directories(ROOT, None, 10)] == ["", "a"]
        assert ledger.directory(ROOT, "") == Directory("", 5, True, 0.0, 2)
        assert ledger.totals(ROOT) == Totals(2, 1, 3, 1)
        assert ledger.kind(ROOT) == "ext4 /"
        broken = Known(1000, 7, Sidecar.ABSENT, b"12345678", Result.FAILED, "damaged", "cut off")
        assert ledger.known(ROOT, "a") == {"broken.jpg": broken}
        assert ledger.passed(ROOT) is None
        ledger.note_pass(ROOT, 1.5, full=False)
        assert ledger.passed(ROOT) == Pass(1.5, None, Totals(2, 1, 3, 1), 0, 0, 1)
        assert [each.path for each in ledger.history.failures()] == ["a/broken.jpg"]
        assert ledger.history.totals(0, 1_790_100_000)[Result.CONVERTED] == Total(2, 3000, 1600, 0.5)
    assert read_ledger(str(file)).roots() == [ROOT]
    assert read_history(str(file)).reasons() == {"damaged": 1}
    assert [each.name for each in file.parent.iterdir() if "damaged" in each.name] == []
    assert not caplog.records


def test_an_upgraded_database_is_laid_out_like_a_new_one(file: Path) -> None:
    make(file)
    new = file.parent / "new" / "ledger.sqlite"
    for each in (file, new):
        SqliteLedger(str(each)).close()
    assert layout(file) == layout(new)
    assert version(file) == version(new)


def test_until_the_service_has_upgraded_it_a_reader_is_told_to_restart_it(file: Path) -> None:
    make(file)
    for ask in (lambda: read_history(str(file)), read_ledger(str(file)).roots):
        with pytest.raises(UnfitError, match=f"{file}: is of another version .2, not 3.: restart the service"):
            ask()
    assert version(file) == 2


def test_an_older_database_that_is_not_what_it_says_is_set_aside(file: Path, caplog: pytest.LogCaptureFixture) -> None:
    make(file, "CREATE TABLE pass (something); PRAGMA user_version = 2")
    with contextlib.closing(SqliteLedger(str(file))) as ledger:
        assert ledger.roots() == []
        ledger.discover(ROOT, [""])
        assert ledger.roots() == [ROOT]
    (record,) = caplog.records
    assert "set aside" in record.message
    assert "the history is lost" in record.message


def test_where_there_is_no_room_to_upgrade_it_stays_as_it_is(tmpfs: Callable[[str], Path]) -> None:
    folder = tmpfs("size=1m")
    file = folder / "ledger.sqlite"
    make(file)
    with (folder / "filler").open("wb", buffering=0) as filler, contextlib.suppress(OSError):
        while True:
            filler.write(bytes(4096))
    with pytest.raises(UnfitError, match=r"can't be kept .*make room"):
        SqliteLedger(str(file))
    (folder / "filler").unlink()
    assert version(file) == 2
    with contextlib.closing(SqliteLedger(str(file))) as ledger:
        assert [each.path for each in ledger.history.failures()] == ["a/broken.jpg"]


# Ends itself as a kill does, right before the upgrade is committed.
_KILLED = """
import os, signal, sys
from dataclasses import replace
from webpd.ledger.database import Database
from webpd.ledger.schema import SCHEMA
Database(sys.argv[1], replace(SCHEMA, opened=lambda connection: os.kill(os.getpid(), signal.SIGKILL)))
"""


def test_a_kill_in_the_middle_of_the_upgrade_loses_nothing(file: Path) -> None:
    make(file)
    killed = subprocess.run([sys.executable, "-c", _KILLED, str(file)], check=False)
    assert killed.returncode == -signal.SIGKILL
    with contextlib.closing(SqliteLedger(str(file))) as ledger:
        assert [each.path for each in ledger.history.failures()] == ["a/broken.jpg"]
        assert ledger.passed(ROOT) is None
