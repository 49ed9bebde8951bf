"""What is found on disk, decided from names and stats alone."""

import os
import tracemalloc
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.conftest import write
from webpd.errors import UnfitError
from webpd.model import Job, Outcome, Sidecar, Skip
from webpd.tree.naming import Exclusion
from webpd.tree.scanner import Look, Scanner, interleave

EXCLUDE = Exclusion(["resize_cache/webp"])


def scan(root: Path, threads: int = 1, *, every: bool = False) -> tuple[dict[str, Job], list[Look]]:
    looks = list(Scanner(str(root), EXCLUDE, every=every).walk(threads))
    return {os.path.relpath(job.path, root): job for look in looks for job in look.jobs}, looks


@pytest.mark.parametrize("threads", [1, 8])
def test_every_original_without_a_sidecar_is_found_at_any_depth(tmp_path: Path, threads: int) -> None:
    names = {f"iblock/{n:03x}/{size}_{size}_1/photo{n}.JPG" for n in range(40) for size in (100, 200)}
    for name in names | {"top.png"}:
        write(tmp_path / name, b"x")
    jobs, looks = scan(tmp_path, threads)
    assert set(jobs) == names | {"top.png"}
    assert {job.sidecar for job in jobs.values()} == {Sidecar.ABSENT}
    assert sum(look.found for look in looks) == 81


def test_a_sidecar_is_fresh_when_it_has_bytes_and_the_times_agree_as_far_as_both_tell_them(tmp_path: Path) -> None:
    cases = {
        "same": (1000.0, b"x", 1000.0),
        "same second": (1000.75, b"x", 1000.0),
        "rewritten in that second": (1000.75, b"x", 1000.25),
        "newer": (1000.0, b"x", 1001.0),
        "older": (1000.0, b"x", 999.0),
        "empty": (1000.0, b"", 1000.0),
    }
    for name, (original, data, sidecar) in cases.items():
        write(tmp_path / f"{name}.jpg", b"original", original)
        write(tmp_path / f"{name}.jpg.webp", data, sidecar)
    jobs, looks = scan(tmp_path)
    assert {name: job.sidecar for name, job in jobs.items()} == dict.fromkeys(
        ("rewritten in that second.jpg", "newer.jpg", "older.jpg", "empty.jpg"), Sidecar.STALE
    )
    assert looks[0].fresh == 2
    assert (looks[0].source_bytes, looks[0].webp_bytes) == (16, 2)
    jobs, looks = scan(tmp_path, every=True)
    assert jobs["same.jpg"].sidecar is Sidecar.FRESH
    assert looks[0].fresh == 0


def test_what_is_not_ours_to_convert_is_passed_over(tmp_path: Path) -> None:
    for name in (
        "a.gif",
        "a.webp",
        ".hidden.jpg",
        ".git/a.jpg",
        "resize_cache/webp/a.jpg",
        "notes.txt",
        "alone.webp",
    ):
        write(tmp_path / name, b"x")
    os.mkfifo(tmp_path / "pipe.jpg")
    (tmp_path / "folder.jpg").mkdir()
    write(tmp_path / "folder.jpg" / "inside.png", b"x")
    write(tmp_path / "folder.webp" / "inside.png", b"x")
    jobs, _ = scan(tmp_path)
    assert set(jobs) == {"folder.jpg/inside.png", "folder.webp/inside.png"}


def test_names_of_any_bytes_are_found_and_a_name_without_room_is_skipped_with_that_reason(tmp_path: Path) -> None:
    names = [b"caf\xe9.jpg", b"new\nline.png", b"'quote\" $(x).jpg", b" space .jpg", "имя.png".encode()]
    for name in (*names, b"a" * 246 + b".jpg", b"b" * 247 + b".jpg"):
        with open(os.path.join(os.fsencode(tmp_path), name), "wb") as file:
            file.write(b"x")
    jobs, looks = scan(tmp_path)
    assert {os.fsencode(name) for name in jobs} == {*names, b"a" * 246 + b".jpg"}
    assert [(outcome.reason, len(outcome.detail) > 0) for outcome in looks[0].settled] == [(Skip.NAME_TOO_LONG, True)]


def test_an_empty_file_is_settled_without_being_read(tmp_path: Path) -> None:
    write(tmp_path / "a.jpg", b"")
    jobs, looks = scan(tmp_path)
    assert not jobs
    assert looks[0].settled == [
        Outcome(str(tmp_path / "a.jpg"), looks[0].settled[0].result, Skip.EMPTY, "the file has no bytes")
    ]


def test_symbolic_links_are_followed_to_images_inside_the_root_only(tmp_path: Path) -> None:
    root, outside = tmp_path / "root", tmp_path / "outside"
    write(root / "real" / "a.jpg", b"x")
    write(outside / "secret.jpg", b"x")
    (root / "inside.jpg").symlink_to("real/a.jpg")
    (root / "out.jpg").symlink_to(outside / "secret.jpg")
    (root / "loop").symlink_to(root)
    (root / "away").symlink_to(outside)
    (root / "dangling.jpg").symlink_to("nothing.jpg")
    (root / "self.jpg").symlink_to("self.jpg")
    jobs, _ = scan(root)
    assert {name: job.link for name, job in jobs.items()} == {"real/a.jpg": False, "inside.jpg": True}


def test_a_root_that_is_a_symbolic_link_itself_is_walked(tmp_path: Path) -> None:
    write(tmp_path / "real" / "a.jpg", b"x")
    os.link(tmp_path / "real" / "a.jpg", tmp_path / "real" / "b.jpg")
    (tmp_path / "root").symlink_to("real")
    jobs, _ = scan(tmp_path / "root")
    assert set(jobs) == {"a.jpg", "b.jpg"}


def test_temporary_files_and_orphans_are_told_by_path(tmp_path: Path) -> None:
    write(tmp_path / ".webpd-0-1-2-3.tmp", b"x")
    write(tmp_path / "gone.jpg.webp", b"x")
    write(tmp_path / "upload.webp", b"x")
    _, looks = scan(tmp_path)
    assert looks[0].temporary == [str(tmp_path / ".webpd-0-1-2-3.tmp")]
    assert looks[0].orphans == [str(tmp_path / "gone.jpg.webp")]


def test_a_folder_that_cannot_be_listed_is_a_failure_of_its_own_and_the_rest_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(tmp_path / "good" / "a.jpg", b"x")
    write(tmp_path / "bad" / "b.jpg", b"x")
    listing = os.scandir

    def refuse(path: str) -> object:  # root may list anything, and so may the tests
        if path.endswith("/bad"):
            raise PermissionError(13, "Permission denied", path)
        return listing(path)

    monkeypatch.setattr(os, "scandir", refuse)
    jobs, looks = scan(tmp_path)
    assert set(jobs) == {"good/a.jpg"}
    (failure,) = [outcome for look in looks for outcome in look.settled]
    assert failure.path == str(tmp_path / "bad")
    assert "Permission denied" in failure.detail


def test_a_root_that_is_not_there_is_an_unfit_environment(tmp_path: Path) -> None:
    with pytest.raises(UnfitError, match="No such file"):
        list(Scanner(str(tmp_path / "nothing"), EXCLUDE).walk())


def test_a_large_folder_comes_in_parts_that_lose_nothing(tmp_path: Path) -> None:
    for number in range(3000):
        (tmp_path / f"{number}.jpg").write_bytes(b"x")
    jobs, looks = scan(tmp_path)
    assert len(jobs) == 3000
    assert max(len(look.jobs) for look in looks) <= 1024


def test_memory_does_not_grow_with_the_number_of_folders(tmp_path: Path) -> None:
    def peak(folders: int) -> int:
        root = tmp_path / str(folders)
        for number in range(folders):
            write(root / f"{number % 40}" / f"{number}" / "a.jpg", b"x", 1000)
            write(root / f"{number % 40}" / f"{number}" / "a.jpg.webp", b"x", 1000)
        tracemalloc.start()
        assert sum(look.fresh for look in Scanner(str(root), EXCLUDE).walk()) == folders
        most = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return most

    few, many = peak(400), peak(4000)
    assert many < few + 200_000  # the names of one folder's folders, and no more


@given(st.lists(st.integers(0, 5), max_size=30), st.integers(1, 8))
def test_interleaving_yields_every_job_once(sizes: list[int], width: int) -> None:
    looks = [Look(f"d{n}", jobs=[Job(f"d{n}/{m}.jpg", "/", 1) for m in range(size)]) for n, size in enumerate(sizes)]
    jobs = list(interleave(looks, width))
    assert sorted(job.path for job in jobs) == sorted(job.path for look in looks for job in look.jobs)


def test_neighbours_in_time_are_from_different_folders() -> None:
    looks = [Look(f"d{n}", jobs=[Job(f"d{n}/{m}.jpg", "/", 1) for m in range(50)]) for n in range(8)]
    order = [os.path.dirname(job.path) for job in interleave(looks)]
    steady = order[36:-36]  # the first folders begin alone, the last ones end alone
    assert all(len(set(steady[at : at + 8])) >= 7 for at in range(len(steady) - 8))
