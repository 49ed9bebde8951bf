"""A sidecar gets its name whole, or not at all."""

import errno
import logging
import os
import shutil
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.conftest import as_nobody, open_to_all, write
from webpd.model import Job
from webpd.tree import publisher, source
from webpd.tree.publisher import Publisher, PublishError, StorageError, sweep
from webpd.tree.source import ChangedError, GoneError, Source

MTIME = 1_600_000_000.25


def read(path: Path) -> Source:
    return source.read(Job(str(path), str(path.parent), 1), 1 << 20)


@pytest.fixture
def original(tmp_path: Path) -> Source:
    return read(write(tmp_path / "tree" / "a.jpg", b"original", MTIME))


@pytest.fixture
def plain() -> Publisher:
    return Publisher((33, 33), 0o644, fsync=True)


def names(folder: Path) -> set[str]:
    return set(os.listdir(folder))


def test_the_sidecar_has_the_owner_the_mode_and_the_originals_time(original: Source, plain: Publisher) -> None:
    previous = os.umask(0o077)
    try:
        plain.publish(original, b"webp", None)
    finally:
        os.umask(previous)
    stat = os.stat(original.path + ".webp")
    assert (stat.st_uid, stat.st_gid, stat.st_mode & 0o7777) == (33, 33, 0o644)
    assert stat.st_mtime_ns == original.version.mtime_ns
    assert names(Path(original.path).parent) == {"a.jpg", "a.jpg.webp"}


def test_a_reader_sees_one_whole_sidecar_or_the_other(original: Source, plain: Publisher) -> None:
    final = original.path + ".webp"
    versions = {bytes([letter]) * 300_000 for letter in b"ab"}
    plain.publish(original, b"a" * 300_000, None)
    seen: set[bytes] = set()
    ended = threading.Event()

    def look() -> None:
        while not ended.is_set() or len(seen) < 2:
            seen.add(Path(final).read_bytes())

    reader = threading.Thread(target=look)
    reader.start()
    for turn in range(200):
        replaces = source.version_of(os.lstat(final))
        plain.publish(original, (b"b", b"a")[turn % 2] * 300_000, replaces)
    plain.publish(original, b"b" * 300_000, source.version_of(os.lstat(final)))
    ended.set()
    reader.join()
    assert seen == versions


@pytest.mark.parametrize("change", ["rewritten", "touched", "replaced"])
def test_nothing_is_published_for_an_original_that_changed_since_it_was_read(
    original: Source, plain: Publisher, change: str
) -> None:
    path = Path(original.path)
    if change == "rewritten":
        write(path, b"original2", MTIME)
    elif change == "touched":
        os.utime(path, (MTIME, MTIME + 1))
    else:
        write(path.with_name("new"), b"original", MTIME)
        path.with_name("new").rename(path)
    with pytest.raises(ChangedError):
        plain.publish(original, b"webp", None)
    assert names(path.parent) == {"a.jpg"}


def test_nothing_is_published_for_an_original_that_is_gone(original: Source, plain: Publisher) -> None:
    os.unlink(original.path)
    with pytest.raises(GoneError):
        plain.publish(original, b"webp", None)
    assert names(Path(original.path).parent) == set()


def test_a_folder_that_vanished_counts_as_gone(original: Source, plain: Publisher) -> None:
    os.unlink(original.path)
    Path(original.path).parent.rmdir()
    with pytest.raises(GoneError):
        plain.publish(original, b"webp", None)


def test_a_webp_that_came_there_meanwhile_is_not_overwritten(original: Source, plain: Publisher) -> None:
    write(Path(original.path + ".webp"), b"merchant's own")
    with pytest.raises(ChangedError):
        plain.publish(original, b"webp", None)
    assert Path(original.path + ".webp").read_bytes() == b"merchant's own"
    assert names(Path(original.path).parent) == {"a.jpg", "a.jpg.webp"}


def test_a_refused_chown_publishes_all_the_same_and_warns_once(original: Source, tmp_path: Path) -> None:
    folder = Path(original.path).parent
    write(folder / "b.jpg", b"original", MTIME)
    os.chmod(folder, 0o777)  # noqa: S103 - for a user who is neither root nor the owner
    open_to_all(tmp_path)

    def publish_two() -> list[str]:
        warnings: list[str] = []
        handler = logging.Handler()
        handler.emit = lambda record: warnings.append(record.getMessage())  # type: ignore[method-assign]
        logging.getLogger(publisher.__name__).addHandler(handler)
        ours = Publisher((33, 33), 0o644, fsync=True)
        ours.publish(original, b"webp", None)
        ours.publish(read(folder / "b.jpg"), b"webp", None)
        return warnings

    (warning,) = as_nobody(publish_two)
    assert "33:33" in warning
    assert "WEBPD_OWNER" in warning
    assert os.stat(folder / "a.jpg.webp").st_uid == 65534
    assert names(folder) == {"a.jpg", "a.jpg.webp", "b.jpg", "b.jpg.webp"}


def test_a_folder_without_write_permission_is_named_with_the_cure(original: Source, tmp_path: Path) -> None:
    open_to_all(tmp_path)

    def publish() -> str:
        try:
            Publisher(None, 0o644, fsync=True).publish(original, b"webp", None)
        except PublishError as error:
            return str(error)
        return ""

    message = as_nobody(publish)
    assert original.path + ".webp" in message
    assert "Permission denied" in message
    assert "run webpd as its owner" in message


@pytest.mark.parametrize(
    ("options", "told"), [("size=64k,nr_inodes=100", "No space left"), ("size=1m,nr_inodes=3", "No space left")]
)
def test_a_full_disk_and_a_lack_of_inodes_leave_nothing_half_done(
    options: str, told: str, tmpfs: Callable[[str], Path], plain: Publisher
) -> None:
    folder = tmpfs(options)
    original = read(write(folder / "a.jpg", b"original", MTIME))
    if "nr_inodes=3" in options:
        (folder / "b").touch()
    with pytest.raises(StorageError, match=told) as failure:
        plain.publish(original, b"x" * 200_000, None)
    assert "df -i" in str(failure.value)
    assert "a.jpg.webp" in str(failure.value)
    assert not [name for name in names(folder) if "webp" in name]


def test_a_read_only_file_system_is_told_as_such(tmpfs: Callable[[str], Path], plain: Publisher) -> None:
    folder = tmpfs("size=1m")
    original = read(write(folder / "a.jpg", b"original", MTIME))
    subprocess.run(["mount", "-o", "remount,ro", str(folder)], check=True)
    with pytest.raises(StorageError, match="remount it read-write"):
        plain.publish(original, b"webp", None)


@pytest.mark.parametrize("call", ["utime", "fsync", "close", "rename"])
def test_an_input_output_error_at_any_call_leaves_nothing_and_names_the_cure(
    call: str, original: Source, plain: Publisher, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = getattr(os, call)

    def fail(*arguments: object, **keywords: object) -> None:
        if call == "close":
            real(*arguments)
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(os, call, fail)
    with pytest.raises(PublishError, match="check the disk or the mount"):
        plain.publish(original, b"webp", None)
    monkeypatch.undo()
    assert names(Path(original.path).parent) == {"a.jpg"}


def test_a_withdrawn_sidecar_is_gone_and_withdrawing_twice_is_no_error(original: Source, plain: Publisher) -> None:
    plain.publish(original, b"webp", None)
    version = source.version_of(os.lstat(original.path + ".webp"))
    plain.withdraw(original.path + ".webp", version)
    plain.withdraw(original.path + ".webp", version)
    assert names(Path(original.path).parent) == {"a.jpg"}


def test_a_webp_that_came_in_place_of_ours_is_not_withdrawn(original: Source, plain: Publisher) -> None:
    plain.publish(original, b"webp", None)
    version = source.version_of(os.lstat(original.path + ".webp"))
    write(Path(original.path + ".webp"), b"merchant's own")
    with pytest.raises(ChangedError):
        plain.withdraw(original.path + ".webp", version)
    assert Path(original.path + ".webp").read_bytes() == b"merchant's own"


def test_a_process_that_may_only_chown_gives_sidecars_away(original: Source, tmp_path: Path) -> None:
    folder = Path(original.path).parent
    os.chown(folder, 65534, 65534)
    open_to_all(tmp_path)
    program = (
        "from webpd.model import Job; from webpd.tree import source; from webpd.tree.publisher import Publisher;"
        f"original = source.read(Job({original.path!r}, {str(folder)!r}, 1), 99);"
        "Publisher((33, 33), 0o640, fsync=True).publish(original, b'x', None)"
    )
    packages = Path(publisher.__file__).parents[2]
    user = [
        "--reuid",
        "65534",
        "--regid",
        "65534",
        "--clear-groups",
        "--inh-caps",
        "+chown",
        "--ambient-caps",
        "+chown",
    ]
    readable = tmp_path / "packages"
    shutil.copytree(packages / "webpd", readable / "webpd", ignore=shutil.ignore_patterns("__pycache__"))
    command = ["setpriv", *user, "/usr/bin/python3", "-c", program]
    subprocess.run(command, env={"PYTHONPATH": str(readable)}, check=True)
    status = os.stat(original.path + ".webp")
    assert (status.st_uid, status.st_gid, status.st_mode & 0o777) == (33, 33, 0o640)


def _temporary_of(script: str) -> subprocess.Popen[str]:
    program = f"from webpd.tree.publisher import Publisher; p = Publisher(None, 0o644, fsync=False); {script}"
    return subprocess.Popen([sys.executable, "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)


def test_a_temporary_file_is_swept_when_its_writer_is_dead_and_not_while_it_lives(tmp_path: Path) -> None:
    writer = _temporary_of("print(p._prefix + '0.tmp', flush=True); input()")
    assert writer.stdout is not None
    file = write(tmp_path / writer.stdout.readline().strip(), b"half")
    sweep(str(file))
    assert file.exists()
    writer.kill()
    writer.communicate()
    sweep(str(file))
    assert not file.exists()


def test_a_process_that_got_the_number_of_a_dead_writer_is_not_taken_for_it(tmp_path: Path) -> None:
    living = _temporary_of("print(p._prefix, flush=True); input()")
    assert living.stdout is not None
    host, pid, started, _ = living.stdout.readline().strip().removeprefix(".webpd-").split("-")
    theirs = write(tmp_path / f".webpd-{host}-{pid}-{started}-0.tmp", b"half")
    earlier = write(tmp_path / f".webpd-{host}-{pid}-{int(started) - 1}-0.tmp", b"half")
    sweep(str(theirs))
    sweep(str(earlier))
    assert names(tmp_path) == {theirs.name}
    living.kill()
    living.communicate()


def test_a_temporary_file_that_could_not_be_removed_at_its_time_is_swept_by_the_process_that_left_it(
    tmp_path: Path, original: Source, plain: Publisher, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = Path(original.path).parent

    def gone_meanwhile(*_: object) -> None:
        monkeypatch.setattr(os, "unlink", refused)
        raise ChangedError("meanwhile")

    def refused(*_: object, **__: object) -> None:
        raise OSError(errno.ENOTCONN, os.strerror(errno.ENOTCONN))

    monkeypatch.setattr(publisher, "_check_place", gone_meanwhile)
    with pytest.raises(StorageError):
        plain.publish(original, b"webp", None)
    monkeypatch.undo()
    (left,) = names(folder) - {"a.jpg"}
    sweep(str(folder / left))
    assert names(folder) == {"a.jpg"}
    written_now = write(folder / left, b"by the same process, and not left by it")
    sweep(str(written_now))
    assert written_now.exists()


def test_a_temporary_file_of_another_host_is_left_until_no_writer_can_live(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = write(tmp_path / ".webpd-00000000-1-2-3.tmp", b"half")
    odd = write(tmp_path / ".webpd-someone-elses.tmp", b"half")
    impossible = write(tmp_path / f".webpd-{publisher._host()}-{10**20}-1-0.tmp", b"half")
    sweep(str(file))
    assert file.exists()
    monkeypatch.setattr(publisher, "_OTHER_HOST_AGE", 0)
    sweep(str(file))
    sweep(str(odd))
    sweep(str(impossible))
    assert names(tmp_path) == {odd.name, impossible.name}
