"""One look at one image that somebody named: it costs no listing, finds what a walk finds, and believes nobody."""

import os
from pathlib import Path

import pytest

from tests.reconcile.scene import FINGERPRINT, LOCAL, Scene
from webpd.model import Result, Skip
from webpd.queue.port import Lane
from webpd.reconcile.glance import Glance, Seen
from webpd.reconcile.patience import Patience
from webpd.reconcile.reconciler import Reconciler
from webpd.tree.naming import Exclusion
from webpd.tree.scanner import Scanner


def glance(scene: Scene, reconciler: Reconciler, patience: Patience = LOCAL, exclude: tuple[str, ...] = ()) -> Glance:
    scanner = Scanner(str(scene.root), Exclusion(exclude), every=not patience.local)
    return Glance(reconciler, scanner, scene.ledger, scene.inbox.offer, patience, FINGERPRINT)


def test_an_image_in_folders_that_nobody_knew_is_urgent_and_the_folders_are_known_from_then_on(scene: Scene) -> None:
    reconciler = scene.reconciler()
    new = scene.image("a/b/c/new.jpg")
    patience = Patience(settle=7.0, cache=0.0, local=True)
    assert glance(scene, reconciler, patience).look(str(new)) is Seen.OFFERED
    assert scene.inbox.offers == [(str(new), Lane.URGENT, 7.0)]
    assert [*scene.remembered()] == ["a", "a/b", "a/b/c"]
    assert reconciler.listed == 0
    assert scene.work() == {"a/b/c/new.jpg"}
    assert glance(scene, reconciler).look(str(new)) is Seen.NOTHING
    scene.image("a/b/c/another.jpg")
    scene.finish(reconciler)
    assert (scene.root / "a/b/c/another.jpg.webp").exists()


def test_what_has_its_sidecar_needs_nothing_until_it_is_another_picture(scene: Scene) -> None:
    photo = scene.image("a/photo.jpg")
    reconciler = scene.reconciler()
    scene.finish(reconciler)
    look = glance(scene, reconciler).look
    assert look(str(photo)) is Seen.NOTHING
    scene.image("a/photo.jpg", b"another picture", mtime=1_500_000_000)
    assert look(str(photo)) is Seen.OFFERED


def test_what_is_known_to_stay_as_it_is_costs_no_look(scene: Scene) -> None:
    photo = scene.image("a/photo.jpg")
    reconciler = scene.reconciler()
    reconciler.cycle(full=False)
    (job,) = scene.inbox.take()
    scene.learn(job, Result.KEPT_ORIGINAL)
    one = glance(scene, reconciler)
    assert one.look(str(photo)) is Seen.NOTHING
    scene.root.rename(scene.root.with_name("elsewhere"))  # nobody could see it any more
    assert one.is_known(str(photo))
    assert not one.is_known(f"{photo}.jpg")
    for result, reason in ((Result.FAILED, "damaged"), (Result.SKIPPED, str(Skip.NOT_AN_IMAGE))):
        scene.learn(job, result, reason)
        assert one.is_known(str(photo))
    scene.learn(job, Result.FAILED, "damaged", fingerprint=b"othersettings")
    assert not one.is_known(str(photo))
    scene.learn(job, Result.CONVERTED)
    assert not one.is_known(str(photo))


def test_nothing_is_looked_at_that_the_walk_passes_over(scene: Scene, tmp_path: Path) -> None:
    reconciler = scene.reconciler(exclude=("delight",))
    one = glance(scene, reconciler, exclude=("delight",))
    for path in ("a/.hidden/photo.jpg", "delight/photo.jpg", "delight/below/photo.jpg"):
        assert one.look(str(scene.image(path))) is Seen.REFUSED
    (scene.root / "folder.jpg").mkdir()
    assert one.look(str(scene.root / "folder.jpg")) is Seen.REFUSED
    os.mkfifo(scene.root / "pipe.jpg")
    assert one.look(str(scene.root / "pipe.jpg")) is Seen.REFUSED
    assert not scene.inbox.offers


def test_no_link_leads_out_of_the_root(scene: Scene, tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    (outside / "below").mkdir(parents=True)
    for folder in (outside, outside / "below"):
        (folder / "secret.jpg").write_bytes(b"secret")
        (folder / "gone.jpg.webp").write_bytes(b"somebody's")
    photo = scene.image("photo.jpg")
    (scene.root / "link.jpg").symlink_to(outside / "secret.jpg")
    (scene.root / "inside.jpg").symlink_to(photo)
    (scene.root / "folder").symlink_to(outside)
    one = glance(scene, scene.reconciler())
    assert one.look(str(scene.root / "link.jpg")) is Seen.REFUSED
    for name in ("secret.jpg", "gone.jpg", "below/secret.jpg", "below/gone.jpg"):
        assert one.look(str(scene.root / "folder" / name)) is Seen.REFUSED
    assert not scene.remembered()
    assert one.look(str(scene.root / "inside.jpg")) is Seen.OFFERED
    assert [job.link for job in scene.inbox.take()] == [True]


def test_an_image_that_is_gone_is_told_from_one_that_never_was_by_its_sidecar(scene: Scene) -> None:
    photo = scene.image("a/photo.jpg")
    reconciler = scene.reconciler()
    scene.finish(reconciler)
    photo.unlink()
    one = glance(scene, reconciler)
    assert one.look(str(photo)) is Seen.ORPHAN
    for path in ("a/never.jpg", "never/photo.jpg"):
        assert one.look(str(scene.root / path)) is Seen.ABSENT
    assert [*scene.remembered()] == ["", "a"]


def test_a_queue_without_room_is_told(scene: Scene) -> None:
    scene.inbox.room = 0
    assert glance(scene, scene.reconciler()).look(str(scene.image("photo.jpg"))) is Seen.NO_ROOM


def test_an_image_that_was_finished_while_it_was_looked_at_is_not_done_twice(scene: Scene) -> None:
    photo = scene.image("photo.jpg")
    patience = Patience(settle=0.0, cache=20.0, local=False)
    reconciler = scene.reconciler(patience)
    one = glance(scene, reconciler, patience)
    assert one.look(str(photo)) is Seen.OFFERED
    (job,) = scene.inbox.take()
    reconciler.finished(job)  # and the mount may go on for 20 s to say that it has no sidecar
    assert one.look(str(photo)) is Seen.NOTHING


@pytest.mark.parametrize("name", ["x" * 250 + ".jpg", "x" * 251 + ".jpg"])
def test_a_name_that_leaves_no_room_for_a_sidecar_is_nothing_to_do(scene: Scene, name: str) -> None:
    expected = Seen.OFFERED if len(name) + len(".webp") <= 255 else Seen.NOTHING
    assert glance(scene, scene.reconciler()).look(str(scene.image(f"a/{name}"))) is expected
