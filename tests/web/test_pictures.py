"""Pictures from a tree that may change, hang or lie while they are read."""

import asyncio
import os
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.conftest import write
from tests.lab import SshfsLab
from tests.service.conftest import lab
from tests.service.driver import Service
from tests.web.site import TOKEN, Site
from webpd.web.page import pictures
from webpd.web.page.aside import Aside
from webpd.web.page.pictures import NoPictureError, read_picture

__all__ = ["lab"]

PICTURE = "iblock/0/480_480_1/photo0.jpg"


def status(root: Path, path: str) -> int:
    with pytest.raises(NoPictureError) as error:
        read_picture(str(root), path, "original")
    return error.value.status


def test_a_folder_that_becomes_a_link_out_of_the_root_is_not_followed(tree: Path) -> None:
    media_type, _ = read_picture(str(tree), PICTURE, "original")
    assert media_type == "image/jpeg"
    (tree / "iblock/0").rename(tree.parent / "moved")
    (tree / "iblock/0").symlink_to(tree.parent / "moved")
    assert status(tree, PICTURE) == 404


def test_a_root_that_is_a_link_itself_is_the_tree_it_leads_to(tree: Path) -> None:
    link = tree.parent / "link"
    link.symlink_to(tree)
    assert read_picture(str(link), PICTURE, "original") == read_picture(str(tree), PICTURE, "original")


def test_a_sidecar_is_shown_only_where_there_is_one_and_it_is_webp(tree: Path) -> None:
    with pytest.raises(NoPictureError, match="not there"):
        read_picture(str(tree), PICTURE, "webp")
    write(tree / f"{PICTURE}.webp", b"<!doctype html>")
    with pytest.raises(NoPictureError, match="not a WebP"):
        read_picture(str(tree), PICTURE, "webp")


def test_a_picture_too_large_to_be_shown_is_not_read_whole(tree: Path) -> None:
    os.truncate(tree / PICTURE, pictures.MOST)
    assert len(read_picture(str(tree), PICTURE, "original")[1]) == pictures.MOST
    os.truncate(tree / PICTURE, 1 << 40)
    assert status(tree, PICTURE) == 413


def test_what_may_not_be_read_is_told_apart_from_what_is_not_there(tree: Path) -> None:
    assert status(tree / "gone", PICTURE) == 404
    with pytest.raises(NoPictureError, match="can't be read: Permission denied") as error:
        raise pictures._explain(PermissionError(13, "Permission denied"))
    assert error.value.status == 503


def test_no_descriptor_is_left_open_by_what_is_refused(tree: Path) -> None:
    before = sorted(os.listdir("/proc/self/fd"))
    for path in ("iblock/pipe.jpg", "iblock/folder.jpg", "iblock/page.jpg", "iblock/link.jpg", "iblock/none/x.jpg"):
        status(tree, path)
    assert sorted(os.listdir("/proc/self/fd")) == before


# What hangs


def test_calls_that_hang_never_become_more_than_their_places_and_free_them_when_they_end() -> None:
    async def scene() -> None:
        aside, hang = Aside(2), threading.Event()
        before = threading.active_count()
        results = await asyncio.gather(*(aside.call(hang.wait, 0.2) for _ in range(10)), return_exceptions=True)
        assert [type(result) for result in results] == [TimeoutError] * 10
        assert threading.active_count() == before + 2
        hang.set()
        assert await aside.call(lambda: "answered", 30) == "answered"

    asyncio.run(scene())


def test_what_a_call_raises_is_raised_to_who_asked() -> None:
    async def scene() -> None:
        with pytest.raises(NoPictureError, match="not the name"):
            await Aside(1).call(lambda: read_picture("/", "etc/passwd", "original"), 30)

    asyncio.run(scene())


def test_pictures_of_a_mount_that_hangs_keep_nobody_waiting_and_pile_up_no_threads(
    lab: SshfsLab, tmp_path: Path, tree: Path, photograph: object
) -> None:
    write(lab.origin / "photo.jpg", (tree / PICTURE).read_bytes())
    service = Service(tmp_path / "service", lab.mnt, tree, WEBPD_TOKEN=TOKEN)
    site = Site(service, lab.mnt)
    try:
        service.start()
        service.wait_until(lambda: site.picture("photo.jpg").status == 200, "the sidecar is there")
        service.wait_until((tree / f"{PICTURE}.webp").exists)
        before = service.threads()
        lab.stop()
        with ThreadPoolExecutor(40) as clients:
            asked = [clients.submit(site.picture, "photo.jpg", kind) for kind in ("original", "webp") * 20]
            assert service.alive()
            assert site.picture(PICTURE, root=tree).status == 200
            assert service.threads() <= before + 10
            assert {answer.result().status for answer in asked} <= {503, 504}
        service.wait_until(lambda: site.sections()["parts"][1]["how"] == "hung", "the page says so")
        assert service.alive()
        lab.cont()
        service.wait_until(lambda: site.picture("photo.jpg").status == 200, "it answers again")
    finally:
        lab.cont()
        service.close()
