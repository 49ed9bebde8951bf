"""The disk is full, or read-only: the work waits, says so, leaves nothing broken, and goes on when it can."""

import contextlib
import os
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.conftest import Ended, write
from tests.lab import SshfsLab, sshfs_lab
from tests.service.driver import Service, leftovers, sidecars

IMAGES = 24


@pytest.fixture
def images(photograph: Callable[..., bytes]) -> Callable[[Path], None]:
    """Return a function that lays out images below a folder."""

    def lay_out(root: Path) -> None:
        for number in range(IMAGES):
            write(root / f"{number % 5}" / f"{number}.jpg", photograph(200))

    return lay_out


def fill(root: Path) -> Path:
    """Leave room for a few sidecars only, and return what takes it."""
    ballast = root / "ballast"
    with ballast.open("wb", buffering=0) as file, contextlib.suppress(OSError):
        while file.write(bytes(1 << 12)):
            pass
    os.truncate(ballast, ballast.stat().st_size - (24 << 10))
    return ballast


def check_pause(one: Service, root: Path, mount: str) -> None:
    """The fault is seen and told, some images wait, nothing is broken."""
    one.wait_until(lambda: one.root()["mount"] == mount, f"the mount is {mount}")
    one.wait_until(lambda: one.warned(one.roots[0]), "the log says so")
    health = one.health()
    assert health["status"] == "degraded"
    assert health["roots"][0]["detail"]
    assert health["outcomes"]["failed"] == 0
    assert len(sidecars(root)) < IMAGES
    assert not [path for path in sidecars(root) if not path.stat().st_size]


def check_all_done(one: Service, root: Path, webpd: Callable[..., Ended]) -> None:
    one.wait_until(lambda: len(sidecars(root)) == IMAGES, "all is done after the fault")
    one.settle()
    assert one.root()["mount"] == "well"
    assert one.outcomes()["failed"] == 0
    assert not leftovers(root)
    verified = webpd("verify", "--json", root)
    assert (verified.code, verified.json["right"]) == (0, IMAGES)
    assert one.stop() == 0


def test_a_full_disk_pauses_the_work_until_there_is_room(
    tmpfs: Callable[[str], Path],
    service: Callable[..., Service],
    images: Callable[[Path], None],
    webpd: Callable[..., Ended],
) -> None:
    tree = tmpfs("size=2m")
    images(tree)
    ballast = fill(tree)
    one = service(tree)
    one.start()
    check_pause(one, tree, "full")
    ballast.unlink()
    check_all_done(one, tree, webpd)


def test_a_disk_without_inodes_pauses_the_work_until_there_are_some(
    tmpfs: Callable[[str], Path],
    service: Callable[..., Service],
    images: Callable[[Path], None],
    webpd: Callable[..., Ended],
) -> None:
    tree = tmpfs("size=8m,nr_inodes=200")
    images(tree)
    ballast = tree / "ballast"
    ballast.mkdir()
    while os.statvfs(tree).f_favail:
        (ballast / f"{len(os.listdir(ballast))}").touch()
    made = list(ballast.iterdir())
    for path in made[:4]:
        path.unlink()
    one = service(tree)
    one.start()
    check_pause(one, tree, "full")
    for path in made[4:]:
        path.unlink()
    check_all_done(one, tree, webpd)


@pytest.fixture
def small_origin(tmp_path: Path) -> Iterator[SshfsLab]:
    """A mount whose other end is a disk of 2 MiB."""
    (tmp_path / "origin").mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", str(tmp_path / "origin")], check=True)
    try:
        with sshfs_lab(tmp_path, options=("dcache_timeout=1", "ServerAliveInterval=15")) as one:
            yield one
    finally:
        subprocess.run(["umount", "-l", str(tmp_path / "origin")], check=True)


def test_a_full_disk_at_the_other_end_of_a_mount_pauses_the_work_until_there_is_room(
    small_origin: SshfsLab,
    service: Callable[..., Service],
    images: Callable[[Path], None],
    webpd: Callable[..., Ended],
) -> None:
    images(small_origin.origin)
    ballast = fill(small_origin.origin)
    one = service(small_origin.mnt)
    one.start()
    check_pause(one, small_origin.origin, "full")
    ballast.unlink()
    check_all_done(one, small_origin.origin, webpd)


def remount(root: Path, how: str) -> bool:
    """Remount; not possible while a file is open for writing."""
    return not subprocess.run(["mount", "-o", f"remount,{how}", str(root)], check=False, capture_output=True).returncode


def test_a_read_only_remount_pauses_the_work_until_it_is_over(
    tmpfs: Callable[[str], Path],
    service: Callable[..., Service],
    images: Callable[[Path], None],
    webpd: Callable[..., Ended],
) -> None:
    tree = tmpfs("size=8m")
    images(tree)
    one = service(tree, WEBPD_RATE_LIMIT="10/second")
    one.start()
    one.wait_until(lambda: len(sidecars(tree)) >= 2, "work has begun")
    one.wait_until(lambda: remount(tree, "ro"), "no file is open")
    check_pause(one, tree, "read_only")
    assert remount(tree, "rw")
    check_all_done(one, tree, webpd)


def test_a_read_only_disk_at_the_other_end_of_a_mount_pauses_the_work_until_it_is_over(
    small_origin: SshfsLab,
    service: Callable[..., Service],
    photograph: Callable[..., bytes],
    webpd: Callable[..., Ended],
) -> None:
    for number in range(IMAGES):  # a folder each: no call tells that the whole disk is read-only
        write(small_origin.origin / f"{number}" / "a.jpg", photograph(80))
    assert remount(small_origin.origin, "ro")
    one = service(small_origin.mnt)
    one.start()
    check_pause(one, small_origin.origin, "read_only")
    one.wait_until(lambda: remount(small_origin.origin, "rw"), "no file is open")
    check_all_done(one, small_origin.origin, webpd)
