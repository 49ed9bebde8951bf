"""docs/copying.md, with a real rsync: what mirrors, backups and restores do to sidecars."""

import os
import shutil
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.conftest import WEBPD, Ended, write
from tests.docs.pages import CHECKOUT

FILTERS = CHECKOUT / "deploy" / "rsync"
NAMES = ("a/one.jpg", "a/two.JPEG", "b/three.Png", "b/four.PNG")


def rsync(*arguments: object) -> str:
    return subprocess.run(["rsync", *map(str, arguments)], check=True, capture_output=True, text=True).stdout


def filtered(name: str) -> str:
    return f"--filter=merge {FILTERS / name}.filter"


def sidecars(root: Path) -> set[str]:
    return {str(path.relative_to(root)) for path in root.rglob("*.webp")}


def slash(folder: Path) -> str:
    return f"{folder}/"


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory, photograph: Callable[..., bytes]) -> Path:
    """``origin``: the shop's tree, originals and a WebP of its own; ``tree``: a copy that webpd has worked on."""
    folder = tmp_path_factory.mktemp("copying")
    for name in NAMES:
        form = "PNG" if name.lower().endswith("png") else "JPEG"
        write(folder / "origin" / name, photograph(format_=form), time.time() - 5000)
    write(folder / "origin" / "a" / "banner.webp", b"a WebP that the shop itself has", time.time() - 5000)
    rsync("-a", slash(folder / "origin"), slash(folder / "tree"))
    environment = os.environ | {"WEBPD_OWNER": "keep"}
    subprocess.run([*WEBPD, "convert", "--json", folder / "tree"], env=environment, check=True, capture_output=True)
    assert len(sidecars(folder / "tree")) == len(NAMES) + 1
    write(folder / "tree" / "a" / ".webpd-0a1b2c3d-1-1-1.tmp", b"half a sidecar")
    return folder


@pytest.fixture
def origin(tmp_path: Path, made: Path) -> Path:
    return shutil.copytree(made / "origin", tmp_path / "origin")


@pytest.fixture
def tree(tmp_path: Path, made: Path) -> Path:
    return shutil.copytree(made / "tree", tmp_path / "tree")


def test_a_mirror_with_the_filter_keeps_sidecars_and_what_is_being_written(tree: Path, origin: Path) -> None:
    before = sidecars(tree)
    rsync("-a", "--delete", filtered("keep-sidecars"), slash(origin), slash(tree))
    assert sidecars(tree) == before
    assert list(tree.rglob(".webpd-*.tmp"))


def test_a_mirror_with_the_filter_still_removes_what_the_shop_has_removed(tree: Path, origin: Path) -> None:
    (origin / "a" / "one.jpg").unlink()
    (origin / "a" / "banner.webp").unlink()
    rsync("-a", "--delete", filtered("keep-sidecars"), slash(origin), slash(tree))
    assert not (tree / "a" / "one.jpg").exists()
    assert not (tree / "a" / "banner.webp").exists()
    assert (tree / "a" / "one.jpg.webp").exists()


def test_the_sidecars_of_a_folder_that_a_mirror_could_not_remove_are_pruned(
    tree: Path, origin: Path, webpd: Callable[..., Ended]
) -> None:
    shutil.rmtree(origin / "b")
    rsync("-a", "--delete", filtered("keep-sidecars"), slash(origin), slash(tree))
    assert sidecars(tree / "b") == {"three.Png.webp", "four.PNG.webp"}
    assert webpd("prune", "--yes", "--json", tree, WEBPD_PRUNE_AFTER="1").json["removed"] == 2
    assert sidecars(tree / "b") == set()


def test_a_mirror_without_the_filter_removes_every_sidecar(tree: Path, origin: Path) -> None:
    rsync("-a", "--delete", slash(origin), slash(tree))
    assert sidecars(tree) == {"a/banner.webp"}


def test_a_copy_with_times_needs_no_work(tree: Path, tmp_path: Path, webpd: Callable[..., Ended]) -> None:
    copy = tmp_path / "copy"
    rsync("-a", "--exclude=.webpd-*.tmp", slash(tree), slash(copy))
    done = webpd("convert", "--json", copy, WEBPD_OWNER="keep").json
    assert (done["fresh"], done["converted"], done["source_bytes"]) == (len(NAMES), 0, 0)
    assert not list(copy.rglob(".webpd-*"))


def test_a_copy_without_times_is_read_once_and_encoded_not_at_all(
    tree: Path, tmp_path: Path, webpd: Callable[..., Ended]
) -> None:
    copy = tmp_path / "copy"
    rsync("-r", slash(tree), slash(copy))
    for number, path in enumerate(sorted(copy.rglob("*.*"))):  # as if the copy had taken minutes
        os.utime(path, (time.time() - 60 * number,) * 2)
    done = webpd("convert", "--json", copy, WEBPD_OWNER="keep").json
    assert (done["fresh"], done["converted"]) == (len(NAMES), 0)
    for name in NAMES:
        assert (copy / name).stat().st_mtime_ns == Path(f"{copy / name}.webp").stat().st_mtime_ns


def test_a_backup_without_sidecars_has_every_original_and_every_webp_of_the_shop(tree: Path, tmp_path: Path) -> None:
    backup = tmp_path / "backup"
    rsync("-a", filtered("without-sidecars"), slash(tree), slash(backup))
    files = {str(path.relative_to(backup)) for path in backup.rglob("*") if path.is_file()}
    assert files == {*NAMES, "a/banner.webp"}


def test_an_original_that_a_mirror_replaces_gets_a_new_sidecar(
    tree: Path, origin: Path, photograph: Callable[..., bytes], webpd: Callable[..., Ended]
) -> None:
    write(origin / "a" / "one.jpg", photograph(name="coffee.png"))
    rsync("-a", "--delete", filtered("keep-sidecars"), slash(origin), slash(tree))
    assert webpd("convert", "--json", tree, WEBPD_OWNER="keep").json["converted"] == 1
    assert webpd("verify", tree).code == 0
