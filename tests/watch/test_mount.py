"""Which file system a path is on, told by the kernel's own list."""

import subprocess
from collections.abc import Callable
from pathlib import Path

from webpd.watch.mount import mount_of


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
    tmpfs: Callable[[str], Path], tmp_path: Path
) -> None:
    folder = tmpfs("size=1m") / "with space"
    folder.mkdir()
    subprocess.run(["mount", "-t", "ramfs", "ramfs", str(folder)], check=True)
    try:
        assert mount_of(str(folder)).kind == "ramfs"
    finally:
        subprocess.run(["umount", str(folder)], check=True)
    assert mount_of(str(folder)).kind == "tmpfs"


def test_disks_of_this_machine_are_local_and_the_proc_file_system_is_not(tmpfs: Callable[[str], Path]) -> None:
    assert mount_of(str(tmpfs("size=1m"))).local
    assert not mount_of("/proc/self").local
