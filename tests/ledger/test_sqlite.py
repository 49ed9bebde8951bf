"""The ledger on SQLite: the contract, and what may happen to a file and to the disk it is on."""

import contextlib
import itertools
import os
import random
import signal
import sqlite3
import stat
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.conftest import as_nobody
from tests.ledger.contract import ROOT, LedgerContract, Reopen, known, paths_in_pages
from webpd.errors import UnfitError
from webpd.ledger.port import Directory, Ledger, Totals
from webpd.ledger.sqlite import SqliteLedger

_PAGE = 4096


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "state" / "ledger.sqlite"


@pytest.fixture
def reopen(file: Path) -> Iterator[Reopen]:
    current: list[Ledger] = []

    def again() -> Ledger:
        while current:
            current.pop().close()
        current.append(SqliteLedger(str(file)))
        return current[0]

    yield again
    for ledger in current:
        ledger.close()


def fill(ledger: Ledger, directories: int) -> None:
    for number in range(directories):
        ledger.record(ROOT, Directory(f"iblock/{number:06}", 5, True, 1.5, 1, number % 7, 1.5, number % 5 == 0))
        ledger.learn(ROOT, f"iblock/{number:06}", {"photo.jpg": known()})
    ledger.note_pass(ROOT, 1.5, full=True)
    ledger.flush()


def wait_until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def set_aside(file: Path) -> list[Path]:
    return sorted(file.parent.glob(f"{file.name}.damaged-*"))


def sound(file: Path) -> bool:
    with contextlib.closing(sqlite3.connect(file)) as connection:
        return connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]


class TestSqliteLedger(LedgerContract):
    """The contract, on SQLite."""


def test_an_idle_process_commits_by_itself_and_another_one_can_read(reopen: Reopen, file: Path) -> None:
    ledger = reopen()
    ledger.discover(ROOT, ["a"])
    with contextlib.closing(sqlite3.connect(f"file:{file}?mode=ro", uri=True)) as reader:
        wait_until(lambda: reader.execute("SELECT path FROM directory").fetchall() == [(b"a",)])


_WRITER = """
import itertools, sys
from webpd.ledger.port import Directory
from webpd.ledger.sqlite import SqliteLedger
ledger = SqliteLedger(sys.argv[1])
for number in itertools.count(int(sys.argv[2])):
    ledger.record("/srv/resize_cache", Directory(f"{number:09}", number))
    if number % 1000 == 999:
        ledger.flush()
        print(number, flush=True)
"""


def test_a_killed_process_loses_at_most_its_last_batch(
    reopen: Reopen, file: Path, caplog: pytest.LogCaptureFixture
) -> None:
    count = 0
    for flushes in (1, 3, 5, 2):
        with subprocess.Popen(
            [sys.executable, "-c", _WRITER, str(file), str(count)], stdout=subprocess.PIPE, text=True
        ) as writer:
            assert writer.stdout
            flushed = [int(line) for line in itertools.islice(writer.stdout, flushes)]
            os.kill(writer.pid, signal.SIGKILL)
        ledger = reopen()
        paths = paths_in_pages(ledger, ROOT, 1000)
        count = len(paths)
        assert count > flushed[-1]
        assert paths == [f"{number:09}" for number in range(count)]
        assert ledger.totals(ROOT).directories == count
        ledger.close()
        assert sound(file)
    assert not caplog.records


def test_a_second_service_is_refused_until_the_first_has_ended(reopen: Reopen, file: Path) -> None:
    with subprocess.Popen([sys.executable, "-c", _WRITER, str(file), "0"], stdout=subprocess.PIPE) as writer:
        assert writer.stdout
        writer.stdout.readline()
        with pytest.raises(UnfitError, match=f"another webpd runs with this state directory \\({file.parent}\\): stop"):
            reopen()
        os.kill(writer.pid, signal.SIGKILL)
    assert reopen().totals(ROOT).directories >= 1000


def text(file: Path) -> None:
    file.write_text("not a database, and longer than its header " * 200)


def cut(file: Path) -> None:
    os.truncate(file, file.stat().st_size // 2 + 100)


def first_page_only(file: Path) -> None:
    os.truncate(file, _PAGE)


def newer(file: Path) -> None:
    with contextlib.closing(sqlite3.connect(file)) as connection:
        connection.execute("PRAGMA user_version = 99")


def of_no_version(file: Path) -> None:
    with contextlib.closing(sqlite3.connect(file)) as connection:
        connection.execute("PRAGMA user_version = -2147483648")


def of_another_program(file: Path) -> None:
    file.unlink()
    with contextlib.closing(sqlite3.connect(file)) as connection:
        connection.execute("CREATE TABLE directory (name)")


@pytest.mark.parametrize("harm", [text, cut, first_page_only, newer, of_no_version, of_another_program])
def test_a_file_that_is_no_ledger_of_this_version_is_set_aside_and_begun_anew(
    harm: Callable[[Path], None], reopen: Reopen, file: Path, caplog: pytest.LogCaptureFixture
) -> None:
    ledger = reopen()
    fill(ledger, 500)
    ledger.close()
    harm(file)
    harmed = file.read_bytes()
    ledger = reopen()
    assert ledger.known(ROOT, "iblock/000499") == {}
    assert ledger.directories(ROOT, None, 1000) == []
    ledger.record(ROOT, Directory("new", 5))
    assert reopen().directories(ROOT, None, 1000) == [Directory("new", 5)]
    (aside,) = set_aside(file)
    assert aside.read_bytes() == harmed
    (record,) = caplog.records
    assert record.levelname == "WARNING"
    assert str(file) in record.message
    assert (
        f"set aside as {aside} and begun anew: the history is lost, and the whole tree is looked at again"
        in record.message
    )


def use(ledger: Ledger) -> None:
    """Call everything once, and twice what tells whether it works."""
    ledger.discover(ROOT, ["a", "iblock/000001"])
    ledger.record(ROOT, Directory("iblock/000002", 6))
    ledger.doubt(ROOT, ["iblock/000003"])
    paths_in_pages(ledger, ROOT, 100)
    ledger.directory(ROOT, "iblock/000004")
    ledger.orphaned(ROOT, 10.0, 1000)
    ledger.emptied(ROOT, 1000)
    ledger.totals(ROOT)
    ledger.known(ROOT, "iblock/000005")
    ledger.learn(ROOT, "iblock/000006", {"photo.jpg": known(7)})
    ledger.unlearn(ROOT, "iblock/000007", ["photo.jpg"])
    ledger.results(ROOT)
    ledger.note_kind(ROOT, "ext4")
    ledger.kind(ROOT)
    ledger.note_pass(ROOT, 1.5, full=True)
    ledger.passed(ROOT)
    ledger.roots()
    ledger.forget(ROOT, "iblock")
    ledger.flush()
    ledger.record(ROOT, Directory("new", 5))
    assert ledger.directory(ROOT, "new") == Directory("new", 5)


def survives(reopen: Reopen, file: Path, content: bytes) -> None:
    """Start on that content, restart, and remove what was set aside."""
    file.write_bytes(content)
    use(reopen())
    use(reopen())
    reopen().close()
    for aside in set_aside(file):
        aside.unlink()


def overwritten(whole: bytes, page: int, other: bytes) -> bytes:
    return whole[: page * _PAGE] + other + whole[(page + 1) * _PAGE :]


@pytest.fixture
def whole(reopen: Reopen, file: Path) -> bytes:
    """A sound database, closed."""
    ledger = reopen()
    fill(ledger, 150)
    ledger.close()
    return file.read_bytes()


def other_pages(whole: bytes) -> Iterator[tuple[int, bytes]]:
    noise = random.Random(1)
    for page in range(len(whole) // _PAGE):
        yield page, bytes(_PAGE)
        yield page, noise.randbytes(_PAGE)
        start = noise.randrange(len(whole) // _PAGE) * _PAGE
        yield page, whole[start : start + _PAGE]


def test_whichever_page_was_overwritten_no_call_fails(whole: bytes, reopen: Reopen, file: Path) -> None:
    for page, other in other_pages(whole):
        survives(reopen, file, overwritten(whole, page, other))


def test_whichever_page_is_overwritten_under_a_running_service_no_call_fails(
    whole: bytes, reopen: Reopen, file: Path
) -> None:
    for page, other in other_pages(whole):
        file.write_bytes(whole)
        ledger = reopen()
        ledger.directory(ROOT, "iblock/000004")
        with file.open("r+b") as opened:
            opened.seek(page * _PAGE)
            opened.write(other)
        use(ledger)
        ledger.close()
        survives(reopen, file, file.read_bytes())


def test_whichever_bytes_were_changed_no_call_fails_or_goes_on_for_ever(
    whole: bytes, reopen: Reopen, file: Path, prove: bool
) -> None:
    noise = random.Random(1)
    for number in range(2000 if prove else 50):
        content = bytearray(whole)
        for _ in range((1, 5, 50, 500)[number % 4]):
            content[noise.randrange(len(content))] = noise.randrange(256)
        survives(reopen, file, bytes(content))


def test_a_damaged_order_of_paths_is_not_paged_through_for_ever(whole: bytes, reopen: Reopen, file: Path) -> None:
    file.write_bytes(whole.replace(b"iblock/000049", b"iblock/000039"))  # the page after 39 ends with 39
    assert len(paths_in_pages(reopen(), ROOT, 10)) == 40
    assert len(set_aside(file)) == 1


def test_of_damaged_files_the_last_is_kept_and_the_disk_does_not_fill(reopen: Reopen, file: Path) -> None:
    for number in range(3):
        reopen().close()
        for aside in set_aside(file):
            aside.rename(f"{aside}-earlier")
        file.write_text(f"damage {number}")
        reopen()
    (aside,) = set_aside(file)
    assert aside.read_text() == "damage 2"


def test_the_log_beside_the_database_is_set_aside_with_it(reopen: Reopen, file: Path) -> None:
    reopen().close()
    with contextlib.closing(sqlite3.connect(file)) as other, other:
        other.execute("PRAGMA user_version = 99")
        other.commit()
        log = Path(f"{file}-wal").read_bytes()  # stays, since the other process has the file open
        assert reopen().directories(ROOT, None, 10) == []
        aside = set_aside(file)[0]
        assert Path(f"{aside}-wal").read_bytes() == log


def fill_disk(folder: Path) -> Path:
    """Leave no byte free; removing the file that is returned makes room again."""
    path = folder / "filler"
    with path.open("wb", buffering=0) as filler, contextlib.suppress(OSError):
        while True:
            filler.write(bytes(_PAGE))
    return path


def test_a_full_disk_stops_nothing_and_afterwards_all_is_looked_at_again(
    tmpfs: Callable[[str], Path], caplog: pytest.LogCaptureFixture
) -> None:
    folder = tmpfs("size=2m")
    file = folder / "state" / "ledger.sqlite"
    ledger = SqliteLedger(str(file))
    fill(ledger, 100)
    filler = fill_disk(folder)
    for number in range(2000):  # the last pages of the log may still have room
        ledger.record(ROOT, Directory(f"full/{number}", 5))
        ledger.flush()
    (record,) = caplog.records
    assert f"{file}: can't be written (database or disk is full)" in record.message
    assert ledger.directory(ROOT, "iblock/000001") is not None
    assert ledger.directory(ROOT, "full/1999") is None
    filler.unlink()
    ledger.record(ROOT, Directory("after", 5))
    ledger.flush()
    _, record = caplog.records
    assert (
        f"{file}: can be written again; the whole tree is looked at again, and what was done meanwhile is missing"
        in record.message
    )
    ledger.close()
    ledger = SqliteLedger(str(file))
    totals = ledger.totals(ROOT)
    assert totals.unsettled == totals.directories > 100
    assert ledger.directory(ROOT, "after") == Directory("after")
    ledger.close()
    assert sound(file)


def test_a_database_damaged_on_a_full_disk_is_replaced_by_a_temporary_one(
    tmpfs: Callable[[str], Path], caplog: pytest.LogCaptureFixture
) -> None:
    folder = tmpfs("size=2m")
    file = folder / "state" / "ledger.sqlite"
    ledger = SqliteLedger(str(file))
    fill(ledger, 100)
    ledger.close()
    ledger = SqliteLedger(str(file))
    fill_disk(folder)
    with file.open("r+b") as opened:
        opened.write(bytes(file.stat().st_size))
    use(ledger)
    ledger.close()
    assert "set aside" in caplog.records[-2].message
    assert f"{file}: can't be begun anew (database or disk is full)" in caplog.records[-1].message


def test_a_full_disk_at_the_start_is_said_with_what_to_do(tmpfs: Callable[[str], Path]) -> None:
    folder = tmpfs("size=1m")
    SqliteLedger(str(folder / "ledger.sqlite")).close()
    fill_disk(folder)
    for file in (folder / "ledger.sqlite", folder / "new" / "ledger.sqlite"):
        with pytest.raises(UnfitError, match=f"{file.parent}.*can't be kept.*make room.*WEBPD_STATE_DIR"):
            SqliteLedger(str(file))


def test_a_missing_state_directory_is_made_for_the_owner_alone(reopen: Reopen, file: Path) -> None:
    reopen()
    assert stat.S_IMODE(file.parent.stat().st_mode) == 0o700


def test_a_state_directory_without_permission_is_said_with_what_to_do(tmpfs: Callable[[str], Path]) -> None:
    folder = tmpfs("size=1m,mode=0755")
    (folder / "state").mkdir()

    def attempt() -> str:
        with pytest.raises(UnfitError) as raised:
            SqliteLedger(str(folder / "state" / "ledger.sqlite"))
        return str(raised.value)

    message = as_nobody(attempt)
    assert str(folder / "state") in message
    assert "Permission denied" in message
    assert "WEBPD_STATE_DIR" in message


def test_after_a_boot_looks_count_as_long_ago_and_orphans_as_just_seen(reopen: Reopen, file: Path) -> None:
    ledger = reopen()
    ledger.record(ROOT, Directory("a", 5, True, 1e9, 1))
    ledger.record(ROOT, Directory("b", 5, True, 1e9, 1, 2, 1e9))
    assert reopen().directory(ROOT, "a") == Directory("a", 5, True, 1e9, 1)
    ledger = reopen()
    ledger.close()
    with contextlib.closing(sqlite3.connect(file)) as connection, connection:
        connection.execute("UPDATE boot SET id = 'another'")
    before = time.monotonic()
    a, b = reopen().directories(ROOT, None, 10)
    assert a == Directory("a", 5, True, 0.0, 1)
    assert b._replace(orphaned=0.0) == Directory("b", 5, True, 0.0, 1, 2)
    assert before <= b.orphaned <= time.monotonic()


def test_a_call_after_the_end_is_told_so_and_harms_nothing(reopen: Reopen, file: Path) -> None:
    ledger = reopen()
    ledger.discover(ROOT, ["a"])
    ledger.close()
    ledger.close()
    with pytest.raises(sqlite3.ProgrammingError):
        ledger.discover(ROOT, ["b"])
    assert set_aside(file) == []
    assert reopen().directories(ROOT, None, 10) == [Directory("a")]


_CYCLE = """
import sys
from dataclasses import astuple
from webpd.ledger.port import Directory
from webpd.ledger.sqlite import SqliteLedger
ledger = SqliteLedger(sys.argv[1])
for number in range(int(sys.argv[2])):
    ledger.record("/srv/resize_cache", Directory(f"iblock/{number:032}", number, True, 1.5, 1))
ledger.close()
ledger = SqliteLedger(sys.argv[1])
after, count = None, 0
while page := ledger.directories("/srv/resize_cache", after, 1000):
    after = page[-1].path
    count += len(page)
with open("/proc/self/status") as status:
    peak = next(int(line.split()[1]) // 1024 for line in status if line.startswith("VmHWM"))
print(count, *astuple(ledger.totals("/srv/resize_cache")), peak)
"""


def test_memory_does_not_grow_with_the_tree(tmpfs: Callable[[str], Path], prove: bool) -> None:
    folder = tmpfs("size=1g")
    peaks = []
    for directories in (2_000, 600_000 if prove else 20_000):
        file = folder / str(directories) / "ledger.sqlite"
        done = subprocess.run(
            [sys.executable, "-c", _CYCLE, str(file), str(directories)], capture_output=True, text=True, check=True
        )
        count, *totals, peak = map(int, done.stdout.split())
        assert count == directories
        assert Totals(*totals) == Totals(directories, 0, directories, 0)
        peaks.append(peak)
    assert peaks[1] <= peaks[0] + 8  # MiB
