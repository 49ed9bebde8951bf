"""When originals go, our sidecars and their empty folders go too, and nothing else."""

import os
import shutil
import time
from collections.abc import Callable
from pathlib import Path

from tests.conftest import write
from tests.service.driver import Service, sidecars

SOON = {"WEBPD_PRUNE_AFTER": "1", "WEBPD_PRUNE_FOLDERS_AFTER": "1"}


def lay_out(root: Path, images: int, data: bytes) -> list[Path]:
    """Lay out images as Bitrix does: each second one, as with original names kept, in folders of its own."""
    paths = []
    for number in range(images):
        folder = f"abc/{number:032}" if number % 2 else f"{number // 20:05}"
        paths.append(write(root / "iblock" / folder / "100_100_1" / f"{number}.jpg", data))
    return paths


def empty_folders(root: Path) -> list[str]:
    return [folder for folder, folders, files in os.walk(root) if not folders and not files]


def test_sidecars_and_folders_of_deleted_originals_go_and_foreign_files_and_copies_stay(
    tmpfs: Callable[[str], Path], service: Callable[..., Service], photograph: Callable[..., bytes], prove: bool
) -> None:
    tree, deleted = tmpfs("size=1g"), 1000 if prove else 100
    images = lay_out(tree, 6 * deleted, photograph(40))
    one = service(tree, **SOON)
    one.start()
    one.wait_until(lambda: one.outcomes()["converted"] == len(images), seconds=600 if prove else 60)
    one.settle()

    going, staying = images[:deleted], images[deleted:]
    ours = Path(f"{going[0]}.webp")
    foreign = write(going[1].parent / "foreign.jpg.webp", b"RIFF\x04\0\0\0WEBP")
    without_original = write(going[3].parent / "photo.png.webp", ours.read_bytes()[:-10])
    copy = going[5].parent / "copy.jpg.webp"
    time.sleep(0.02)  # so that its time is another one also where the clock of the file system is coarse
    shutil.copyfile(ours, copy)
    one.settle()
    for image in going:
        image.unlink()
    one.wait_until(lambda: one.health()["pruned"] >= deleted, "all of them are pruned", 120)
    one.wait_until(lambda: not empty_folders(tree), "the empty folders go too")
    one.settle()
    assert not [image for image in going if os.path.exists(f"{image}.webp")]
    assert [path for path in (foreign, without_original, copy) if path.exists()] == [foreign, without_original, copy]
    assert [image for image in staying if not os.path.exists(f"{image}.webp")] == []
    assert len(sidecars(tree)) == len(staying) + 3
    assert one.health()["pruned"] == deleted
    assert going[1].parent.exists()


def test_a_folder_that_bitrix_has_just_made_is_left_alone(
    tmp_path: Path, service: Callable[..., Service], photograph: Callable[..., bytes]
) -> None:
    tree = tmp_path / "tree"
    image, *_ = lay_out(tree, 2, photograph(40))
    one = service(tree, WEBPD_PRUNE_AFTER="1")
    one.start()
    one.wait_until(lambda: os.path.exists(f"{image}.webp"))
    new = tree / "iblock" / "new" / "100_100_1"
    new.mkdir(parents=True)
    image.unlink()
    one.wait_until(lambda: one.health()["pruned"] == 1, "the sidecar goes")
    one.settle()
    assert new.exists()
    assert image.parent.exists()  # it is empty, and younger than ten minutes


def test_an_original_that_comes_back_in_time_keeps_its_sidecar(
    tmp_path: Path, service: Callable[..., Service], photograph: Callable[..., bytes]
) -> None:
    tree = tmp_path / "tree"
    images = lay_out(tree, 2, photograph(40))
    one = service(tree, WEBPD_PRUNE_AFTER="6")
    one.start()
    one.wait_until(lambda: one.outcomes()["converted"] == 2)
    aside, sidecar = tmp_path / "aside.jpg", os.stat(f"{images[0]}.webp")
    os.rename(images[0], aside)
    one.wait_until(lambda: one.root()["orphans"] == 1, "the orphan is seen")
    os.rename(aside, images[0])
    one.wait_until(lambda: one.root()["orphans"] == 0, "it is none any more")
    one.settle()
    assert os.stat(f"{images[0]}.webp").st_ino == sidecar.st_ino
    assert one.health()["pruned"] == 0


def test_where_most_of_a_tree_vanishes_nothing_is_pruned_and_the_log_says_why(
    tmpfs: Callable[[str], Path], service: Callable[..., Service], photograph: Callable[..., bytes], prove: bool
) -> None:
    tree, count = tmpfs("size=1g"), 2000 if prove else 200
    images = lay_out(tree, count, photograph(40))
    one = service(tree, **SOON)
    one.start()
    one.wait_until(lambda: one.outcomes()["converted"] == count, seconds=600 if prove else 60)
    one.settle()
    vanished = images[: count * 9 // 10]
    for image in vanished:
        image.unlink()
    one.wait_until(lambda: one.root()["orphans"] == len(vanished), "the orphans are counted")
    one.wait_until(lambda: one.said("prune") or one.said("orphan"), "the log says why nothing is pruned")
    one.settle()
    assert one.health()["pruned"] == 0
    assert len(sidecars(tree)) == count
