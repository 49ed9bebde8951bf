"""Trees of any size: memory does not follow them."""

import os
from pathlib import Path

from tests.conftest import convert_measured

MTIME = 1_600_000_000


def lay_out(root: Path, entries: int) -> None:
    """Make a converted tree: folders of 25 entries, originals and fresh sidecars, of hard links to spare the disk."""
    template = root.parent / f"{root.name}-template"
    for number in range(entries // 25):
        if number % 2000 == 0:  # ext4 allows 65,000 links to one file
            template.unlink(missing_ok=True)
            template.write_bytes(b"x")
            os.utime(template, (MTIME, MTIME))
        folder = root / f"{number % 200:03x}" / f"{number}"
        folder.mkdir(parents=True)
        for entry in range(12):
            os.link(template, folder / f"photo{entry}.jpg")
            os.link(template, folder / f"photo{entry}.jpg.webp")
        os.link(template, folder / "notes.txt")
    template.unlink()


def check(root: Path) -> tuple[int, int]:
    """Return how many images `webpd convert` finds fresh, all of them, and the peak of its memory in MiB."""
    done = convert_measured(root)
    assert done.code == 0
    assert done.json["found"] == done.json["fresh"]
    return done.json["fresh"], done.memory


def test_a_converted_tree_of_any_size_is_checked_in_the_same_memory(tmp_path: Path, prove: bool) -> None:
    small, large = 2_500, 1_000_000 if prove else 50_000
    lay_out(tmp_path / "small", small)
    lay_out(tmp_path / "large", large)
    fresh, little = check(tmp_path / "small")
    assert fresh == small // 25 * 12
    fresh, most = check(tmp_path / "large")
    print(f"{large:,} entries: peak memory {most} MiB; {small:,} entries: {little} MiB")
    assert fresh == large // 25 * 12
    assert most <= 150
    assert most <= little + 20


def test_one_folder_with_very_many_images_fits_too(tmp_path: Path, prove: bool) -> None:
    images = 250_000 if prove else 10_000
    for number in range(images):
        if number % 30_000 == 0:
            template = tmp_path / f"template{number}"
            template.write_bytes(b"x")
            os.utime(template, (MTIME, MTIME))
        (tmp_path / "flat").mkdir(exist_ok=True)
        os.link(template, tmp_path / "flat" / f"photo{number}.jpg")
        os.link(template, tmp_path / "flat" / f"photo{number}.jpg.webp")
    fresh, most = check(tmp_path / "flat")
    print(f"{images:,} images in one folder: peak memory {most} MiB")
    assert fresh == images
    assert most <= 150
