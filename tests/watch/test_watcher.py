"""Which directories have news: real files, written by real processes, on real file systems."""

import contextlib
import errno
import json
import logging
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.conftest import as_nobody
from webpd.tree import source
from webpd.tree.publisher import Publisher
from webpd.tree.source import Source
from webpd.watch.watcher import FileWatcher


@pytest.fixture
def watcher() -> Iterator[FileWatcher]:
    with contextlib.closing(FileWatcher()) as watching:
        yield watching


def news_until(watcher: FileWatcher, last: Path) -> set[str]:
    """Make news in a directory that is watched, and return all that was told until then; the kernel keeps the order."""
    (last / "bell").write_bytes(b"")
    (last / "bell").unlink()
    told: set[str] = set()
    give_up = time.monotonic() + 30
    while str(last) not in told:
        assert time.monotonic() < give_up, "the last news never came"
        told |= watcher.changed(1.0)
    return told


def kernel_watches() -> int:
    """Return how many directories the kernel watches for this process."""
    return sum(info.read_text().count("inotify wd:") for info in Path("/proc/self/fdinfo").iterdir() if info.exists())


@pytest.fixture
def bell(watcher: FileWatcher, tmp_path: Path) -> Path:
    """A directory beside the tree, watched, for ``news_until``."""
    folder = tmp_path / "bell"
    folder.mkdir()
    assert watcher.watch(str(folder))
    return folder


@pytest.fixture
def tree(watcher: FileWatcher, tmp_path: Path) -> Path:
    folder = tmp_path / "tree"
    folder.mkdir()
    assert watcher.watch(str(folder))
    return folder


def test_a_file_written_moved_in_moved_away_or_deleted_is_news_of_its_directory(
    watcher: FileWatcher, tree: Path, bell: Path, tmp_path: Path
) -> None:
    (tmp_path / "b.jpg").write_bytes(b"x")
    for change in (
        lambda: (tree / "a.jpg").write_bytes(b"x"),
        lambda: (tree / "a.jpg").write_bytes(b"y"),
        lambda: (tmp_path / "b.jpg").rename(tree / "b.jpg"),
        lambda: (tree / "b.jpg").rename(tmp_path / "b.jpg"),
        (tree / "a.jpg").unlink,
    ):
        change()
        assert news_until(watcher, bell) == {str(tree), str(bell)}


def test_a_file_is_news_when_it_is_closed_and_not_while_it_is_being_written(
    watcher: FileWatcher, tree: Path, bell: Path
) -> None:
    with (tree / "a.jpg").open("wb", 0) as file:
        file.write(b"x")
        assert news_until(watcher, bell) == {str(bell)}
    assert news_until(watcher, bell) == {str(tree), str(bell)}


def test_a_directory_made_moved_in_or_removed_is_news_of_the_one_above(
    watcher: FileWatcher, tree: Path, bell: Path, tmp_path: Path
) -> None:
    (tmp_path / "there").mkdir()
    for change in (
        (tree / "here").mkdir,
        lambda: (tmp_path / "there").rename(tree / "there"),
        lambda: (tree / "there").rename(tmp_path / "there"),
        (tree / "here").rmdir,
    ):
        change()
        assert news_until(watcher, bell) == {str(tree), str(bell)}


def test_what_we_publish_is_no_news_and_a_sidecar_that_goes_is(watcher: FileWatcher, tree: Path, bell: Path) -> None:
    original = tree / "a.jpg"
    original.write_bytes(b"x")
    news_until(watcher, bell)
    read = Source(str(original), b"x", source.version_of(original.stat()))
    Publisher(None, 0o644, fsync=True).publish(read, b"webp", None)
    assert news_until(watcher, bell) == {str(bell)}
    (tree / "a.jpg.webp").unlink()
    assert news_until(watcher, bell) == {str(tree), str(bell)}


def test_names_that_are_not_utf_8_are_told_as_python_writes_them(watcher: FileWatcher, tree: Path, bell: Path) -> None:
    folder = os.path.join(tree, os.fsdecode(b"\xff\xfe"))
    os.mkdir(folder)
    assert watcher.watch(folder)
    with open(os.path.join(folder, "a.jpg"), "wb"):
        pass
    assert folder in news_until(watcher, bell)


def test_a_moved_directory_is_never_told_by_its_old_path_and_a_new_one_there_is_watched_anew(
    watcher: FileWatcher, tree: Path, bell: Path
) -> None:
    below = tree / "old" / "below"
    below.mkdir(parents=True)
    (tree / "older").mkdir()
    for folder in (tree / "old", below, tree / "older"):
        assert watcher.watch(str(folder))
    (tree / "old").rename(tree / "new")
    news_until(watcher, bell)
    assert watcher.watches == kernel_watches() == len({tree, bell, tree / "older"})
    (tree / "new" / "below" / "a.jpg").write_bytes(b"x")
    assert news_until(watcher, bell) == {str(bell)}

    assert watcher.watch(str(tree / "new" / "below"))
    below.mkdir(parents=True)
    assert watcher.watch(str(below))
    for folder in (tree / "new" / "below", below, tree / "older"):
        (folder / "b.jpg").write_bytes(b"x")
        assert news_until(watcher, bell) >= {str(folder), str(bell)}


def test_a_directory_watched_by_its_new_path_before_its_move_was_told_is_told_by_the_new_one(
    watcher: FileWatcher, bell: Path, tmp_path: Path
) -> None:
    (tmp_path / "old").mkdir()
    assert watcher.watch(str(tmp_path / "old"))
    (tmp_path / "old").rename(tmp_path / "new")  # in a directory that is not watched: nobody tells
    assert watcher.watch(str(tmp_path / "new"))
    (tmp_path / "new" / "a.jpg").write_bytes(b"x")
    assert news_until(watcher, bell) == {str(tmp_path / "new"), str(bell)}
    (tmp_path / "old").mkdir()
    assert watcher.watch(str(tmp_path / "old"))
    (tmp_path / "old" / "a.jpg").write_bytes(b"x")
    assert news_until(watcher, bell) == {str(tmp_path / "old"), str(bell)}


def test_a_removed_directory_is_forgotten_and_one_made_again_is_watched_anew(
    watcher: FileWatcher, tree: Path, bell: Path
) -> None:
    folder = tree / "a"
    for _ in range(2):
        folder.mkdir()
        assert watcher.watch(str(folder))
        (folder / "a.jpg").write_bytes(b"x")
        assert str(folder) in news_until(watcher, bell)
        shutil.rmtree(folder)
        assert str(folder) not in news_until(watcher, bell)
        assert watcher.watches == len({tree, bell})


def test_an_unmounted_file_system_is_forgotten(watcher: FileWatcher, bell: Path, tmp_path: Path) -> None:
    folder = tmp_path / "mount"
    folder.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "tmpfs", str(folder)], check=True)
    try:
        assert watcher.watch(str(folder))
    finally:
        subprocess.run(["umount", str(folder)], check=True)
    news_until(watcher, bell)
    assert watcher.watches == len({bell})


def test_a_directory_is_watched_once_however_often_and_from_wherever_it_is_asked_for(
    watcher: FileWatcher, tmp_path: Path
) -> None:
    folders = [tmp_path / str(n) for n in range(500)]
    for folder in folders:
        folder.mkdir()
    answers: list[bool] = []
    threads = [
        threading.Thread(target=lambda: answers.extend(watcher.watch(str(folder)) for folder in folders))
        for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert answers == [True] * 2000
    assert watcher.watches == 500


def test_what_is_no_directory_is_not_watched_and_no_failure(watcher: FileWatcher, tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    (tmp_path / "link").symlink_to(tmp_path)
    for name in ("file", "link", "missing", "file/below"):
        assert not watcher.watch(str(tmp_path / name))
    assert watcher.watches == watcher.failed == 0


def test_a_directory_that_may_not_be_read_is_a_failure_told_once(tmp_path: Path) -> None:
    tmp_path.chmod(0o700)

    def watch() -> list[object]:
        lines: list[str] = []
        handler = logging.Handler()
        handler.emit = lambda record: lines.append(record.getMessage())  # type: ignore[method-assign]
        logging.getLogger("webpd").addHandler(handler)
        watcher = FileWatcher()
        answers = [watcher.watch(str(tmp_path)), watcher.watch(str(tmp_path / "below"))]
        return [answers, watcher.failed, watcher.limited, lines]

    answers, failed, limited, lines = as_nobody(watch)
    assert answers == [False, False]
    assert (failed, limited) == (2, False)
    assert len(lines) == 1
    assert str(tmp_path) in lines[0]
    assert os.strerror(errno.EACCES) in lines[0]


def test_a_bound_of_its_own_is_kept_and_told_once(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    folders = [tmp_path / str(n) for n in range(5)]
    for folder in folders:
        folder.mkdir()
    with contextlib.closing(FileWatcher(most=3)) as watcher:
        assert [watcher.watch(str(folder)) for folder in folders] == [True, True, True, False, False]
        assert watcher.limited
        assert watcher.watches == 3
        assert watcher.watch(str(folders[0])), "those that are watched stay so"
    assert len(caplog.records) == 1
    assert "3 directories" in caplog.text


# The kernel's own limit, but for a user name space of its own: nobody else on this machine notices.
_LIMITED = """
import json, logging, os, sys
from webpd.watch import watcher
logging.basicConfig(format="%(message)s")
folders = sys.argv[1:]
watching = watcher.FileWatcher()
first = [watching.watch(folder) for folder in folders]
was = watching.limited
watcher._RETRY = 0.0
watching._ask_again = 0.0
os.rmdir(folders[0])
while watching.watches == 4:
    watching.changed(0.05)
then = [watching.watch(folder) for folder in folders[1:]]
print(json.dumps([first, was, then, watching.watches, watching.failed]))
"""


def test_when_the_kernel_has_no_watch_left_the_cure_is_told_once_and_watches_that_come_free_are_used(
    tmp_path: Path,
) -> None:
    folders = [tmp_path / str(n) for n in range(6)]
    for folder in folders:
        folder.mkdir()
    limit = 'echo 4 >/proc/sys/user/max_inotify_watches && exec "$@"'
    done = subprocess.run(
        ["unshare", "--user", "--map-root-user", "sh", "-c", limit, "sh", sys.executable, "-c", _LIMITED, *folders],
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    first, was_limited, then, watches, failed = json.loads(done.stdout)
    assert first == [True] * 4 + [False] * 2
    assert was_limited
    assert then == [True] * 4 + [False]
    assert watches == 4
    assert failed == 2, "one refusal before a pause, one after"
    assert done.stderr.count("fs.inotify.max_user_watches") == 2, "what it is, and how to set it, in one line"
    assert done.stderr.count("\n") == 1


_NONE = """
from webpd.errors import UnfitError
from webpd.watch.watcher import FileWatcher
try:
    FileWatcher()
except UnfitError as error:
    print(error)
"""


def test_where_there_is_no_inotify_left_the_error_says_what_to_raise() -> None:
    limit = 'echo 0 >/proc/sys/user/max_inotify_instances && exec "$@"'
    done = subprocess.run(
        ["unshare", "--user", "--map-root-user", "sh", "-c", limit, "sh", sys.executable, "-c", _NONE],
        capture_output=True,
        text=True,
        check=True,
    )
    assert "fs.inotify.max_user_instances" in done.stdout


_OVERFLOWN = """
import json, logging, sys
from webpd.watch.watcher import FileWatcher
logging.basicConfig(format="%(message)s")
watching = FileWatcher()
watching.watch(sys.argv[1])
print("ready", flush=True)
while not watching.overflows:
    watching.changed(0.05)
print(json.dumps(watching.watch(sys.argv[1])), flush=True)
"""


def test_lost_events_are_counted_and_told_in_one_line(tmpfs: Callable[[str], Path]) -> None:
    folder = tmpfs("size=64m")
    events = int(Path("/proc/sys/fs/inotify/max_queued_events").read_text())
    process = subprocess.Popen(
        [sys.executable, "-c", _OVERFLOWN, str(folder)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    with process:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        process.send_signal(signal.SIGSTOP)  # a service that gets no processor time
        for n in range(events):
            (folder / str(n)).touch()
        process.send_signal(signal.SIGCONT)
        out, err = process.communicate(timeout=60)
    assert json.loads(out) is True, "it goes on watching"
    assert err.count("\n") == 1
    assert "fs.inotify.max_queued_events" in err


_BURST = """
import sys
folders, files = sys.argv[2:], int(sys.argv[1])
for n in range(files):
    for folder in folders:
        with open(f"{folder}/{n:032x}.jpg", "wb") as file:
            file.write(b"x")
"""


def test_after_a_burst_by_another_process_every_directory_is_told_when_its_last_file_is_there(
    watcher: FileWatcher, bell: Path, tmpfs: Callable[[str], Path], prove: bool
) -> None:
    tree = tmpfs("size=512m")
    files = 1000 if prove else 100
    folders = [str(tree / str(n)) for n in range(50)]
    for folder in folders:
        os.mkdir(folder)
        assert watcher.watch(folder)
    seen = dict.fromkeys(folders, 0)
    with subprocess.Popen([sys.executable, "-c", _BURST, str(files), *folders]) as writer:
        while writer.poll() is None:
            for folder in watcher.changed(0.1):
                seen[folder] = len(os.listdir(folder))
    for folder in news_until(watcher, bell) - {str(bell)}:
        seen[folder] = len(os.listdir(folder))
    assert seen == dict.fromkeys(folders, files)
    assert watcher.overflows == 0


def test_waiting_ends_empty_when_the_time_is_up_and_when_the_watcher_is_closed(tree: Path) -> None:
    watcher = FileWatcher()
    assert watcher.watch(str(tree))
    assert watcher.changed(0.01) == set()
    answers: list[set[str]] = []
    waiting = threading.Thread(target=lambda: answers.append(watcher.changed(600.0)))
    waiting.start()
    watcher.close()
    waiting.join()
    assert answers == [set()]
    assert not watcher.watch(str(tree))
    watcher.close()


def test_a_closed_watcher_leaves_no_descriptor_and_no_thread(tmp_path: Path) -> None:
    descriptors, threads = len(os.listdir("/proc/self/fd")), threading.active_count()
    for _ in range(5):
        watcher = FileWatcher()
        assert watcher.watch(str(tmp_path))
        watcher.close()
    assert len(os.listdir("/proc/self/fd")) == descriptors
    assert threading.active_count() == threads


_NAMES = st.sampled_from(["a", "b", "a/a", "a/b", "b/a", "a/a/a", "a/a/b"])
_CHANGES = st.lists(
    st.one_of(
        st.tuples(st.just("make"), _NAMES, _NAMES),
        st.tuples(st.just("move"), _NAMES, _NAMES),
        st.tuples(st.just("remove"), _NAMES, _NAMES),
        st.tuples(st.just("follow"), _NAMES, _NAMES),
    ),
    max_size=20,
)


@settings(max_examples=30, deadline=None)
@given(changes=_CHANGES)
def test_whatever_was_made_moved_and_removed_who_follows_the_news_is_told_of_every_directory_by_its_path(
    changes: list[tuple[str, str, str]],
) -> None:
    with tempfile.TemporaryDirectory() as folder, contextlib.closing(FileWatcher()) as watcher:
        bell, tree = Path(folder, "bell"), Path(folder, "tree")
        for each in (bell, tree):
            each.mkdir()
            assert watcher.watch(str(each))

        def follow() -> None:
            for told in news_until(watcher, bell):
                for path, _, _ in os.walk(told):
                    assert watcher.watch(path)

        for what, name, other in changes:
            with contextlib.suppress(OSError):  # some can't be: into itself, onto one that is not empty
                if what == "make":
                    (tree / name).mkdir(parents=True)
                elif what == "move":
                    (tree / name).rename(tree / other)
                elif what == "remove":
                    shutil.rmtree(tree / name)
                else:
                    follow()
        follow()
        news_until(watcher, bell)
        present = {path for path, _, _ in os.walk(tree)}
        assert watcher.watches == len(present | {str(bell)})
        for path in present:
            Path(path, "photo.jpg").write_bytes(b"x")
        assert news_until(watcher, bell) == present | {str(bell)}
