"""Which roots the service has, and what each should be mounted on."""

import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.conftest import write
from tests.lab import sshfs_lab, wait_for
from webpd.errors import UnfitError, UsageError
from webpd.ledger.port import Directory
from webpd.ledger.sqlite import SqliteLedger
from webpd.service.places import find, has_moved, remember
from webpd.tree.naming import Exclusion
from webpd.tree.scanner import Scanner
from webpd.watch.mount import Mount, mount_of


@pytest.fixture
def ledger(tmp_path: Path) -> Iterator[SqliteLedger]:
    made = SqliteLedger(str(tmp_path / "state" / "ledger.sqlite"))
    yield made
    made.close()


@pytest.fixture
def mounted() -> Iterator[Callable[[Path], Path]]:
    """Return a function that mounts a tmpfs on a folder, which it makes."""
    done: list[Path] = []

    def mount(folder: Path) -> Path:
        folder.mkdir(parents=True, exist_ok=True)
        subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(folder)], check=True)
        done.append(folder)
        return folder

    yield mount
    for folder in reversed(done):
        if os.path.ismount(folder):
            subprocess.run(["umount", "-l", str(folder)], check=True)


def test_each_folder_named_is_a_root_on_its_mount(ledger: SqliteLedger, tmp_path: Path) -> None:
    folders = [tmp_path / "a", tmp_path / "b"]
    for folder in folders:
        folder.mkdir()
    places = find([str(folder) for folder in folders], ledger)
    assert [(place.path, place.mount) for place in places] == [(str(each), mount_of(str(tmp_path))) for each in folders]


def test_relative_paths_are_those_of_the_working_directory(
    ledger: SqliteLedger, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "a").mkdir()
    monkeypatch.chdir(tmp_path)
    assert [place.path for place in find(["a/"], ledger)] == [str(tmp_path / "a")]


def test_a_mount_below_a_root_is_a_root_of_its_own_and_no_part_of_the_one_above(
    ledger: SqliteLedger, tmp_path: Path, mounted: Callable[[Path], Path]
) -> None:
    root = tmp_path / "tree"
    write(root / "a.jpg", b"x")
    inner = mounted(root / "with space" / "inner")
    innermost = mounted(inner / "most")
    write(inner / "b.jpg", b"x")
    write(innermost / "c.jpg", b"x")
    places = find([str(root)], ledger)
    assert [place.path for place in places] == [str(root), str(inner), str(innermost)]
    assert [place.mount.point for place in places[1:]] == [str(inner), str(innermost)]
    assert places[0].mount == mount_of(str(tmp_path))
    found = [
        [job.path for look in Scanner(place.path, Exclusion((), place.apart)).walk() for job in look.jobs]
        for place in places
    ]
    assert found == [[str(root / "a.jpg")], [str(inner / "b.jpg")], [str(innermost / "c.jpg")]]


def test_a_root_named_by_a_link_has_its_inner_mounts_below_the_link(
    ledger: SqliteLedger, tmp_path: Path, mounted: Callable[[Path], Path]
) -> None:
    inner = mounted(tmp_path / "real" / "inner")
    (tmp_path / "link").symlink_to("real")
    places = find([str(tmp_path / "link")], ledger)
    assert [place.path for place in places] == [str(tmp_path / "link"), str(tmp_path / "link" / "inner")]
    assert places[1].mount.point == str(inner)
    assert places[0].apart == (str(tmp_path / "link" / "inner"),)


def test_a_file_that_something_is_mounted_on_is_no_root(ledger: SqliteLedger, tmp_path: Path) -> None:
    root = tmp_path / "tree"
    file = write(root / "file", b"")
    write(tmp_path / "other", b"")
    subprocess.run(["mount", "--bind", str(tmp_path / "other"), str(file)], check=True)
    try:
        assert [place.path for place in find([str(root)], ledger)] == [str(root)]
    finally:
        subprocess.run(["umount", "-l", str(file)], check=True)


def test_a_root_that_was_on_a_network_mount_and_is_not_now_is_waited_for_whatever_got_into_the_bare_folder(
    ledger: SqliteLedger, tmp_path: Path
) -> None:
    root = tmp_path / "tree"
    root.mkdir()
    ledger.note_kind(str(root), f"fuse.sshfs {root}")
    ledger.record(str(root), Directory("iblock", 1))
    for _ in range(2):
        (place,) = places = find([str(root)], ledger)
        assert (place.mount, place.waits) == (Mount(str(root), "fuse.sshfs"), True)
        assert place.bare == os.stat(root).st_dev
        remember(ledger, places)
        write(root / "stray.png", b"x")


def test_a_root_inside_a_network_mount_that_is_away_is_waited_for(ledger: SqliteLedger, tmp_path: Path) -> None:
    root = str(tmp_path / "upload/resize_cache")
    ledger.note_kind(root, f"fuse.sshfs {tmp_path}")
    assert [place.waits for place in find([root], ledger)] == [True]


def test_a_root_that_was_moved_from_a_network_mount_is_known_by_its_folders(
    ledger: SqliteLedger, tmp_path: Path
) -> None:
    root = tmp_path / "tree"
    image = write(root / "iblock/a.jpg", b"x")
    ledger.note_kind(str(root), f"fuse.sshfs {root}")
    ledger.record(str(root), Directory("iblock", 1))
    places = find([str(root)], ledger)
    assert places[0].mount == mount_of(str(root))
    remember(ledger, places)
    shutil.rmtree(image.parent)
    assert not find([str(root)], ledger)[0].waits  # the network mount is history


def test_an_empty_local_folder_is_just_that(
    ledger: SqliteLedger, tmp_path: Path, mounted: Callable[[Path], Path]
) -> None:
    folder = mounted(tmp_path / "tree")
    assert find([str(folder)], ledger)[0].mount.kind == "tmpfs"
    subprocess.run(["umount", "-l", str(folder)], check=True)
    assert find([str(folder)], ledger)[0].mount == mount_of(str(tmp_path))


def test_a_network_mount_whose_server_is_gone_is_a_root_to_be_waited_for(ledger: SqliteLedger, tmp_path: Path) -> None:
    with sshfs_lab(tmp_path) as lab:
        before = find([str(lab.mnt)], ledger)
        assert before[0].mount.kind == "fuse.sshfs"
        lab.kill_sshfs()
        wait_for(lambda: not os.path.exists(lab.mnt), "the mount is dead")
        (after,) = find([str(lab.mnt)], ledger)
        assert (after.path, after.mount.kind, after.mount.point) == (str(lab.mnt), "fuse.sshfs", str(lab.mnt))


def test_what_is_below_a_mount_is_told_by_its_device(
    ledger: SqliteLedger, tmp_path: Path, mounted: Callable[[Path], Path]
) -> None:
    folder = mounted(tmp_path / "tree") / "in"
    folder.mkdir()
    assert find([str(folder)], ledger)[0].bare == os.stat(tmp_path).st_dev != os.stat(folder).st_dev
    bound = tmp_path / "bound"
    bound.mkdir()
    subprocess.run(["mount", "--bind", str(tmp_path), str(bound)], check=True)
    try:
        assert find([str(bound)], ledger)[0].bare is None  # there would be no telling
    finally:
        subprocess.run(["umount", "-l", str(bound)], check=True)


@pytest.mark.parametrize(
    ("paths", "error", "told"),
    [
        ([""], UsageError, "empty path"),
        (["{tmp}/missing"], UnfitError, "no such folder"),
        (["{tmp}/file.jpg"], UsageError, "not a folder"),
        (["{tmp}/a", "{tmp}/a/b"], UsageError, "lies inside"),
        (["{tmp}/a", "{tmp}/link"], UsageError, "lies inside"),
        (["{tmp}/a", "{tmp}/a/../a"], UsageError, "lies inside"),
    ],
)
def test_what_can_be_no_root_is_refused_and_named(
    paths: list[str], error: type[Exception], told: str, ledger: SqliteLedger, tmp_path: Path
) -> None:
    (tmp_path / "a" / "b").mkdir(parents=True)
    (tmp_path / "link").symlink_to("a")
    write(tmp_path / "file.jpg", b"x")
    with pytest.raises(error, match=told):
        find([path.format(tmp=tmp_path) for path in paths], ledger)


@pytest.mark.parametrize(
    ("before", "now", "moved"),
    [
        (Mount("/srv", "autofs"), Mount("/srv", "fuse.sshfs"), True),
        (Mount("/srv", "autofs"), Mount("/srv", "autofs"), False),
        (Mount("/srv", "fuse.sshfs"), Mount("/srv", "autofs"), False),
        (Mount("/srv", "fuse.sshfs"), Mount("/", "ext4"), False),
        (Mount("/", "ext4"), Mount("/srv", "ext4"), True),
    ],
)
def test_a_root_has_moved_when_its_automount_succeeds_at_last_and_not_when_its_mount_is_gone(
    before: Mount, now: Mount, moved: bool
) -> None:
    assert has_moved(before, now) is moved
