"""What is outside the root, or has been taken out of it, is left alone."""

import os
import shutil
from pathlib import Path

import pytest

from tests.conftest import write
from tests.reconcile.scene import IMAGE, Scene


def test_folders_left_alone_are_not_in_the_index(scene: Scene) -> None:
    for path in ("resize_cache/webp/a.jpg", ".hidden/b.jpg", "in/c.jpg"):
        scene.image(path)
    scene.reconciler(exclude=["resize_cache/webp"]).cycle(full=False)
    assert set(scene.inbox.lanes(scene.root)) == {"in/c.jpg"}
    assert set(scene.remembered()) == {"", "in", "resize_cache"}


def test_a_link_to_a_folder_is_not_followed(scene: Scene, tmp_path: Path) -> None:
    write(tmp_path / "outside" / "a.jpg", IMAGE)
    (scene.root / "link").symlink_to(tmp_path / "outside")
    scene.reconciler().cycle(full=True)
    assert scene.inbox.offers == []


def test_a_folder_of_the_index_that_became_a_link_is_not_followed(scene: Scene, tmp_path: Path) -> None:
    scene.image("folder/a.jpg")
    reconciler = scene.reconciler()
    scene.finish(reconciler)
    write(tmp_path / "outside" / "secret.jpg", IMAGE)
    shutil.rmtree(scene.root / "folder")
    (scene.root / "folder").symlink_to(tmp_path / "outside")
    scene.clock.pass_by(2.0)
    for full in (False, True):
        reconciler.forget(reconciler.cycle(full=full).vanished)
    assert [path for path, _, _ in scene.inbox.offers if "secret" in path] == []
    assert set(scene.remembered()) == {""}


@pytest.mark.parametrize("becomes", ["file", "circle"])
def test_a_folder_of_the_index_that_became_something_else_is_forgotten(becomes: str, scene: Scene) -> None:
    scene.image("folder/a.jpg")
    reconciler = scene.reconciler()
    scene.finish(reconciler)
    shutil.rmtree(scene.root / "folder")
    if becomes == "file":
        scene.image("folder")
    else:
        (scene.root / "folder").symlink_to("folder")
    for _ in range(3):
        scene.clock.pass_by(301.0)
        reconciler.forget(reconciler.cycle(full=False).vanished)
    assert set(scene.remembered()) == {""}


def test_a_folder_that_is_to_be_left_alone_from_now_on_is_looked_at_no_more(scene: Scene) -> None:
    scene.image("upload/dev/a.jpg")
    scene.finish(scene.reconciler())
    scene.image("upload/dev/b.jpg")
    scene.image("upload/c.jpg")
    scene.restarted(exclude=["upload/dev"]).cycle(full=True)
    assert {os.path.relpath(path, scene.root) for path, _, _ in scene.inbox.offers} == {"upload/c.jpg"}


def test_links_to_images_inside_the_root_are_offered_and_those_that_lead_out_are_not(
    scene: Scene, tmp_path: Path
) -> None:
    scene.image("one/a.jpg")
    write(tmp_path / "outside.jpg", IMAGE)
    (scene.root / "one" / "inside.jpg").symlink_to("a.jpg")
    (scene.root / "one" / "out.jpg").symlink_to(tmp_path / "outside.jpg")
    scene.reconciler().cycle(full=False)
    assert set(scene.inbox.lanes(scene.root)) == {"one/a.jpg", "one/inside.jpg"}
