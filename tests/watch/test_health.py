"""Whether the mount under a root is fit for work: real mounts, really broken."""

import errno
import os
import shutil
import signal
import subprocess
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.lab import SshfsLab, sshfs_lab, wait_for
from webpd.watch import health
from webpd.watch.health import Health, MountProbe
from webpd.watch.mount import mount_of


def probe(root: Path, seconds: float = 5.0) -> MountProbe:
    return MountProbe(str(root), mount_of(str(root)), seconds)


def probe_threads() -> int:
    return sum(thread.name == "mount-probe" for thread in threading.enumerate())


def failure(write: Callable[[], object], *numbers: int) -> OSError:
    """Return the error that the function raises; its number must be one of these."""
    with pytest.raises(OSError, check=lambda error: error.errno in numbers) as failed:
        write()
    return failed.value


def write_files(folder: Path, count: int, size: int) -> None:
    for n in range(count):
        (folder / f"{n}.webp").write_bytes(b"x" * size)


@pytest.fixture
def lab(tmp_path: Path) -> Iterator[SshfsLab]:
    with sshfs_lab(tmp_path) as laboratory:
        yield laboratory


def test_a_sound_root_is_well_locally_and_over_sshfs_and_nothing_is_said(lab: SshfsLab, tmp_path: Path) -> None:
    for root in (tmp_path, lab.mnt):
        asked = probe(root)
        assert asked.look() is Health.WELL
        assert asked.detail == ""
    assert probe_threads() == 0


def test_killed_sshfs_is_dead_and_so_is_blamed_and_well_when_mounted_again(lab: SshfsLab) -> None:
    asked = probe(lab.mnt)
    lab.kill_sshfs()
    assert asked.look() is Health.DEAD
    assert str(lab.mnt) in asked.detail
    assert asked.blame(failure((lab.mnt / "photo.jpg").read_bytes, errno.ENOTCONN)) is Health.DEAD
    lab.unmount()
    lab.mount()
    assert asked.look() is Health.WELL
    assert asked.detail == ""


def test_a_killed_server_is_dead_until_it_is_back(lab: SshfsLab) -> None:
    asked = probe(lab.mnt)
    lab.kill_sshd()
    wait_for(lambda: asked.look() is Health.DEAD, "the mount is dead")
    lab.start_sshd()
    wait_for(lambda: asked.look() is Health.WELL, "the mount is well again")


def test_a_server_that_answers_nothing_is_hung_with_one_thread_and_well_when_it_goes_on(lab: SshfsLab) -> None:
    asked = probe(lab.mnt, 0.3)
    lab.stop()
    try:
        assert [asked.look() for _ in range(3)] == [Health.HUNG] * 3
        assert probe_threads() == 1
        assert f"`umount -f -l {lab.mnt}` ends what hangs" in asked.detail
    finally:
        lab.cont()
    wait_for(lambda: asked.look() is Health.WELL, "the mount is well again")
    wait_for(lambda: probe_threads() == 0, "the thread has ended")


def test_a_mount_put_in_place_of_one_that_hangs_is_well_at_once(lab: SshfsLab) -> None:
    asked = probe(lab.mnt, 0.3)
    hanging, lab._sshfs = lab._sshfs, None  # the laboratory is not to end it
    assert hanging is not None
    hanging.send_signal(signal.SIGSTOP)
    try:
        assert asked.look() is Health.HUNG
        lab.unmount()
        assert asked.look() is Health.UNMOUNTED
        lab.mount()
        wait_for(lambda: asked.look() is Health.WELL, "the new mount is well")
        assert probe_threads() == 1
    finally:
        hanging.kill()
        hanging.wait()
    wait_for(lambda: probe_threads() == 0, "the thread has ended")


def test_many_workers_that_fail_on_a_hung_mount_cost_one_thread(lab: SshfsLab) -> None:
    asked = probe(lab.mnt, 0.3)
    blamed: list[Health | None] = []
    lab.stop()
    try:
        error = OSError(errno.EIO, os.strerror(errno.EIO))
        workers = [threading.Thread(target=lambda: blamed.append(asked.blame(error))) for _ in range(8)]
        for worker in workers:
            worker.start()
        for worker in workers:
            worker.join()
        assert probe_threads() == 1
    finally:
        lab.cont()
    assert blamed == [Health.HUNG] * 8


def test_a_root_whose_mount_went_away_is_unmounted_and_well_when_mounted_again(lab: SshfsLab) -> None:
    below = lab.origin / "upload" / "resize_cache"
    below.mkdir(parents=True)
    for root in (lab.mnt, lab.mnt / "upload" / "resize_cache"):
        asked = probe(root)
        lab.unmount()
        assert asked.look() is Health.UNMOUNTED
        assert "fuse.sshfs" in asked.detail
        assert asked.blame(failure((root / "photo.jpg").read_bytes, errno.ENOENT)) is Health.UNMOUNTED
        lab.mount()
        assert asked.look() is Health.WELL


def test_another_file_system_mounted_over_a_root_is_not_taken_for_it(
    tmpfs: Callable[[str], Path], tmp_path: Path
) -> None:
    folder = tmpfs("size=1m") / "folder"
    folder.mkdir()
    asked = probe(folder)
    subprocess.run(["mount", "-t", "ramfs", "ramfs", str(folder)], check=True)
    try:
        assert asked.look() is Health.UNMOUNTED
        assert "ramfs" in asked.detail
    finally:
        subprocess.run(["umount", str(folder)], check=True)
    assert asked.look() is Health.WELL


def test_a_root_that_was_removed_is_dead_and_the_administrator_is_told_which(tmp_path: Path) -> None:
    root = tmp_path / "tree"
    root.mkdir()
    asked = probe(root)
    root.rmdir()
    assert asked.look() is Health.DEAD
    assert f"{root}: no such folder" in asked.detail
    root.mkdir()
    assert asked.look() is Health.WELL


def test_a_file_system_remounted_read_only_is_told_and_blamed_until_it_is_writable(
    tmpfs: Callable[[str], Path],
) -> None:
    root = tmpfs("size=1m")
    asked = probe(root)
    subprocess.run(["mount", "-o", "remount,ro", str(root)], check=True)
    assert asked.look() is Health.READ_ONLY
    assert asked.blame(failure((root / "photo.jpg.webp").touch, errno.EROFS)) is Health.READ_ONLY
    subprocess.run(["mount", "-o", "remount,rw", str(root)], check=True)
    assert asked.look() is Health.WELL


def test_a_disk_without_blocks_is_full_once_writing_failed_and_until_there_is_room(
    tmpfs: Callable[[str], Path],
) -> None:
    root = tmpfs("size=256k")
    asked = probe(root)
    error = failure(lambda: write_files(root, 5, 65_536), errno.ENOSPC)
    assert asked.look() is Health.WELL, "nobody failed to write yet"
    assert asked.blame(error) is Health.FULL
    assert asked.look() is Health.FULL
    assert "full" in asked.detail
    (root / "0.webp").unlink()
    assert asked.look() is Health.WELL


def test_a_disk_without_inodes_is_full_until_a_file_goes(tmpfs: Callable[[str], Path]) -> None:
    root = tmpfs("size=1m,nr_inodes=4")
    asked = probe(root)
    assert asked.blame(failure(lambda: write_files(root, 4, 0), errno.ENOSPC)) is Health.FULL
    assert asked.look() is Health.FULL
    assert "inodes" in asked.detail
    (root / "0.webp").unlink()
    assert asked.look() is Health.WELL


def test_where_writing_fails_although_there_is_room_it_is_tried_again_after_a_while(
    tmpfs: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    root = tmpfs("size=64k")
    asked = probe(root)
    with (root / "photo.jpg.webp").open("wb") as file:
        error = failure(lambda: os.posix_fallocate(file.fileno(), 0, 1 << 20), errno.ENOSPC)
    assert os.statvfs(root).f_bfree > 0
    assert asked.blame(error) is Health.FULL
    assert asked.look() is Health.FULL
    assert "quota" in asked.detail
    monkeypatch.setattr(health, "_RETRY", 0.0)
    assert asked.look() is Health.WELL


@pytest.mark.parametrize("options", ["size=256k", "size=8m,nr_inodes=8"])
def test_a_full_disk_at_the_origin_is_told_from_a_fault_of_a_file_behind_sshfs(tmp_path: Path, options: str) -> None:
    origin = tmp_path / "origin"
    origin.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(origin)], check=True)
    try:
        with sshfs_lab(tmp_path) as lab:
            asked = probe(lab.mnt)
            error = failure(lambda: write_files(lab.mnt, 8, 65_536), errno.EIO, errno.EPERM)
            assert asked.blame(error) is Health.FULL
            assert asked.look() is Health.FULL
            for path in origin.iterdir():
                path.unlink()
            assert asked.look() is Health.WELL
            assert asked.blame(error) is None
    finally:
        subprocess.run(["umount", "-l", str(origin)], check=True)


@pytest.mark.parametrize(
    "number", [errno.EIO, errno.EPERM, errno.ESTALE, errno.EACCES, errno.ENOENT, errno.ENAMETOOLONG]
)
def test_the_mount_is_not_blamed_for_one_file_on_a_sound_disk(tmp_path: Path, number: int) -> None:
    assert shutil.disk_usage(tmp_path).free > 0
    assert probe(tmp_path).blame(OSError(number, os.strerror(number))) is None


@pytest.mark.parametrize(
    ("number", "answer"),
    [
        (errno.ENOTCONN, Health.DEAD),
        (errno.ECONNABORTED, Health.DEAD),
        (errno.EHOSTDOWN, Health.DEAD),
        (errno.ETIMEDOUT, Health.DEAD),
        (errno.EROFS, Health.READ_ONLY),
        (errno.ENOSPC, Health.FULL),
        (errno.EDQUOT, Health.FULL),
    ],
)
def test_an_error_that_is_never_one_files_own_is_the_mounts(tmp_path: Path, number: int, answer: Health) -> None:
    asked = probe(tmp_path)
    assert asked.blame(OSError(number, os.strerror(number))) is answer
    assert str(tmp_path) in asked.detail


def test_what_a_disk_keeps_for_root_is_room_for_root_here_and_for_nobody_at_the_origin(
    lab: SshfsLab, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    reserve_left = os.statvfs_result((4096, 4096, 1000, 50, 0, 1000, 500, 500, 0, 255))
    monkeypatch.setattr(os, "statvfs", lambda _: reserve_left)
    error = PermissionError(errno.EPERM, os.strerror(errno.EPERM))
    assert probe(tmp_path).blame(error) is None
    assert probe(lab.mnt).blame(error) is Health.FULL
