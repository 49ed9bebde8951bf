"""What is ours and left behind goes; nothing else ever does."""

import itertools
import os
import shutil
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.conftest import WEBPD, as_nobody, open_to_all, write
from webpd.tree import naming, sidecar
from webpd.tree.pruner import PruneError, Pruner, PruningPass, Verdict, examine
from webpd.tree.publisher import DryPublisher, Publisher, PublishError
from webpd.tree.scanner import Scanner
from webpd.tree.source import Version

MTIME = 1_600_000_000.5
YOUNG = 600.0


@pytest.fixture(scope="module")
def converted(tmp_path_factory: pytest.TempPathFactory, photograph: Callable[..., bytes]) -> Path:
    """A folder with ``a.jpg`` and the sidecar that webpd gave it."""
    folder = tmp_path_factory.mktemp("converted")
    write(folder / "a.jpg", photograph(80), MTIME)
    subprocess.run([*WEBPD, "convert", "--owner", "keep", str(folder)], check=True, capture_output=True)
    return folder


@pytest.fixture
def orphan(converted: Path, tmp_path: Path) -> Callable[..., Path]:
    """Return a function that puts a sidecar of ours into a folder of ``tree``, without an original."""

    def place(name: str = "a.jpg", folder: str = "iblock/abc/80_80_1") -> Path:
        path = tmp_path / "tree" / folder / naming.sidecar_of(name)
        path.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(converted / "a.jpg.webp", path)
        return path

    return place


@pytest.fixture
def pruner(tmp_path: Path) -> Pruner:
    return pruner_of(tmp_path / "tree")


def pruner_of(root: Path) -> Pruner:
    root.mkdir(exist_ok=True)
    return Pruner(str(root), Publisher(None, 0o644, fsync=False))


class Told:
    """Keeps what a pass reports."""

    def __init__(self) -> None:
        self.orphans: dict[str, int] = {}
        self.foreigners: set[str] = set()
        self.gone: set[str] = set()
        self.folders: set[str] = set()
        self.refusals: dict[str, str] = {}

    def orphan(self, path: str, size: int) -> None:
        self.orphans[path] = size

    def foreign(self, path: str) -> None:
        self.foreigners.add(path)

    def removed(self, path: str) -> None:
        self.gone.add(path)

    def folder_removed(self, path: str) -> None:
        self.folders.add(path)

    def refused(self, path: str, detail: str) -> None:
        self.refusals[path] = detail


def make_old(root: Path) -> None:
    """Nothing happened in the folders of the tree for an hour."""
    for folder, _, _ in os.walk(os.fsencode(root)):
        os.utime(folder, (time.time() - 3600,) * 2)


def prune(root: Path, between: Callable[[], object] = lambda: None) -> Told:
    """Look twice; ``between`` is what others do meanwhile."""
    scanner, told = Scanner(str(root), naming.Exclusion(())), Told()
    looks = PruningPass(scanner, pruner_of(root), told, young=YOUNG)
    for look in scanner.walk():
        looks.first(look)
    between()
    for folder in list(looks.folders()):
        looks.second(folder)
    return told


def snapshot(root: Path) -> dict[str, tuple[int, int, int]]:
    """Return all that is below the root, with inode, size and mtime of what is not a folder."""
    found = {}
    for folder, folders, names in os.walk(root):
        for name in folders:
            found[os.path.join(folder, name)] = (0, 0, 0)
        for name in names:
            status = os.lstat(os.path.join(folder, name))
            found[os.path.join(folder, name)] = (status.st_ino, status.st_size, status.st_mtime_ns)
    return found


def test_a_sidecar_of_ours_whose_original_is_gone_may_go(orphan: Callable[..., Path], pruner: Pruner) -> None:
    path = orphan()
    assert examine(str(path))[0] is Verdict.OURS
    assert pruner.remove(str(path)) is Verdict.OURS
    assert not path.exists()
    assert examine(str(path))[0] is pruner.remove(str(path)) is Verdict.GONE


def test_a_sidecar_stays_while_anything_has_its_originals_name(orphan: Callable[..., Path], pruner: Pruner) -> None:
    makers: tuple[Callable[[Path], object], ...] = (
        lambda path: write(path, b"half of an upload"),
        lambda path: path.symlink_to("nowhere"),
        Path.mkdir,
        os.mkfifo,
    )
    for number, make in enumerate(makers):
        path = orphan(f"{number}.jpg")
        make(path.with_suffix(""))
        assert pruner.remove(str(path)) is Verdict.BACK
        assert path.exists()


def test_what_is_not_ours_or_not_of_this_place_stays(orphan: Callable[..., Path], pruner: Pruner) -> None:
    plain, copied, empty, newer, other = (orphan(f"{name}.png") for name in ("plain", "copy", "empty", "new", "x.gif"))
    data = plain.read_bytes()
    write(plain, sidecar.detach(data), MTIME)
    subprocess.run(["cp", str(orphan("b.jpg")), str(copied)], check=True)
    write(empty, b"", MTIME)
    at = len(data) - sidecar.CHUNK_SIZE + 8
    write(newer, data[:at] + bytes([sidecar.VERSION + 1]) + data[at + 1 :], MTIME)
    other = other.rename(other.with_name("photo.gif.webp"))
    for path in (plain, copied, empty, newer, other):
        assert pruner.remove(str(path)) is Verdict.FOREIGN, path
        assert path.exists()


def test_what_is_no_regular_file_is_foreign_and_never_followed(orphan: Callable[..., Path], pruner: Pruner) -> None:
    path = orphan()
    link, pipe, folder = (path.with_name(f"{name}.jpg.webp") for name in ("link", "pipe", "folder"))
    link.symlink_to(path)
    os.mkfifo(pipe)
    folder.mkdir()
    for one in (link, pipe, folder):
        assert pruner.remove(str(one)) is Verdict.FOREIGN
        assert os.path.lexists(one)
    assert path.exists()


def test_a_place_that_cannot_be_looked_at_is_an_error_and_no_deletion(
    orphan: Callable[..., Path], pruner: Pruner, tmp_path: Path
) -> None:
    path = orphan()
    open_to_all(tmp_path)
    path.parent.chmod(0o600)

    def look() -> str:
        try:
            return str(pruner.remove(str(path)))
        except PruneError as error:
            return str(error)

    assert as_nobody(look) == f"{path}: can't be looked at: Permission denied: check its rights and the disk or mount"
    path.parent.chmod(0o755)
    assert path.exists()


def test_a_folder_that_cannot_be_written_is_an_error_with_its_cure(
    orphan: Callable[..., Path], pruner: Pruner, tmp_path: Path
) -> None:
    path = orphan()

    def attempt() -> str:
        try:
            return str(pruner.remove(str(path)))
        except PublishError as error:
            return str(error)

    open_to_all(tmp_path)
    assert "run webpd as its owner" in as_nobody(attempt)
    assert path.exists()


def test_what_is_written_in_the_last_moment_stays(orphan: Callable[..., Path], tmp_path: Path) -> None:
    path = orphan()

    class Late(Publisher):
        def withdraw(self, sidecar: str, known: Version) -> None:
            write(path.with_name("new"), b"a merchant's").replace(path)
            super().withdraw(sidecar, known)

    late = Pruner(str(tmp_path / "tree"), Late(None, 0o644, fsync=False))
    assert late.remove(str(path)) is Verdict.BACK
    assert path.read_bytes() == b"a merchant's"


def test_a_dry_run_removes_nothing(orphan: Callable[..., Path], tmp_path: Path) -> None:
    path = orphan()
    assert Pruner(str(tmp_path), DryPublisher()).remove(str(path)) is Verdict.OURS
    assert path.exists()


@pytest.mark.parametrize(
    ("sidecars", "share", "most"), [(2, 0.2, 100), (500, 0.2, 100), (1000, 0.2, 200), (1000, 1.0, 1000), (1000, 0, 0)]
)
def test_a_share_may_go_and_a_hundred_always_unless_none_may(sidecars: int, share: float, most: int) -> None:
    assert Pruner("/tree", DryPublisher(), share=share).most(1, sidecars - 1) == most


@pytest.mark.parametrize(("share", "most"), [(0.2, 10), (1.0, 10), (0, 0)])
def test_where_no_original_is_left_only_a_few_may_go(share: float, most: int) -> None:
    assert Pruner("/tree", DryPublisher(), share=share).most(0, 60) == most


def test_an_empty_folder_goes_when_nothing_happened_in_it_for_long(tmp_path: Path, pruner: Pruner) -> None:
    root = tmp_path / "tree"
    for name in ("old", "young", "full"):
        (root / name).mkdir()
    write(root / "full" / "other.txt", b"")
    (root / "link").symlink_to("old")
    make_old(root)
    os.utime(root / "young", (time.time() - YOUNG + 60,) * 2)
    went = {name: pruner.remove_folder(str(root / name), YOUNG) for name in ("young", "full", "link", "old", "nothing")}
    assert went == {"young": False, "full": False, "link": False, "old": True, "nothing": False}
    assert set(os.listdir(root)) == {"young", "full", "link"}
    assert pruner.remove_folder(str(root / "young"), 0)


def test_the_root_and_a_mount_point_are_never_removed(
    tmp_path: Path, pruner: Pruner, tmpfs: Callable[[str], Path]
) -> None:
    assert not pruner.remove_folder(str(tmp_path / "tree"), 0)
    assert not pruner.remove_folder(str(tmpfs("size=64k")), 0)


def test_a_folder_that_may_not_be_removed_is_an_error(tmp_path: Path, pruner: Pruner) -> None:
    folder = tmp_path / "tree" / "empty"
    folder.mkdir()
    open_to_all(tmp_path)

    def attempt() -> str:
        try:
            return str(pruner.remove_folder(str(folder), 0))
        except PruneError as error:
            return str(error)

    assert as_nobody(attempt).startswith(f"{folder}: can't be removed: Permission denied")


def test_two_looks_remove_the_sidecars_their_folders_and_the_one_above(
    orphan: Callable[..., Path], tmp_path: Path
) -> None:
    sizes = [orphan("a.jpg", f"iblock/abc/{size}_{size}_1") for size in range(3)]
    other = write(tmp_path / "tree" / "iblock" / "other.jpg", b"")
    make_old(tmp_path / "tree")
    told = prune(tmp_path / "tree")
    assert told.orphans.keys() == told.gone == set(map(str, sizes))
    assert told.folders == {str(path.parent) for path in (sizes[0].parent, *sizes)}
    assert sorted(tmp_path.joinpath("tree").rglob("*")) == [other.parent, other]


def test_no_more_than_one_folder_above_goes(orphan: Callable[..., Path], tmp_path: Path) -> None:
    orphan("a.jpg", "iblock/abc/80_80_1")
    make_old(tmp_path / "tree")
    prune(tmp_path / "tree")
    assert list((tmp_path / "tree").rglob("*")) == [tmp_path / "tree" / "iblock"]


def test_young_folders_stay(orphan: Callable[..., Path], tmp_path: Path) -> None:
    young = orphan("a.jpg", "one/80_80_1").parent
    above = orphan("a.jpg", "two/80_80_1").parent.parent
    make_old(tmp_path / "tree")
    for folder in (young, above):
        os.utime(folder, (time.time() - YOUNG + 60,) * 2)
    told = prune(tmp_path / "tree")
    assert len(told.gone) == 2
    assert told.folders == {str(above / "80_80_1")}
    assert young.exists()
    assert above.exists()


def test_an_original_that_comes_back_between_the_looks_saves_its_sidecar(
    orphan: Callable[..., Path], tmp_path: Path
) -> None:
    saved, goes = orphan("saved.jpg"), orphan("goes.jpg")
    told = prune(tmp_path / "tree", lambda: write(saved.with_suffix(""), b"original", MTIME))
    assert told.gone == {str(goes)}
    assert saved.exists()


def test_what_only_the_second_look_finds_waits_for_another_pass(orphan: Callable[..., Path], tmp_path: Path) -> None:
    seen = orphan("seen.jpg")
    told = prune(tmp_path / "tree", lambda: orphan("new.jpg"))
    assert told.gone == {str(seen)}
    assert prune(tmp_path / "tree").gone == {str(orphan("new.jpg"))}


def test_a_folder_that_goes_by_other_hands_between_the_looks_is_no_error(
    orphan: Callable[..., Path], tmp_path: Path
) -> None:
    path = orphan()
    told = prune(tmp_path / "tree", lambda: shutil.rmtree(path.parent))
    assert (told.gone, told.refusals) == (set(), {})


def test_names_that_are_not_utf8_are_pruned(orphan: Callable[..., Path], tmp_path: Path) -> None:
    names = [os.fsdecode(name) for name in (b"caf\xe9.jpg", b"new\nline.JPG", "имя ж.png".encode())]
    paths = {str(orphan(name, os.fsdecode(b"size\xff"))) for name in names}
    make_old(tmp_path / "tree")
    assert prune(tmp_path / "tree").gone == paths
    assert not list((tmp_path / "tree").iterdir())


KINDS = ("ours", "foreign", "copy", "empty", "link", "folder", "none")


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.tuples(st.sampled_from(KINDS), st.booleans()), max_size=8))
def test_whatever_is_there_only_orphans_of_ours_go(
    converted: Path, tmp_path: Path, files: list[tuple[str, bool]]
) -> None:
    root = tmp_path / f"t{next(COUNTER)}"
    ours = (converted / "a.jpg.webp").read_bytes()
    expected = set()
    for number, (kind, has_original) in enumerate(files):
        path = root / f"{number % 3}" / f"{number}.jpg.webp"
        write(path.with_suffix("") if has_original else path.with_name("note.txt"), b"original", MTIME)
        if kind == "link":
            path.symlink_to(converted / "a.jpg.webp")
        elif kind == "folder":
            path.mkdir()
        elif kind != "none":
            data = {"ours": ours, "copy": ours, "foreign": sidecar.detach(ours), "empty": b""}[kind]
            write(path, data, MTIME + 7 if kind == "copy" else MTIME)
        if kind == "ours" and not has_original:
            expected.add(str(path))
    root.mkdir(exist_ok=True)
    before = snapshot(root)
    told = prune(root)
    assert told.gone == told.orphans.keys() == expected
    assert snapshot(root) == {path: facts for path, facts in before.items() if path not in expected}
    assert not told.refusals


COUNTER = itertools.count()
