"""Which file system a path is on, told by the kernel's own list, and how long it may answer from memory."""

import contextlib
import os
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.lab import sshfs_lab
from webpd.watch.mount import Mount, cache_time, mount_at, mount_of, mounts_below


@contextlib.contextmanager
def mounted(kind: str, folder: Path) -> Iterator[Path]:
    folder.mkdir(exist_ok=True)
    subprocess.run(["mount", "-t", kind, kind, str(folder)], check=True)
    try:
        yield folder
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)


def test_the_nearest_mount_above_a_path_is_told_also_through_a_link(
    tmpfs: Callable[[str], Path], tmp_path: Path
) -> None:
    folder = tmpfs("size=1m")
    (folder / "a" / "b").mkdir(parents=True)
    (tmp_path / "link").symlink_to(folder / "a")
    for path in (folder, folder / "a" / "b", tmp_path / "link" / "b"):
        assert mount_of(str(path)).point == str(folder)
        assert mount_of(str(path)).kind == "tmpfs"
    assert mount_of(str(tmp_path)).point != str(folder)
    assert mount_of(f"{folder}-not-it").point != str(folder)


def test_a_mount_over_another_hides_it_and_names_with_spaces_are_known(
    tmpfs: Callable[[str], Path],
) -> None:
    folder = tmpfs("size=1m") / "with space"
    with mounted("ramfs", folder):
        assert mount_of(str(folder)).kind == "ramfs"
    assert mount_of(str(folder)).kind == "tmpfs"


def test_disks_of_this_machine_are_local_and_the_proc_file_system_is_not(tmpfs: Callable[[str], Path]) -> None:
    assert mount_of(str(tmpfs("size=1m"))).local
    assert not mount_of("/proc/self").local


def test_a_mount_that_another_one_above_it_hides_is_neither_told_nor_taken_for_the_holder(
    tmpfs: Callable[[str], Path],
) -> None:
    folder = tmpfs("size=1m") / "folder"
    below = folder / "below"
    below.mkdir(parents=True)
    with mounted("ramfs", below):
        assert [mount.point for mount in mounts_below(str(folder))] == [str(below)]
        with mounted("ramfs", folder):
            assert mounts_below(str(folder)) == []
            assert mount_at(str(below)).point == str(folder)
        assert mount_at(str(below)).point == str(below)


def test_all_that_is_mounted_inside_a_folder_is_told_once_and_the_folder_itself_is_not(
    tmpfs: Callable[[str], Path], tmp_path: Path
) -> None:
    folder = tmpfs("size=1m")
    (tmp_path / "link").symlink_to(folder)
    with mounted("ramfs", folder / "b"), mounted("tmpfs", folder / "a"), mounted("ramfs", folder / "a"):
        for path in (folder, tmp_path / "link"):
            assert [(mount.point, mount.kind) for mount in mounts_below(str(path))] == [
                (str(folder / "a"), "ramfs"),
                (str(folder / "b"), "ramfs"),
            ]
        assert mounts_below(str(folder / "b")) == []


def test_a_mount_tells_its_device_and_source(tmpfs: Callable[[str], Path]) -> None:
    folder = tmpfs("size=1m")
    assert mount_of(str(folder)).device == os.stat(folder).st_dev
    assert mount_of(str(folder)).source == "tmpfs"


def test_inotify_is_trusted_where_it_tells_every_change(tmpfs: Callable[[str], Path]) -> None:
    assert mount_of(str(tmpfs("size=1m"))).reports_all_changes
    for kind in ("overlay", "nfs4", "cifs", "fuse.sshfs", "fuse.unknown"):
        assert not Mount("/", kind).reports_all_changes


@pytest.mark.parametrize(
    ("options", "seconds"),
    [
        ((), 20 + 1),
        (("dcache_timeout=7",), 7 + 1),
        (("dcache_timeout=3", "dcache_stat_timeout=9"), 9 + 1),
        (("dcache_dir_timeout=40", "attr_timeout=5"), 40 + 5),
        (("dir_cache=no",), 1),
    ],
)
def test_sshfs_tells_by_its_options_how_stale_it_may_be(
    tmp_path: Path, options: tuple[str, ...], seconds: float
) -> None:
    with sshfs_lab(tmp_path, options=options) as lab:
        assert cache_time(mount_of(str(lab.mnt))) == seconds


@pytest.mark.parametrize(
    ("kind", "options", "seconds"),
    [
        ("ext4", (), 0),
        ("tmpfs", (), 0),
        ("nfs4", ("rw", "vers=4.2", "hard"), 60),
        ("nfs", ("acregmin=1", "acregmax=5", "acdirmin=1", "acdirmax=10"), 10),
        ("nfs4", ("acregmax=5",), 60),
        ("nfs4", ("noac", "acregmax=0"), 0),
        ("cifs", ("rw", "actimeo=30"), 30),
        ("cifs", ("acregmax=1", "acdirmax=60"), 60),
        ("cifs", (), 1),
        ("fuse.sshfs", (), 21),
        ("fuse.rclone", (), 20),
    ],
)
def test_other_file_systems_tell_by_their_options_or_are_taken_at_their_default(
    kind: str, options: tuple[str, ...], seconds: float
) -> None:
    assert cache_time(Mount("/nowhere/at/all", kind, options=options)) == seconds
