"""What is new or changed is found by looking at directories, and what has been seen to is not looked at again."""

import logging
import os
import shutil
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.conftest import as_nobody, open_to_all, write
from tests.reconcile.scene import FINGERPRINT, IMAGE, LOCAL, Inbox, Scene, in_threads, meddled, once
from webpd.ledger.port import Directory
from webpd.ledger.sqlite import SqliteLedger
from webpd.model import Result
from webpd.queue.port import Lane
from webpd.reconcile.patience import Patience
from webpd.reconcile.reconciler import Reconciler
from webpd.reconcile.visit import Cycle
from webpd.tree.naming import Exclusion
from webpd.tree.scanner import Scanner

DEEP = ["a.jpg", "one/b.JPG", "one/two/c.png", "one/two/three/four/d.jpeg", "onf/e.jpg", "Ordner mit Bild/ü.jpg"]


def alone(reconciler: Reconciler) -> Cycle:
    return reconciler.cycle(full=False)


@pytest.mark.parametrize("cycle", [alone, in_threads])
def test_the_first_cycle_offers_every_image_and_remembers_no_directory_with_work(
    cycle: Callable[[Reconciler], Cycle], scene: Scene
) -> None:
    for path in DEEP:
        scene.image(path)
    scene.age()
    seen = cycle(scene.reconciler())
    assert scene.inbox.lanes(scene.root) == dict.fromkeys(DEEP, Lane.BACKFILL)
    assert (seen.listed, seen.offered, seen.postponed) == (7, 6, 0)
    remembered = {path for path, directory in scene.remembered().items() if directory.mtime_ns is not None}
    assert remembered == {"one/two/three"}  # no image in it


@pytest.mark.parametrize("cycle", [alone, in_threads])
def test_a_restart_lists_nothing_once_all_is_done(cycle: Callable[[Reconciler], Cycle], scene: Scene) -> None:
    for path in DEEP:
        scene.image(path)
    first = scene.reconciler()
    assert scene.finish(first) == set(DEEP)
    for path, directory in scene.remembered().items():
        assert directory.mtime_ns == os.stat(scene.root / path).st_mtime_ns
        assert directory.sure
    second = scene.restarted()
    seen = cycle(second)
    assert (seen.listed, second.listed, seen.offered) == (0, 0, 0)
    assert scene.inbox.offers == []


def test_a_killed_process_costs_only_another_look(scene: Scene) -> None:
    for path in DEEP:
        scene.image(path)
    scene.reconciler().cycle(full=False)
    for job in scene.inbox.take()[:3]:
        scene.convert(job)  # and the rest is lost with the process
    assert len(scene.finish(scene.restarted())) == 3


def test_a_new_file_in_a_remembered_directory_is_fresh(scene: Scene) -> None:
    for path in DEEP:
        scene.image(path)
    reconciler = scene.reconciler()
    scene.finish(reconciler)
    scene.image("one/two/new.jpg")
    assert reconciler.cycle(full=False).listed == 1
    assert scene.inbox.lanes(scene.root) == {"one/two/new.jpg": Lane.FRESH}


@pytest.mark.parametrize("cycle", [alone, in_threads])
def test_directories_moved_in_with_all_that_is_in_them_are_found_in_the_next_cycle(
    cycle: Callable[[Reconciler], Cycle], scene: Scene, tmp_path: Path
) -> None:
    for path in DEEP:
        scene.image(path)
    reconciler = scene.reconciler()
    scene.finish(reconciler)
    for path in DEEP:
        write(tmp_path / "elsewhere" / path, IMAGE)
    os.rename(tmp_path / "elsewhere", scene.root / "one" / "elsewhere")
    scene.clock.pass_by(2.0)
    cycle(reconciler)
    assert scene.inbox.lanes(scene.root) == {f"one/elsewhere/{path}": Lane.BACKFILL for path in DEEP}


def test_a_renamed_directory_is_found_under_its_new_name(scene: Scene) -> None:
    scene.image("old/in/a.jpg")
    reconciler = scene.reconciler()
    scene.finish(reconciler)
    scene.image("old/in/b.jpg")
    os.rename(scene.root / "old", scene.root / "new")
    cycle = reconciler.cycle(full=False)
    reconciler.forget(cycle.vanished)
    assert scene.inbox.lanes(scene.root) == {"new/in/b.jpg": Lane.BACKFILL}
    assert set(scene.remembered()) == {"", "new", "new/in"}


def test_names_that_are_not_utf_8_are_found_like_others(scene: Scene) -> None:
    folders = [b"\xff", b"\xff/\xfe", "😀".encode(), "😀/é".encode(), "\udc80".encode("utf-8", "surrogatepass")]
    for folder in folders:
        os.makedirs(os.fsencode(scene.root) + b"/" + folder, exist_ok=True)
        scene.image(os.fsdecode(folder + b"/a\xe9.jpg"))
    reconciler = scene.reconciler()
    assert len(scene.finish(reconciler)) == len(folders)
    assert reconciler.cycle(full=False).listed == 0


def test_an_image_that_appears_while_its_directory_is_listed_is_found_by_the_next_cycle(scene: Scene) -> None:
    scene.image("folder/readme.txt")
    scene.age()
    late = once(lambda: scene.image("folder/late.jpg"))
    reconciler = scene.reconciler(scanner=meddled(lambda path: path.endswith("folder") and late(path)))
    reconciler.cycle(full=False)
    assert scene.inbox.offers == []
    remembered = scene.directory("folder")
    assert remembered.mtime_ns is not None
    assert remembered.mtime_ns < os.stat(scene.root / "folder").st_mtime_ns  # as it was before the listing
    reconciler.cycle(full=False)
    assert scene.inbox.lanes(scene.root) == {"folder/late.jpg": Lane.FRESH}


def test_a_directory_is_watched_before_it_is_listed(scene: Scene) -> None:
    (scene.root / "folder").mkdir()

    class Watcher:
        def watch(self, directory: str) -> bool:
            """Write what no event would tell of, were it not for this look."""
            write(Path(directory, "a.jpg"), IMAGE)
            return True

    scene.reconciler(watcher=Watcher()).cycle(full=False)
    assert set(scene.inbox.lanes(scene.root)) == {"a.jpg", "folder/a.jpg"}


def test_news_are_fresh_and_so_is_what_is_found_below(scene: Scene) -> None:
    scene.image("a.jpg")
    reconciler = scene.reconciler()
    scene.finish(reconciler)
    scene.image("b.jpg")
    scene.image("new/deep/c.jpg")
    assert reconciler.news(str(scene.root))
    assert scene.inbox.lanes(scene.root) == dict.fromkeys(["b.jpg", "new/deep/c.jpg"], Lane.FRESH)


def test_news_tell_when_there_was_no_room_for_all(scene: Scene) -> None:
    for number in range(5):
        scene.image(f"{number}.jpg")
    scene.inbox.room = 3
    reconciler = scene.reconciler()
    assert not reconciler.news(str(scene.root))
    assert len(scene.work()) == 3
    assert reconciler.news(str(scene.root))
    assert len(scene.work()) == 2


def test_news_of_a_directory_that_has_gone_are_no_trouble(scene: Scene) -> None:
    assert scene.reconciler().news(str(scene.root / "gone"))
    assert set(scene.remembered()) <= {""}


def test_who_wants_a_look_while_another_looks_gets_one_afterwards(scene: Scene) -> None:
    scene.image("folder/a.jpg")
    reconciler: Reconciler | None = None

    def write_and_tell() -> None:
        scene.image("folder/b.jpg")
        assert reconciler is not None
        teller = threading.Thread(target=reconciler.news, args=(str(scene.root / "folder"),))
        teller.start()
        teller.join(30)
        assert not teller.is_alive()  # it leaves the look to who is at it

    tell = once(write_and_tell)
    reconciler = scene.reconciler(scanner=meddled(lambda path: path.endswith("folder") and tell(path)))
    reconciler.cycle(full=False)
    assert set(scene.inbox.lanes(scene.root)) == {"folder/a.jpg", "folder/b.jpg"}


def test_a_full_cycle_sees_what_no_directory_mtime_shows(scene: Scene) -> None:
    scene.image("one/a.jpg")
    scene.image("two/b.jpg")
    reconciler = scene.reconciler()
    scene.finish(reconciler)
    scene.image("one/a.jpg", b"overwritten in place, and larger than before")
    assert reconciler.cycle(full=False).listed == 0
    assert reconciler.cycle(full=True).listed == 3
    assert scene.inbox.lanes(scene.root) == {"one/a.jpg": Lane.FRESH}


def test_a_lost_sidecar_is_made_again(scene: Scene) -> None:
    original = scene.image("one/a.jpg")
    reconciler = scene.reconciler()
    scene.finish(reconciler)
    original.with_name("a.jpg.webp").unlink()
    reconciler.cycle(full=False)
    assert set(scene.inbox.lanes(scene.root)) == {"one/a.jpg"}


@pytest.mark.parametrize("cycle", [alone, in_threads])
def test_a_vanished_directory_is_forgotten_with_all_below_unless_it_is_back(
    cycle: Callable[[Reconciler], Cycle], scene: Scene
) -> None:
    for path in ("gone/in/a.jpg", "back/b.jpg", "stays/c.jpg"):
        scene.image(path)
    reconciler = scene.reconciler()
    scene.finish(reconciler)
    shutil.rmtree(scene.root / "gone")
    os.rename(scene.root / "back", scene.root / "hidden-for-a-moment")
    seen = cycle(reconciler)
    assert set(seen.vanished) == {"back", "gone", "gone/in"}
    assert {"gone", "gone/in", "back"} <= set(scene.remembered())
    os.rename(scene.root / "hidden-for-a-moment", scene.root / "back")
    reconciler.forget(seen.vanished)
    assert {"", "back", "stays"} <= set(scene.remembered())
    assert not {"gone", "gone/in"} & set(scene.remembered())


def test_a_root_that_is_not_there_is_never_forgotten(scene: Scene) -> None:
    scene.image("a.jpg")
    reconciler = scene.reconciler()
    scene.finish(reconciler)
    os.rename(scene.root, scene.root.with_name("away"))
    assert reconciler.cycle(full=False).vanished == []
    assert "" in scene.remembered()


def test_what_is_seen_while_the_mount_is_sick_is_not_concluded_from(scene: Scene) -> None:
    for path in ("one/a.jpg", "one/b.jpg", "two/c.jpg"):
        scene.image(path)
    scene.finish(scene.reconciler())
    (scene.root / "one/a.jpg").unlink()
    scene.clock.pass_by(60.0)
    before = scene.remembered()

    def fall_sick(_: str) -> None:
        scene.halted = True

    reconciler = scene.reconciler(scanner=meddled(fall_sick))
    cycle = reconciler.cycle(full=True)
    assert cycle.offered == 0
    assert scene.remembered() == before
    assert reconciler.orphans == {}
    reconciler.cycle(full=True)  # nothing at all
    assert reconciler.listed == 1
    assert not reconciler.news(str(scene.root / "one"))  # so that it is tried again
    assert reconciler.listed == 1


def test_what_is_known_of_files_is_kept_while_the_mount_is_sick(scene: Scene) -> None:
    scene.image("one/a.jpg")
    reconciler = scene.reconciler()
    reconciler.cycle(full=False)
    for job in scene.inbox.take():
        scene.learn(job, Result.KEPT_ORIGINAL)
    shutil.rmtree(scene.root / "one")
    (scene.root / "one").mkdir()

    def fall_sick(_: str) -> None:
        scene.halted = True

    scene.reconciler(scanner=meddled(fall_sick)).look_again("one")
    assert scene.known("one") == {"a.jpg"}


def test_an_image_finished_while_its_directory_is_listed_is_not_offered_again(scene: Scene) -> None:
    scene.image("folder/a.jpg")
    scene.reconciler().cycle(full=False)
    (job,) = scene.inbox.take()

    def finish() -> None:
        scene.convert(job)
        reconciler.finished(job)

    finish_once = once(finish)
    reconciler = scene.reconciler(scanner=meddled(lambda path: path.endswith("folder") and finish_once(path)))
    assert reconciler.cycle(full=True).offered == 0
    Path(f"{job.path}.webp").unlink()
    assert reconciler.cycle(full=True).offered == 1  # gone since: it was finished before this look began


@pytest.mark.parametrize("change", ["none", "original"])
def test_a_mount_whose_cache_does_not_show_a_new_sidecar_brings_no_image_back(change: str, scene: Scene) -> None:
    original = scene.image("a.jpg")
    reconciler = scene.reconciler(Patience(settle=0.0, cache=20.0, local=False))
    reconciler.cycle(full=False)
    (job,) = scene.inbox.take()
    reconciler.finished(job)  # and its sidecar is not listed yet
    if change == "original":
        original.write_bytes(IMAGE + b", and more")
    scene.clock.pass_by(19.0)
    assert reconciler.cycle(full=True).offered == (change == "original")
    scene.inbox.take()
    scene.clock.pass_by(2.0)
    assert reconciler.cycle(full=True).offered == 1  # it really is not there


def test_what_dead_processes_left_half_written_is_removed_and_what_living_ones_write_is_not(scene: Scene) -> None:
    code = "from webpd.tree.publisher import Publisher; print(Publisher(None, 0o644, fsync=False)._prefix)"
    dead = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout.strip()
    left = scene.image(f"one/{dead}0.tmp")
    writing = scene.image(f"one/{scene.publisher._prefix}0.tmp")
    scene.reconciler().cycle(full=False)
    assert not left.exists()
    assert writing.exists()


def test_a_directory_that_cannot_be_read_is_told_once_and_waited_for(tmp_path: Path) -> None:
    """A process that is not root, since root may read everything."""
    home = tmp_path / "home"
    write(home / "tree" / "shut" / "a.jpg", IMAGE)
    for folder in (home, home / "tree", home / "tree" / "shut"):
        os.chown(folder, 65534, 65534)
    open_to_all(tmp_path)
    shut = home / "tree" / "shut"
    shut.chmod(0)

    def meet() -> object:
        told: list[str] = []
        handler = logging.Handler()
        handler.emit = lambda record: told.append(record.getMessage())  # type: ignore[method-assign]
        logging.getLogger("webpd").addHandler(handler)
        root, inbox = str(home / "tree"), Inbox()
        ledger = SqliteLedger(str(home / "state" / "ledger.sqlite"))
        scanner = Scanner(root, Exclusion(()))
        reconciler = Reconciler(scanner, ledger, inbox.offer, lambda: False, LOCAL, FINGERPRINT)
        for _ in range(3):
            reconciler.cycle(full=True)
        before = ledger.directory(root, "shut") or Directory("")
        shut.chmod(0o755)
        reconciler.cycle(full=True)
        ledger.close()
        return [told, before.mtime_ns, [os.path.basename(path) for path, _, _ in inbox.offers]]

    told, remembered, offered = as_nobody(meet)
    assert len(told) == 1
    assert str(shut) in told[0]
    assert remembered is None
    assert offered == ["a.jpg"]
