"""``webpd prune`` as an administrator runs it."""

import os
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.conftest import WEBPD, Ended, write

Webpd = Callable[..., Ended]
MTIME = 1_600_000_000.5
SIZES = ("80_80_1", "90_90_1", "100_100_1")


@pytest.fixture(scope="module")
def converted(tmp_path_factory: pytest.TempPathFactory, photograph: Callable[..., bytes]) -> Path:
    """Three size folders with a picture each, which webpd converted."""
    root = tmp_path_factory.mktemp("converted")
    for size in SIZES:
        write(root / "iblock" / "abc" / size / "a.jpg", photograph(int(size.split("_")[0])), MTIME)
    subprocess.run([*WEBPD, "convert", str(root)], check=True, capture_output=True)
    return root


@pytest.fixture
def tree(converted: Path, tmp_path: Path) -> Path:
    """A tree with one picture that stays, and one (of ``abc``) that Bitrix deleted an hour ago."""
    root = tmp_path / "tree"
    shutil.copytree(converted, root)
    shutil.copytree(converted / "iblock" / "abc", root / "iblock" / "def")
    for size in SIZES:
        (root / "iblock" / "abc" / size / "a.jpg").unlink()
    make_old(root)
    return root


def make_old(root: Path) -> None:
    for folder, _, _ in os.walk(os.fsencode(root)):
        os.utime(folder, (time.time() - 3600,) * 2)


def files(root: Path) -> set[str]:
    """Return the relative paths of all files and folders below the root."""
    return {str(path.relative_to(root)) for path in root.rglob("*")}


@pytest.fixture
def started() -> Iterator[Callable[..., subprocess.Popen[str]]]:
    """Return a function that starts the command and waits until it has told of the first orphan."""
    processes: list[subprocess.Popen[str]] = []
    # A shell starts what it runs in the background with SIGINT ignored, and children would inherit that.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)

    def start(tree: Path, **environment: str) -> subprocess.Popen[str]:
        process = subprocess.Popen(
            [*WEBPD, "prune", "--yes", "--list", str(tree)],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=os.environ | environment,
        )
        processes.append(process)
        assert process.stdout is not None
        assert process.stdout.readline().startswith("orphan    ")
        return process

    yield start
    signal.signal(signal.SIGINT, before)
    for process in processes:
        process.kill()
        process.communicate()


def test_without_yes_it_shows_what_would_go_and_removes_nothing(webpd: Webpd, tree: Path) -> None:
    kept = write(tree / "gone.png.webp", b"a merchant's own", MTIME)
    before = files(tree)
    told = webpd("prune", "--json", tree)
    assert told.code == 0, told.err
    orphans = [tree / "iblock" / "abc" / size / "a.jpg.webp" for size in SIZES]
    assert sorted(told.json["paths"]) == sorted(map(str, orphans))
    assert told.json["orphan_bytes"] == sum(path.stat().st_size for path in orphans)
    assert told.json["foreign_paths"] == [str(kept)]
    assert (told.json["orphans"], told.json["foreign"], told.json["removed"]) == (3, 1, 0)
    assert files(tree) == before
    assert list(told.json) == [
        "orphans",
        "orphan_bytes",
        "foreign",
        "removed",
        "folders_removed",
        "paths",
        "foreign_paths",
        "refused",
        "refused_total",
        "interrupted",
        "seconds",
    ]


def test_people_are_shown_the_first_paths_and_all_on_request(webpd: Webpd, tree: Path) -> None:
    for number in range(10):
        shutil.copy2(tree / "iblock" / "abc" / SIZES[0] / "a.jpg.webp", tree / f"{number}.jpg.webp")
    write(tree / os.fsdecode(b"caf\xe9.png.webp"), b"a merchant's own", MTIME)
    short, whole = webpd("prune", tree).out, webpd("prune", "--list", tree).out
    assert short.count(".jpg.webp\n") == 10
    assert "and 3 more: `--list` prints every path" in short
    assert "nothing was removed: `--yes` removes the orphans" in short
    assert len([line for line in whole.splitlines() if line.startswith("orphan    /")]) == 13
    assert f"foreign   {tree}/caf\\xe9.png.webp\n" in whole


def test_with_yes_what_was_ours_goes_however_much_it_is_and_all_else_stays(webpd: Webpd, tree: Path) -> None:
    ours = tree / "iblock" / "abc" / SIZES[0] / "a.jpg.webp"
    many = tree / "iblock" / "many" / "80_80_1"
    for number in range(120):
        many.mkdir(parents=True, exist_ok=True)
        shutil.copy2(ours, many / os.fsdecode(b"caf\xe9%d.jpg.webp" % number))
    write(tree / "own.jpg.webp", b"a merchant's own", MTIME)
    subprocess.run(["cp", str(ours), str(tree / "copy.jpg.webp")], check=True)
    write(tree / ".webpd-0-1-2-3.tmp", b"being written")
    write(tree / "resize_cache" / "webp" / "x.jpg.webp", ours.read_bytes())
    make_old(tree)
    left = {path for path in files(tree) if not path.startswith(("iblock/abc", "iblock/many"))}
    told = webpd("prune", "--yes", "--json", tree)
    assert (told.code, told.err) == (0, "")
    assert (told.json["removed"], told.json["folders_removed"], told.json["foreign"]) == (123, 6, 2)
    assert files(tree) == left
    assert "orphaned" not in webpd("verify", "--json", tree).json


def test_an_original_that_comes_back_between_the_looks_saves_its_sidecar(
    started: Callable[..., subprocess.Popen[str]], tree: Path
) -> None:
    process = started(tree)
    abc = tree / "iblock" / "abc"
    shutil.copy2(tree / "iblock" / "def" / SIZES[1] / "a.jpg", abc / SIZES[1] / "a.jpg")
    out, _ = process.communicate(timeout=60)
    assert process.returncode == 0
    assert files(abc) == {SIZES[1], f"{SIZES[1]}/a.jpg", f"{SIZES[1]}/a.jpg.webp"}
    assert out.count("removed   /") == 2


def test_ctrl_c_before_the_second_look_leaves_everything(
    started: Callable[..., subprocess.Popen[str]], tree: Path
) -> None:
    before = files(tree)
    process = started(tree, WEBPD_CACHE_TIME="600")
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=60)
    assert (process.returncode, err) == (130, "")
    assert "interrupted" in out
    assert files(tree) == before


def test_what_cannot_be_removed_is_told_with_its_cure_and_the_rest_goes(webpd: Webpd, tree: Path) -> None:
    stuck = tree / "iblock" / "abc" / SIZES[0]
    subprocess.run(["chattr", "+i", str(stuck)], check=True)
    try:
        told = webpd("prune", "--yes", "--json", tree)
    finally:
        subprocess.run(["chattr", "-i", str(stuck)], check=True)
    assert told.code == 1
    assert (told.json["removed"], told.json["folders_removed"], told.json["refused_total"]) == (2, 2, 1)
    (refused,) = told.json["refused"]
    assert refused["path"] == f"{stuck}/a.jpg.webp"
    assert "lsattr" in refused["detail"]
    assert (stuck / "a.jpg.webp").exists()


def test_where_no_original_is_left_nothing_goes_unless_all_is_said(webpd: Webpd, tree: Path) -> None:
    abc = tree / "iblock" / "abc"
    assert webpd("prune", abc).code == 0
    refused = webpd("prune", "--yes", "--json", abc)
    assert refused.code == 3
    assert f"{abc}: not one original is left, but 3 sidecars" in refused.err
    assert (refused.json["orphans"], refused.json["removed"]) == (3, 0)
    assert webpd("prune", "--yes", "--all", "--json", abc).json["removed"] == 3
    assert files(abc) == set()


def test_a_tree_without_orphans_is_done_at_once_and_one_that_is_not_there_is_unfit(webpd: Webpd, tree: Path) -> None:
    assert webpd("prune", "--yes", "--json", tree / "iblock" / "def").json["removed"] == 0
    assert webpd("prune", "--yes", tree / "nothing").code == 3
