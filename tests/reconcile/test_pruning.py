"""Sidecars whose original is gone go after a while, with the folders they leave, and nothing else ever does."""

import logging
import os
import shutil
from pathlib import Path

import pytest

from tests.reconcile.scene import IMAGE, Scene
from webpd.ledger.port import Totals
from webpd.model import Result, Skip
from webpd.reconcile.pruning import Pruning
from webpd.reconcile.reconciler import Reconciler

AFTER = 60.0
FOLDERS_AFTER = 600.0


@pytest.fixture
def reconciler(scene: Scene) -> Reconciler:
    return scene.reconciler()


@pytest.fixture
def pruning(scene: Scene, reconciler: Reconciler) -> Pruning:
    return scene.pruning(reconciler, after=AFTER, folders_after=FOLDERS_AFTER)


def converted(scene: Scene, *paths: str) -> None:
    """A tree of these images, each with its sidecar."""
    for path in paths:
        scene.image(path)
    scene.finish(scene.reconciler())


def turn(scene: Scene, reconciler: Reconciler, pruning: Pruning, wait: float = AFTER + 1) -> list[str]:
    """Cycle and prune as the service does; return what was removed, from the root. Then ``wait`` seconds pass."""
    begun = len(scene.removed)
    cycle = reconciler.cycle(full=False)
    reconciler.forget(cycle.vanished)
    pruning.prune(cycle.begun)
    scene.clock.pass_by(wait)
    return [os.path.relpath(path, scene.root) for path in scene.removed[begun:]]


def webp(path: Path) -> Path:
    return path.with_name(path.name + ".webp")


def test_a_sidecar_goes_when_its_original_has_been_gone_for_the_set_time(
    scene: Scene, reconciler: Reconciler, pruning: Pruning
) -> None:
    converted(scene, "one/a.jpg", "one/b.jpg", "two/c.jpg")
    (scene.root / "one/a.jpg").unlink()
    assert turn(scene, reconciler, pruning, AFTER / 2) == []
    assert scene.ledger.totals(str(scene.root)).orphans == 1
    assert turn(scene, reconciler, pruning, AFTER / 2 + 1) == []
    assert turn(scene, reconciler, pruning) == ["one/a.jpg.webp"]
    assert sorted(os.listdir(scene.root / "one")) == ["b.jpg", "b.jpg.webp"]
    assert os.listdir(scene.root / "two") != []
    assert scene.ledger.totals(str(scene.root)) == Totals(3, 0, 2, 0)
    assert reconciler.orphans == {}
    assert turn(scene, reconciler, pruning) == []


def test_one_that_comes_later_waits_for_its_own_time(scene: Scene, reconciler: Reconciler, pruning: Pruning) -> None:
    converted(scene, "a.jpg", "b.jpg")
    (scene.root / "a.jpg").unlink()
    turn(scene, reconciler, pruning, AFTER - 5)
    (scene.root / "b.jpg").unlink()
    turn(scene, reconciler, pruning, 10.0)
    assert turn(scene, reconciler, pruning) == ["a.jpg.webp"]
    assert turn(scene, reconciler, pruning) == ["b.jpg.webp"]


def test_an_orphan_whose_original_returns_stays(scene: Scene, reconciler: Reconciler, pruning: Pruning) -> None:
    converted(scene, "folder/a.jpg")
    original = scene.root / "folder" / "a.jpg"
    away = original.rename(scene.root.parent / "a.jpg")
    turn(scene, reconciler, pruning)
    away.rename(original)
    assert turn(scene, reconciler, pruning) == []
    assert webp(original).exists()
    assert scene.ledger.totals(str(scene.root)).orphans == 0
    assert scene.inbox.take() == []


def test_an_original_that_returns_unseen_is_seen_by_the_second_look(
    scene: Scene, reconciler: Reconciler, pruning: Pruning
) -> None:
    converted(scene, "folder/a.jpg")
    original = scene.root / "folder" / "a.jpg"
    away = original.rename(scene.root.parent / "a.jpg")
    turn(scene, reconciler, pruning)
    cycle = reconciler.cycle(full=False)
    away.rename(original)  # between the cycle and the pruning that follows it
    pruning.prune(cycle.begun)
    assert scene.removed == []
    assert webp(original).exists()


def test_a_restart_begins_the_wait_anew_and_then_goes_on(scene: Scene, reconciler: Reconciler) -> None:
    converted(scene, "folder/a.jpg", "folder/b.jpg")
    (scene.root / "folder/a.jpg").unlink()
    turn(scene, reconciler, scene.pruning(reconciler))
    assert scene.directory("folder").sure or scene.directory("folder").mtime_ns is not None
    again = scene.restarted()
    pruning = scene.pruning(again)
    assert turn(scene, again, pruning) == []
    assert turn(scene, again, pruning) == ["folder/a.jpg.webp"]


def test_nothing_goes_while_the_mount_is_sick(scene: Scene, reconciler: Reconciler, pruning: Pruning) -> None:
    converted(scene, "folder/a.jpg")
    (scene.root / "folder/a.jpg").unlink()
    turn(scene, reconciler, pruning)
    cycle = reconciler.cycle(full=False)
    scene.halted = True
    pruning.prune(cycle.begun)
    assert scene.removed == []
    assert reconciler.orphans != {}
    scene.halted = False
    assert turn(scene, reconciler, pruning) == ["folder/a.jpg.webp"]


def test_foreign_sidecars_and_copies_of_ours_stay_and_are_looked_into_once(
    scene: Scene, reconciler: Reconciler, pruning: Pruning
) -> None:
    converted(scene, "folder/a.jpg", "folder/keep.jpg")
    foreign = scene.image("folder/x.jpg.webp", b"a merchant's own")
    copy = shutil.copyfile(scene.root / "folder/a.jpg.webp", scene.root / "folder/y.jpg.webp")
    (scene.root / "folder/a.jpg").unlink()
    turn(scene, reconciler, pruning)
    assert scene.ledger.totals(str(scene.root)).orphans == 1
    assert scene.known("folder") == {"x.jpg.webp", "y.jpg.webp"}
    assert scene.ledger.results(str(scene.root)) == {(Result.SKIPPED, Skip.FOREIGN_SIDECAR): 2}
    assert turn(scene, reconciler, pruning) == ["folder/a.jpg.webp"]
    assert foreign.exists()
    assert copy.exists()
    reconciler.cycle(full=True)
    assert scene.known("folder") == {"x.jpg.webp", "y.jpg.webp"}


def test_a_foreign_file_that_is_replaced_by_one_of_ours_is_counted(
    scene: Scene, reconciler: Reconciler, pruning: Pruning
) -> None:
    converted(scene, "folder/a.jpg")
    foreign = scene.image("folder/x.jpg.webp", b"a merchant's own")
    reconciler.cycle(full=False)
    assert scene.known("folder") == {"x.jpg.webp"}
    foreign.unlink()
    shutil.copy2(scene.root / "folder/a.jpg.webp", foreign)
    scene.clock.pass_by(1.0)
    turn(scene, reconciler, pruning)
    assert turn(scene, reconciler, pruning) == ["folder/x.jpg.webp"]
    assert scene.known("folder") == set()


def test_what_is_known_of_a_foreign_file_goes_with_it(scene: Scene, reconciler: Reconciler) -> None:
    foreign = scene.image("folder/x.jpg.webp", b"a merchant's own")
    reconciler.cycle(full=False)
    assert scene.known("folder") == {"x.jpg.webp"}
    foreign.unlink()
    reconciler.cycle(full=False)
    assert scene.known("folder") == set()


@pytest.mark.parametrize("becomes", ["foreign", "back"])
def test_an_orphan_that_turns_out_not_to_be_one_is_no_longer_counted(
    becomes: str, scene: Scene, reconciler: Reconciler, pruning: Pruning
) -> None:
    converted(scene, "folder/a.jpg")
    original = scene.root / "folder" / "a.jpg"
    original.unlink()
    turn(scene, reconciler, pruning, AFTER / 2)
    if becomes == "foreign":
        webp(original).unlink()
        webp(original).write_bytes(b"a merchant's own")
    else:
        original.mkdir()
    turn(scene, reconciler, pruning)
    assert turn(scene, reconciler, pruning) == []
    assert scene.ledger.totals(str(scene.root)).orphans == 0
    assert webp(original).exists()


def test_an_orphan_in_a_directory_that_went_and_came_back_waits_anew(
    scene: Scene, reconciler: Reconciler, pruning: Pruning
) -> None:
    converted(scene, "folder/a.jpg")
    (scene.root / "folder/a.jpg").unlink()
    turn(scene, reconciler, pruning, 1.0)
    away = (scene.root / "folder").rename(scene.root.parent / "away")
    turn(scene, reconciler, pruning)
    assert set(scene.remembered()) == {""}
    assert reconciler.orphans == {}
    away.rename(scene.root / "folder")
    assert turn(scene, reconciler, pruning, AFTER / 2) == []
    assert turn(scene, reconciler, pruning) == []
    assert turn(scene, reconciler, pruning) == ["folder/a.jpg.webp"]


def test_a_share_that_vanishes_at_once_is_kept_and_told_once_and_goes_when_it_is_smaller(
    scene: Scene, reconciler: Reconciler, caplog: pytest.LogCaptureFixture
) -> None:
    paths = [f"{number % 3}/{number}.jpg" for number in range(20)]
    converted(scene, *paths)
    pruning = scene.pruning(reconciler, after=AFTER, floor=3)  # 20 % of 20 sidecars are 4
    lost = [scene.root / path for path in paths[:5]]
    for path in lost:
        path.unlink()
    with caplog.at_level(logging.WARNING):
        for _ in range(4):
            assert turn(scene, reconciler, pruning) == []
    assert pruning.refused == 5
    (told,) = [record.getMessage() for record in caplog.records]
    assert str(scene.root) in told
    assert "5 sidecars" in told
    assert "no more than 4" in told
    assert "webpd prune --yes" in told
    lost[0].write_bytes(IMAGE)  # one is back
    turn(scene, reconciler, pruning)
    turn(scene, reconciler, pruning)
    assert len(scene.removed) == 4
    assert pruning.refused == 0


def test_a_small_tree_that_lost_every_original_keeps_its_sidecars(
    scene: Scene, reconciler: Reconciler, pruning: Pruning, caplog: pytest.LogCaptureFixture
) -> None:
    paths = [f"{number % 3}/{number}.jpg" for number in range(20)]
    converted(scene, *paths)
    for path in paths:
        (scene.root / path).unlink()
    with caplog.at_level(logging.WARNING):
        for _ in range(4):
            assert turn(scene, reconciler, pruning) == []
    assert pruning.refused == 20
    (told,) = [record.getMessage() for record in caplog.records]
    assert "not one original is left" in told
    assert "webpd prune --yes --all" in told


def test_a_folder_goes_when_it_has_been_empty_for_long_and_so_does_the_one_above(
    scene: Scene, reconciler: Reconciler, pruning: Pruning
) -> None:
    converted(scene, "iblock/abc/80_80_1/a.jpg", "iblock/other/80_80_1/b.jpg")
    folder = scene.root / "iblock/abc/80_80_1"
    (folder / "a.jpg").unlink()
    turn(scene, reconciler, pruning)
    assert turn(scene, reconciler, pruning) == ["iblock/abc/80_80_1/a.jpg.webp"]
    turn(scene, reconciler, pruning)
    assert folder.exists()  # Bitrix makes the folder first: it may be about to be filled
    scene.age_folder(folder, FOLDERS_AFTER + 1)
    scene.age_folder(folder.parent, FOLDERS_AFTER + 1)
    turn(scene, reconciler, pruning)
    assert not folder.parent.exists()
    assert (scene.root / "iblock/other/80_80_1/b.jpg.webp").exists()
    turn(scene, reconciler, pruning)
    assert not [path for path in scene.remembered() if path.startswith("iblock/abc")]


@pytest.mark.parametrize("young", ["abc", "abc/80_80_1"])
def test_both_folders_wait_until_both_have_been_quiet_for_long(
    young: str, scene: Scene, reconciler: Reconciler, pruning: Pruning
) -> None:
    converted(scene, "abc/80_80_1/a.jpg")
    folder = scene.root / "abc/80_80_1"
    (folder / "a.jpg").unlink()
    for _ in range(3):
        turn(scene, reconciler, pruning)
    scene.age()
    os.utime(scene.root / young)
    turn(scene, reconciler, pruning)
    assert folder.exists()
    scene.age()
    turn(scene, reconciler, pruning)
    assert os.listdir(scene.root) == []
    assert set(scene.remembered()) == {""}


def test_a_folder_above_that_holds_another_stays(scene: Scene, reconciler: Reconciler, pruning: Pruning) -> None:
    converted(scene, "abc/80_80_1/a.jpg")
    (scene.root / "abc/empty").mkdir()
    (scene.root / "abc/80_80_1/a.jpg").unlink()
    for _ in range(3):
        turn(scene, reconciler, pruning)
    scene.age()
    os.utime(scene.root / "abc")  # which does not concern the one that we emptied
    for _ in range(2):
        turn(scene, reconciler, pruning)
    assert os.listdir(scene.root / "abc") == ["empty"]


def test_no_more_than_the_folder_and_the_one_above_go(scene: Scene, reconciler: Reconciler, pruning: Pruning) -> None:
    converted(scene, "iblock/module/abc/80_80_1/a.jpg")
    folder = scene.root / "iblock/module/abc/80_80_1"
    (folder / "a.jpg").unlink()
    for _ in range(3):
        turn(scene, reconciler, pruning)
    os.utime(folder.parent)
    for gone in (folder, folder.parent, folder.parent.parent):
        if gone.exists():
            scene.age_folder(gone, FOLDERS_AFTER + 1)
            turn(scene, reconciler, pruning)
    assert not folder.parent.exists()
    assert folder.parent.parent.exists()


def test_folders_that_are_not_empty_or_that_we_emptied_nothing_in_stay(
    scene: Scene, reconciler: Reconciler, pruning: Pruning
) -> None:
    converted(scene, "full/a.jpg")
    (scene.root / "empty").mkdir()
    scene.image("full/readme.txt")
    (scene.root / "full/a.jpg").unlink()
    turn(scene, reconciler, pruning)
    assert turn(scene, reconciler, pruning) == ["full/a.jpg.webp"]
    scene.age()
    turn(scene, reconciler, pruning)
    turn(scene, reconciler, pruning)
    assert sorted(os.listdir(scene.root)) == ["empty", "full"]
    assert not scene.directory("full").pruned


def test_a_folder_that_is_filled_again_stays(scene: Scene, reconciler: Reconciler, pruning: Pruning) -> None:
    converted(scene, "folder/a.jpg")
    (scene.root / "folder/a.jpg").unlink()
    turn(scene, reconciler, pruning)
    turn(scene, reconciler, pruning)
    assert os.listdir(scene.root / "folder") == []
    scene.image("folder/b.jpg")
    scene.age()
    turn(scene, reconciler, pruning)
    assert set(scene.inbox.lanes(scene.root)) == {"folder/b.jpg"}
    scene.finish(reconciler)
    turn(scene, reconciler, pruning)
    assert not scene.directory("folder").pruned


def test_an_emptied_folder_goes_also_after_a_restart(scene: Scene, reconciler: Reconciler, pruning: Pruning) -> None:
    converted(scene, "abc/80_80_1/a.jpg")
    (scene.root / "abc/80_80_1/a.jpg").unlink()
    turn(scene, reconciler, pruning)
    turn(scene, reconciler, pruning)
    scene.age()
    again = scene.restarted()
    turn(scene, again, scene.pruning(again))
    assert not (scene.root / "abc").exists()
