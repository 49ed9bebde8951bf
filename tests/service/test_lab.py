"""The laboratory is what it claims to be: a test that rests on a fault that never happened proves nothing."""

import errno
import os
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.lab import SshfsLab, sshfs_lab, wait_for

ROUND_TRIP = 0.02
# Nothing is cached, so that every look is a call.
UNCACHED = ("dcache_timeout=0", "attr_timeout=0", "entry_timeout=0", "ServerAliveInterval=5")


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SshfsLab]:
    with sshfs_lab(tmp_path_factory.mktemp("lab"), ROUND_TRIP, UNCACHED, count=True) as one:
        yield one


def answers(path: Path) -> int:
    """Return 0, or the error that looking at the path ends with."""
    try:
        os.stat(path)
    except OSError as error:
        return error.errno or -1
    return 0


def test_what_is_written_at_the_origin_is_read_through_the_mount_and_the_other_way_round(lab: SshfsLab) -> None:
    (lab.origin / "one").write_bytes(b"1")
    assert (lab.mnt / "one").read_bytes() == b"1"
    (lab.mnt / "two").write_bytes(b"2")
    assert (lab.origin / "two").read_bytes() == b"2"


def test_every_call_takes_a_round_trip_and_calls_side_by_side_share_it(lab: SshfsLab) -> None:
    paths = []
    for number in range(20):
        folder = lab.origin / f"folder{number}"
        folder.mkdir()
        paths.append(lab.mnt / folder.name / "absent")
    begun = time.monotonic()
    assert [answers(path) for path in paths] == [errno.ENOENT] * 20
    one_by_one = time.monotonic() - begun
    assert one_by_one >= 20 * ROUND_TRIP
    threads = [threading.Thread(target=answers, args=(path,)) for path in paths]
    begun = time.monotonic()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert time.monotonic() - begun < one_by_one


def test_a_long_file_is_not_slowed_by_the_round_trip(lab: SshfsLab) -> None:
    (lab.origin / "long").write_bytes(os.urandom(8 << 20))
    begun = time.monotonic()
    assert len((lab.mnt / "long").read_bytes()) == 8 << 20
    assert time.monotonic() - begun < (8 << 20) / (32 << 10) * ROUND_TRIP  # what one piece at a time would take


def test_the_calls_of_the_mount_are_counted(lab: SshfsLab) -> None:
    before = lab.calls()
    (lab.mnt / "counted").mkdir()
    assert lab.calls()["mkdir"] == before["mkdir"] + 1
    assert lab.calls().total() > before.total()


def test_a_stopped_server_makes_calls_hang_until_it_goes_on(lab: SshfsLab) -> None:
    lab.stop()
    thread = threading.Thread(target=answers, args=(lab.mnt,))
    thread.start()
    thread.join(0.5)
    assert thread.is_alive()
    lab.cont()
    thread.join(30)
    assert not thread.is_alive()


def test_a_killed_server_gives_errors_until_it_is_back(lab: SshfsLab) -> None:
    lab.kill_sshd()
    wait_for(lambda: answers(lab.mnt), "an error")
    lab.start_sshd()
    wait_for(lambda: not answers(lab.mnt), "the mount connects again")


def test_a_killed_sshfs_leaves_a_dead_mount_that_can_be_replaced(lab: SshfsLab) -> None:
    lab.kill_sshfs()
    assert answers(lab.mnt) == errno.ENOTCONN
    lab.mount()
    assert answers(lab.mnt) == 0


def test_an_unmounted_folder_is_empty_until_it_is_mounted_again(lab: SshfsLab) -> None:
    (lab.origin / "there").touch()
    lab.unmount()
    assert list(lab.mnt.iterdir()) == []
    lab.mount()
    assert list(lab.mnt.iterdir())
