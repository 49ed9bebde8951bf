"""What is known to lead nowhere is not tried again, until one of the things that it depends on changes."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.reconcile.scene import FINGERPRINT, IMAGE, LOCAL, Scene
from webpd.model import Failure, Job, Result, Sidecar, Skip
from webpd.reconcile.patience import Patience

NETWORK = Patience(settle=0.0, cache=20.0, local=False)
OUTCOMES = [
    (Result.KEPT_ORIGINAL, ""),
    (Result.FAILED, Failure.DAMAGED),
    (Result.FAILED, Failure.TIMED_OUT),
    (Result.SKIPPED, Skip.NOT_AN_IMAGE),
    (Result.SKIPPED, Skip.TOO_LARGE),
]


def offered(scene: Scene, **options: object) -> list[str]:
    """Return what a service started now offers when it looks at everything."""
    scene.restarted(**options).cycle(full=True)
    return sorted(os.path.relpath(path, scene.root) for path, _, _ in scene.inbox.offers)


@pytest.fixture
def settled(scene: Scene) -> Scene:
    """A tree with one image, ``folder/a.jpg``, whose original is known to be the smaller file."""
    scene.image("folder/a.jpg", mtime=1_600_000_000.5)
    scene.age()
    scene.reconciler().cycle(full=False)
    for job in scene.inbox.take():
        scene.learn(job, Result.KEPT_ORIGINAL)
    return scene


@pytest.mark.parametrize(("result", "reason"), OUTCOMES)
def test_what_was_concluded_is_not_tried_again_and_its_directory_is_remembered(
    result: Result, reason: str, scene: Scene
) -> None:
    scene.image("folder/a.jpg")
    scene.age()
    reconciler = scene.reconciler()
    reconciler.cycle(full=False)
    for job in scene.inbox.take():
        scene.learn(job, result, reason)
    scene.clock.pass_by(301.0)
    assert reconciler.cycle(full=False).offered == 0
    assert scene.directory("folder").mtime_ns is not None
    assert scene.directory("folder").images == 1
    assert reconciler.cycle(full=False).listed == 0
    assert offered(scene) == []
    assert scene.known("folder") == {"a.jpg"}


@pytest.mark.parametrize(
    "change",
    [
        pytest.param(lambda path: path.write_bytes(IMAGE + b"!"), id="size"),
        pytest.param(lambda path: os.utime(path, (1_600_000_009.5,) * 2), id="mtime"),
        pytest.param(lambda path: path.with_name("a.jpg.webp").write_bytes(b"somebody's"), id="sidecar"),
    ],
)
def test_a_change_of_the_original_or_its_sidecar_brings_it_back(
    change: Callable[[Path], object], settled: Scene
) -> None:
    assert offered(settled) == []
    change(settled.root / "folder" / "a.jpg")
    assert offered(settled) == ["folder/a.jpg"]


def test_other_settings_or_another_version_bring_it_back(settled: Scene) -> None:
    assert offered(settled, fingerprint=FINGERPRINT) == []
    assert offered(settled, fingerprint=b"another!") == ["folder/a.jpg"]


def test_only_what_changed_comes_back(settled: Scene) -> None:
    settled.image("folder/b.jpg")
    assert offered(settled) == ["folder/b.jpg"]


def test_a_foreign_sidecar_is_known_with_what_was_beside_the_original(scene: Scene) -> None:
    scene.image("a.jpg", mtime=1_600_000_000)
    foreign = scene.image("a.jpg.webp", b"somebody's", mtime=1_500_000_000)
    scene.age()
    scene.reconciler().cycle(full=False)
    for job in scene.inbox.take():
        assert job.sidecar is Sidecar.STALE
        scene.learn(job, Result.SKIPPED, Skip.FOREIGN_SIDECAR)
    assert offered(scene) == []
    foreign.unlink()
    assert offered(scene) == ["a.jpg"]


def test_what_is_known_of_files_that_are_gone_is_forgotten(settled: Scene) -> None:
    settled.image("folder/b.jpg")
    (settled.root / "folder" / "a.jpg").unlink()
    settled.restarted().cycle(full=False)
    assert settled.known("folder") == set()


def test_what_is_known_is_not_forgotten_while_there_is_no_room_to_see_it_all(settled: Scene) -> None:
    for number in range(3000):  # more than are looked at in one go
        settled.image(f"folder/{number}.jpg", b"")
    for number in range(2000):
        settled.image(f"folder/{number}.jpg")
    settled.inbox.room = 1
    settled.restarted().cycle(full=True)
    assert settled.known("folder") == {"a.jpg"}


def test_what_is_known_of_a_directory_goes_with_it(settled: Scene) -> None:
    folder = settled.root / "folder"
    (folder / "a.jpg").unlink()
    folder.rmdir()
    reconciler = settled.restarted()
    reconciler.forget(reconciler.cycle(full=False).vanished)
    assert settled.known("folder") == set()


def test_empty_images_and_names_without_room_for_a_sidecars_are_no_work(scene: Scene) -> None:
    scene.image("empty.jpg", b"")
    scene.image("x" * 251 + ".jpg")
    scene.age()
    reconciler = scene.reconciler()
    assert reconciler.cycle(full=False).offered == 0
    assert scene.directory("").mtime_ns is not None
    assert scene.directory("").images == 2


def test_a_sidecar_just_made_on_a_network_mount_is_asked_about_until_no_cache_can_lie(scene: Scene) -> None:
    original = scene.image("a.jpg", mtime=1_600_000_000)
    scene.age()
    reconciler = scene.reconciler(NETWORK)
    reconciler.cycle(full=False)
    (job,) = scene.inbox.take()
    scene.convert(job)
    scene.learn(Job(job.path, job.root, job.size, job.mtime_ns, Sidecar.FRESH), Result.CONVERTED)
    assert reconciler.cycle(full=False).offered == 0
    assert scene.known() == {"a.jpg"}
    original.write_bytes(IMAGE + b", of which the cache knew only the beginning")
    os.utime(original, (1_600_000_000,) * 2)
    scene.clock.pass_by(NETWORK.sure)
    assert reconciler.cycle(full=False).offered == 1


def test_a_sidecar_on_a_network_mount_is_believed_once_its_directory_is_sure(scene: Scene) -> None:
    scene.image("a.jpg", mtime=1_600_000_000)
    scene.age()
    reconciler = scene.reconciler(NETWORK)
    reconciler.cycle(full=False)
    (job,) = scene.inbox.take()
    scene.convert(job)
    scene.learn(Job(job.path, job.root, job.size, job.mtime_ns, Sidecar.FRESH), Result.CONVERTED)
    for _ in range(2):
        scene.clock.pass_by(NETWORK.sure)
        reconciler.cycle(full=False)
    assert scene.directory("").sure
    assert scene.known() == set()
    assert scene.inbox.take() == []
    assert offered(scene, patience=NETWORK) == []


def test_patience_of_a_local_disk_needs_no_such_memory(settled: Scene) -> None:
    assert settled.restarted(patience=LOCAL).cycle(full=True).offered == 0
