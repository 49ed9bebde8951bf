"""Whatever changes in a tree is found, with events or without, and a restart looks at nothing that stayed as it was."""

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.conftest import write
from tests.lab import SshfsLab
from tests.service.driver import Service, shows
from tests.service.writers import finish, start

WATCHES = ("inotify", "poll")


@pytest.mark.parametrize("watch", WATCHES)
def test_new_moved_replaced_and_deleted_images_are_found(
    watch: str, tmp_path: Path, service: Callable[..., Service], photograph: Callable[..., bytes]
) -> None:
    tree = tmp_path / "tree"
    first = write(tree / "a" / "first.jpg", photograph(160))
    elsewhere = tmp_path / "elsewhere"
    for number in range(3):
        write(elsewhere / "deep" / f"{number}.jpg", photograph(140, "coffee.png"), mtime=1_500_000_000)
    one = service(tree, WEBPD_WATCH=watch, WEBPD_PRUNE_AFTER="1")
    one.start()
    one.wait_until(lambda: shows(first), "what was there")
    new = write(tree / "b" / "c" / "d" / "new.JPG", photograph(150))
    os.rename(elsewhere, tree / "moved")
    replacement = write(tree / "a" / "part", photograph(120, "coffee.png"))
    os.rename(replacement, first)
    one.wait_until(lambda: shows(first), "the replaced one")
    one.wait_until(lambda: shows(new), "a new one in new folders")
    one.wait_until(lambda: all(shows(tree / "moved" / "deep" / f"{n}.jpg") for n in range(3)), "a folder moved in")
    new.unlink()
    one.wait_until(lambda: not os.path.exists(f"{new}.webp"), "a deleted one")
    assert one.root()["watch"] == watch
    assert one.outcomes()["failed"] == 0


def test_an_overwrite_in_place_is_found_without_events_by_the_full_pass(
    tmp_path: Path, service: Callable[..., Service], photograph: Callable[..., bytes]
) -> None:
    picture = write(tmp_path / "tree" / "a" / "picture.jpg", photograph(160))
    one = service(tmp_path / "tree", WEBPD_WATCH="poll", WEBPD_FULL_INTERVAL="1")
    one.start()
    one.wait_until(lambda: shows(picture))
    picture.write_bytes(photograph(150, "coffee.png"))
    one.wait_until(lambda: shows(picture), "the picture as it is now")


def test_after_a_restart_nothing_is_listed_that_did_not_change(
    tmp_path: Path, service: Callable[..., Service], photograph: Callable[..., bytes], prove: bool
) -> None:
    tree, folders = tmp_path / "tree", 2000 if prove else 150
    data = photograph(60)
    for number in range(folders):
        write(tree / f"{number % 10}" / f"{number}" / "picture.jpg", data)
    one = service(tree, WEBPD_WATCH="poll", WEBPD_POLL_INTERVAL="0.3")
    one.start()
    one.wait_until(lambda: one.outcomes()["converted"] == folders, seconds=120)
    _rest(one)
    listed = one.root()["listed"]
    assert listed >= folders
    assert one.stop() == 0

    one.start()
    one.settle()
    assert one.root()["listed"] == 0
    assert one.root()["images"] == folders
    new = write(tree / "3" / "3" / "new.jpg", data)
    one.wait_until(lambda: shows(new))
    _rest(one)
    assert 0 < one.root()["listed"] < 12  # that one folder: before, after, and until its mtime is sure
    assert one.stop() == 0

    gone = write(tree / "4" / "while-stopped.jpg", data)
    one.start()
    one.wait_until(lambda: shows(gone))
    _rest(one)
    assert 0 < one.root()["listed"] < 12


def _rest(one: Service) -> None:
    """Wait until polling lists nothing any more: everything is settled, and old enough to be sure of."""
    one.settle()
    seen = {"listed": -1, "cycles": 0}

    def rests() -> bool:
        root = one.root()
        if root["listed"] != seen["listed"]:
            seen.update(listed=root["listed"], cycles=root["cycles"])
        return bool(root["cycles"] >= seen["cycles"] + 8)

    one.wait_until(rests, "polling lists nothing any more")


def test_new_images_at_the_other_end_of_a_mount_are_found_when_its_cache_has_passed(
    lab: SshfsLab, service: Callable[..., Service], photograph: Callable[..., bytes]
) -> None:
    first = write(lab.origin / "a" / "first.jpg", photograph(160))
    one = service(lab.mnt)
    one.start()
    one.wait_until(lambda: shows(first))
    assert one.root()["watch"] == "poll"
    assert one.said("poll")  # what was chosen, and why
    new = [
        write(lab.origin / "a" / "new.jpg", photograph(150)),
        write(lab.origin / "b" / "c" / "new.jpg", photograph(140)),
    ]
    one.wait_until(lambda: all(map(shows, new)))
    shutil.rmtree(lab.origin / "b")
    write(lab.origin / "a" / "new.jpg", photograph(130, "coffee.png"))
    one.settle()
    os.replace(write(lab.origin / "part", photograph(120, "coffee.png")), first)
    one.wait_until(lambda: shows(first), "the replaced one")
    assert one.outcomes()["failed"] == 0


def test_no_image_of_a_burst_into_a_large_tree_is_missed(
    tmpfs: Callable[[str], Path],
    tmp_path: Path,
    service: Callable[..., Service],
    photograph: Callable[..., bytes],
    prove: bool,
) -> None:
    tree = tmpfs("size=2g")
    directories, little, much = (40_000, 5_000, 50_000) if prove else (400, 200, 2_000)
    for number in range(directories):
        (tree / f"{number % 100:02}" / f"{number}").mkdir(parents=True)
    picture = write(tmp_path / "picture.jpg", photograph(16))
    one = service(tree)
    one.start()
    one.settle()
    peaks = []
    for name, count, folders in (("little", little, 5), ("much", much, 50)):
        finish(start("burst", picture, tree / name, folders, count // folders))
        one.wait_until(lambda: len(_sidecars(tree / name)) == count, f"{count} sidecars", 1200)  # noqa: B023 - now
        one.settle(300)
        peaks.append(one.peak_memory())
    print(f"peak memory: {peaks[0] >> 10} MiB after {little:,} images, {peaks[1] >> 10} MiB after {much:,}")
    assert peaks[1] <= peaks[0] * 1.2
    assert one.outcomes()["failed"] == 0


def _sidecars(root: Path) -> list[str]:
    return [name for _, _, names in os.walk(root) for name in names if name.endswith(".jpg.webp")]
