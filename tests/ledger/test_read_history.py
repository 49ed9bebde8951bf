"""The history read by another process, beside the service and without it."""

import contextlib
import itertools
import os
import signal
import sqlite3
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.conftest import as_nobody
from tests.ledger.history_contract import NOON, ROOT, event, failed
from tests.ledger.writer import writing
from webpd.errors import UnfitError
from webpd.ledger.sqlite import SqliteLedger
from webpd.ledger.sqlite_history import read_history
from webpd.model import Result

_DAY = 86_400


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "state ?%41#" / "ledger.sqlite"


def files(folder: Path) -> dict[str, bytes]:
    return {each.name: each.read_bytes() for each in folder.iterdir()}


def test_a_reader_sees_what_a_running_service_wrote_and_hinders_it_in_nothing(file: Path) -> None:
    with writing(file) as writer:
        assert writer.stdout
        writer.stdout.readline()
        reader = read_history(str(file))
        seen = 0
        for line in itertools.islice(writer.stdout, 5):
            flushed = (int(line) + 1) * 5
            found = reader.totals(0, NOON + _DAY)[Result.CONVERTED].images
            assert found >= flushed > seen
            assert found % 5 == 0
            assert reader.image(ROOT, f"{int(line):09}-4.jpg") == event(f"{int(line):09}-4.jpg")
            seen = flushed
        os.kill(writer.pid, signal.SIGKILL)
    before = {name: content for name, content in files(file.parent).items() if not name.endswith("-shm")}
    assert before["ledger.sqlite-wal"]
    assert reader.totals(0, NOON + _DAY)[Result.CONVERTED].images >= seen
    assert read_history(str(file)).failures() == []
    after = {name: content for name, content in files(file.parent).items() if not name.endswith("-shm")}
    assert after == before


def test_a_reader_outlives_the_service_and_sees_the_next_one(file: Path) -> None:
    for n in range(3):
        ledger = SqliteLedger(str(file))
        ledger.history.note([event(f"{n}.jpg")])
        ledger.history.flush()
        if n == 0:
            reader = read_history(str(file))
        assert reader.image(ROOT, f"{n}.jpg") == event(f"{n}.jpg")
        ledger.close()
        before = files(file.parent)
        assert reader.image(ROOT, f"{n}.jpg") == event(f"{n}.jpg")
        assert files(file.parent) == before
        assert sorted(before) == ["ledger.sqlite", "lock"]
    reader.close()


def nothing(file: Path) -> None:
    file.unlink()


def no_folder(file: Path) -> None:
    file.unlink()
    (file.parent / "lock").unlink()
    file.parent.rmdir()


def text(file: Path) -> None:
    file.write_text("not a database, and longer than its header " * 200)


def empty(file: Path) -> None:
    file.write_bytes(b"")


def cut(file: Path) -> None:
    os.truncate(file, file.stat().st_size // 2 + 100)


def overwritten(file: Path) -> None:
    content = file.read_bytes()
    file.write_bytes(content[:4096] + os.urandom(len(content) - 4096))


def of_a_newer_version(file: Path) -> None:
    with contextlib.closing(sqlite3.connect(file)) as connection:
        connection.execute("PRAGMA user_version = 99")


@pytest.mark.parametrize(
    ("harm", "told"),
    [
        (
            nothing,
            "nothing is remembered there: run `webpd run` first, or name the folder that it uses by WEBPD_STATE_DIR",
        ),
        (no_folder, "nothing is remembered there: run `webpd run` first"),
        (text, "can't be read (file is not a database): it is damaged; restart the service"),
        (empty, "is of another version (0, not 3): restart the service"),
        (cut, "it is damaged; restart the service, which begins it anew"),
        (overwritten, "it is damaged; restart the service, which begins it anew"),
        (of_a_newer_version, "is of another version (99, not 3): restart the service"),
    ],
)
def test_what_can_not_be_read_is_said_with_the_path_and_what_to_do(
    harm: Callable[[Path], None], told: str, file: Path
) -> None:
    ledger = SqliteLedger(str(file))
    for n in range(20):
        ledger.history.note([failed(f"{n}/{m}.jpg") for m in range(20)])
    ledger.close()
    reader = read_history(str(file))
    assert len(reader.failures()) == 400
    harm(file)
    with pytest.raises(UnfitError) as raised:
        reader.failures()
    assert str(raised.value).startswith(f"{file}: ")
    assert told in str(raised.value)
    with pytest.raises(UnfitError):
        read_history(str(file)).failures()


@pytest.fixture
def open_to_all() -> Iterator[Path]:
    """A state directory that other users may read; the folders of pytest are closed to them."""
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o755)
        yield Path(folder)


def test_a_user_who_may_not_read_is_told_whom_to_be(open_to_all: Path) -> None:
    file = open_to_all / "ledger.sqlite"
    SqliteLedger(str(file)).close()

    def attempt() -> str:
        with pytest.raises(UnfitError) as raised:
            read_history(str(file))
        return str(raised.value)

    file.chmod(0o600)
    assert f"{file}: can't be read" in as_nobody(attempt)
    open_to_all.chmod(0o700)
    assert as_nobody(attempt) == (
        f"{file}: can't be read (Permission denied): run this as the user of the service, or as root"
    )


def test_a_user_who_may_only_read_can_do_so_beside_the_service_and_without_it(open_to_all: Path) -> None:
    file = open_to_all / "ledger.sqlite"

    def attempt() -> int:
        return read_history(str(file)).totals(0, NOON + _DAY)[Result.CONVERTED].images

    ledger = SqliteLedger(str(file))
    ledger.history.note([event()])
    ledger.close()
    for each in open_to_all.iterdir():
        each.chmod(0o644)
    assert as_nobody(attempt) == 1
    with writing(file) as writer:
        assert writer.stdout
        writer.stdout.readline()
        assert as_nobody(attempt) >= 1001
        os.kill(writer.pid, signal.SIGKILL)
    assert as_nobody(attempt) >= 1001
