"""``webpd verify``: what it finds right, and each thing that it finds wrong."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.conftest import Ended, write
from webpd.tree import sidecar
from webpd.tree.sidecar import Origin

Webpd = Callable[..., Ended]
MTIME = 1_600_000_000.5


@pytest.fixture
def tree(tmp_path: Path, photograph: Callable[..., bytes], webpd: Webpd) -> Path:
    for number in range(4):
        write(tmp_path / "tree" / f"{number}.jpg", photograph(100 + number), MTIME)
    assert webpd("convert", tmp_path / "tree").code == 0
    return tmp_path / "tree"


def problems(webpd: Webpd, tree: Path) -> dict[str, str]:
    told = webpd("verify", "--json", tree)
    assert told.code == (1 if told.json["problems_total"] else 0)
    assert told.json["problems_total"] == len(told.json["problems"])
    return {os.path.basename(one["path"]): one["problem"] for one in told.json["problems"]}


def test_a_converted_tree_is_right(webpd: Webpd, tree: Path) -> None:
    told = webpd("verify", "--json", tree)
    assert (told.code, told.json["right"], told.json["problems"]) == (0, 4, [])
    assert "nothing is wrong" in webpd("verify", tree).out


def test_a_sidecar_cut_short_or_with_other_bytes_in_it_is_broken_or_stale(webpd: Webpd, tree: Path) -> None:
    first, second = tree / "0.jpg.webp", tree / "1.jpg.webp"
    data = first.read_bytes()
    write(first, data[: len(data) // 2], MTIME)
    write(second, b"", MTIME)
    assert problems(webpd, tree) == {"0.jpg.webp": "broken", "1.jpg.webp": "broken"}


def test_a_sidecar_that_decodes_to_another_picture_than_was_written_is_broken(webpd: Webpd, tree: Path) -> None:
    webp = tree / "0.jpg.webp"
    data = webp.read_bytes()
    write(webp, data[:100] + bytes(len(data) - 200) + data[-100:], MTIME)
    assert problems(webpd, tree) == {"0.jpg.webp": "broken"}


def test_what_is_no_file_in_a_sidecars_place_is_foreign_and_never_read(webpd: Webpd, tree: Path) -> None:
    for number in range(3):
        (tree / f"{number}.jpg.webp").unlink()
    os.mkfifo(tree / "0.jpg.webp")
    (tree / "1.jpg.webp").mkdir()
    (tree / "2.jpg.webp").symlink_to("/dev/zero")
    os.mkfifo(tree / "gone.jpg.webp")
    told = webpd("verify", "--json", tree)
    assert (told.code, told.json["right"], told.json["foreign"]) == (0, 1, 4)


def test_a_sidecar_of_an_original_that_changed_is_stale_even_if_the_time_is_the_same(
    webpd: Webpd, tree: Path, photograph: Callable[..., bytes]
) -> None:
    write(tree / "0.jpg", photograph(name="coffee.png"), MTIME)
    os.utime(tree / "1.jpg", (MTIME, MTIME + 10))
    assert problems(webpd, tree) == {"0.jpg.webp": "stale", "1.jpg.webp": "stale"}


def test_a_sidecar_without_its_original_is_orphaned(webpd: Webpd, tree: Path) -> None:
    (tree / "0.jpg").unlink()
    assert problems(webpd, tree) == {"0.jpg.webp": "orphaned"}


def test_a_sidecar_that_is_not_smaller_is_told(webpd: Webpd, tree: Path) -> None:
    original, webp = tree / "0.jpg", tree / "0.jpg.webp"
    source, (origin, _) = original.read_bytes(), sidecar.read(str(webp))
    assert isinstance(origin, Origin)
    plain = sidecar.detach(webp.read_bytes())
    padding = b"JUNK" + len(source).to_bytes(4, "little") + bytes(len(source) + len(source) % 2)
    padded = plain[:4] + (len(plain) + len(padding) - 8).to_bytes(4, "little") + plain[8:] + padding
    write(webp, sidecar.attach(padded, origin), MTIME)
    assert problems(webpd, tree) == {"0.jpg.webp": "larger"}


def test_foreign_files_and_originals_without_a_sidecar_are_counted_and_no_problem(
    webpd: Webpd, tree: Path, photograph: Callable[..., bytes]
) -> None:
    foreign = sidecar.detach((tree / "0.jpg.webp").read_bytes())
    write(tree / "0.jpg.webp", foreign)
    write(tree / "gone.jpg.webp", foreign)
    write(tree / "new.jpg", photograph())
    told = webpd("verify", "--json", tree)
    assert told.code == 0
    assert (told.json["right"], told.json["foreign"], told.json["without_sidecar"]) == (3, 2, 1)


def test_verify_changes_nothing(webpd: Webpd, tree: Path) -> None:
    write(tree / "0.jpg.webp", b"broken", MTIME)
    write(tree / ".webpd-0-1-2-3.tmp", b"left over")
    before = {file: (file.stat().st_mtime_ns, file.read_bytes()) for file in tree.iterdir()}
    webpd("verify", tree)
    assert {file: (file.stat().st_mtime_ns, file.read_bytes()) for file in tree.iterdir()} == before
