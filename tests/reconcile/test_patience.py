"""When a directory or a file is believed, and what has to wait for it."""

import itertools
import os
import tempfile
import time
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.reconcile.scene import LOCAL, Clock, Scene
from webpd.ledger.port import Directory
from webpd.model import Failure, Job, Result
from webpd.queue.port import Lane
from webpd.reconcile.patience import Patience

NETWORK = Patience(settle=1.0, cache=20.0, local=False)
DAY = 86_400.0


def job(mtime_ns: int) -> Job:
    return Job("/tree/a.jpg", "/tree", 1, mtime_ns)


@pytest.mark.parametrize(("seconds", "old"), [(-60.0, False), (0.0, False), (1.5, False), (2.5, True), (DAY, True)])
def test_on_a_local_disk_a_directory_is_old_when_its_mtime_can_come_no_more(seconds: float, old: bool) -> None:
    assert LOCAL.is_old(time.time_ns() - int(seconds * 1e9)) is old


@pytest.mark.parametrize(("seconds", "old"), [(60.0, False), (DAY - 60, False), (DAY + 60, True)])
def test_on_a_network_mount_whose_clock_is_not_ours_a_directory_is_old_after_a_day(seconds: float, old: bool) -> None:
    assert NETWORK.is_old(time.time_ns() - int(seconds * 1e9)) is old


def test_a_mount_that_answers_from_a_cache_makes_the_second_look_wait_for_as_long() -> None:
    assert NETWORK.sure - LOCAL.sure == NETWORK.cache


@pytest.mark.parametrize("settle", [0.0, 1.0, 5.0])
def test_where_mtimes_have_whole_seconds_a_whole_one_passes_before_a_file_is_read(settle: float) -> None:
    patience = Patience(settle, 0.0, True)
    whole, fine = job(1_600_000_000_000_000_000), job(1_600_000_000_000_000_001)
    assert patience.delay([fine]) == settle
    assert patience.delay([fine, whole]) == max(settle, patience.delay([whole]))
    assert patience.delay([whole]) > 1.0
    assert patience.delay([whole]) >= settle


def test_jobs_are_offered_with_the_delay_that_they_need(scene: Scene) -> None:
    scene.image("whole/a.jpg", mtime=1_600_000_000)
    scene.image("fine/b.jpg", mtime=1_600_000_000.5)
    scene.reconciler(Patience(0.25, 0.0, True)).cycle(full=False)
    delays = {os.path.relpath(path, scene.root): delay for path, _, delay in scene.inbox.offers}
    assert delays["fine/b.jpg"] == 0.25
    assert delays["whole/a.jpg"] > 1.0


def test_an_old_directory_is_sure_at_once_and_a_young_one_after_a_second_look(scene: Scene) -> None:
    (scene.root / "old").mkdir()
    (scene.root / "young").mkdir()
    scene.age_folder(scene.root)
    scene.age_folder(scene.root / "old")
    reconciler = scene.reconciler()
    reconciler.cycle(full=False)
    assert scene.directory("old").sure
    assert not scene.directory("young").sure
    assert reconciler.cycle(full=False).listed == 0  # not yet
    scene.clock.pass_by(LOCAL.sure)
    assert reconciler.cycle(full=False).listed == 1
    assert scene.directory("young").sure
    scene.clock.pass_by(DAY)
    assert reconciler.cycle(full=False).listed == 0


def test_a_file_that_came_under_the_mtime_already_remembered_is_found_by_the_second_look(scene: Scene) -> None:
    folder = scene.image("young/readme.txt").parent
    reconciler = scene.reconciler()
    reconciler.cycle(full=False)
    seen = os.stat(folder).st_mtime_ns
    assert scene.directory("young").mtime_ns == seen
    scene.image("young/a.jpg")
    os.utime(folder, ns=(seen, seen))  # as where two names share a second
    assert reconciler.cycle(full=False).listed == 0
    scene.clock.pass_by(LOCAL.sure)
    reconciler.cycle(full=False)
    assert scene.inbox.lanes(scene.root) == {"young/a.jpg": Lane.FRESH}


def test_a_second_look_makes_sure_only_when_the_mtime_stayed(scene: Scene) -> None:
    folder = scene.image("young/readme.txt").parent
    reconciler = scene.reconciler()
    reconciler.cycle(full=False)
    scene.clock.pass_by(LOCAL.sure)
    os.utime(folder)
    reconciler.cycle(full=False)
    assert not scene.directory("young").sure
    scene.clock.pass_by(LOCAL.sure)
    reconciler.cycle(full=False)
    assert scene.directory("young").sure


def test_on_a_network_mount_the_second_look_waits_for_the_cache_to_pass_by(scene: Scene) -> None:
    (scene.root / "folder").mkdir()
    scene.age()
    reconciler = scene.reconciler(NETWORK)
    reconciler.cycle(full=False)
    assert not scene.directory("folder").sure  # an hour old, but by whose clock?
    scene.clock.pass_by(NETWORK.sure - 1)
    assert reconciler.cycle(full=False).listed == 0
    scene.clock.pass_by(2.0)
    assert reconciler.cycle(full=False).listed == 2
    assert scene.directory("folder").sure


def looks_in(scene: Scene, seconds: int, at_each: object = None) -> list[int]:
    """Cycle once a second; return in which seconds the folder was looked at."""
    reconciler, looked = scene.reconciler(), []
    for second in range(seconds):
        if callable(at_each):
            at_each()
        if reconciler.cycle(full=False).listed:
            looked.append(second)
        scene.clock.pass_by(1.01)
    return looked


def test_a_directory_with_work_in_which_nothing_moves_is_looked_at_ever_more_seldom(scene: Scene) -> None:
    scene.image("a.jpg")
    looked = looks_in(scene, 700)
    gaps = [after - before for before, after in itertools.pairwise(looked)]
    assert gaps == sorted(gaps)
    assert gaps[0] <= 2
    assert 200 <= gaps[-1] <= 300
    assert len(looked) < 20


def test_a_directory_with_work_in_which_something_moves_is_looked_at_soon(scene: Scene) -> None:
    scene.image("a.jpg")
    assert looks_in(scene, 30, lambda: os.utime(scene.root)) == list(range(30))


def test_a_directory_that_moves_again_after_a_long_rest_is_looked_at_soon(scene: Scene) -> None:
    scene.image("a.jpg")
    reconciler = scene.reconciler()
    for _ in range(6):
        reconciler.cycle(full=False)
        scene.clock.pass_by(100.0)
    assert reconciler.cycle(full=False).listed == 1
    scene.clock.pass_by(2.0)
    assert reconciler.cycle(full=False).listed == 0
    scene.image("b.jpg")
    assert reconciler.cycle(full=False).offered == 2


def test_work_that_came_to_nothing_is_offered_again_however_long_it_takes(scene: Scene) -> None:
    scene.image("a.jpg")
    reconciler = scene.reconciler()
    for _ in range(12):
        assert reconciler.cycle(full=False).offered == 1
        scene.inbox.take()  # and nothing comes of it
        scene.clock.pass_by(301.0)


def test_a_large_directory_that_changes_all_the_time_is_not_looked_at_all_the_time(scene: Scene) -> None:
    scene.image("a.jpg")
    reconciler = scene.reconciler()
    scene.finish(reconciler)
    scene.ledger.record(str(scene.root), scene.directory("")._replace(images=60_000, looked=scene.clock.monotonic()))
    scene.image("b.jpg")
    assert reconciler.cycle(full=False).listed == 0
    scene.clock.pass_by(61.0)
    assert reconciler.cycle(full=False).offered == 1


def test_a_look_remembered_from_before_the_machine_was_started_anew_counts_as_long_ago(scene: Scene) -> None:
    scene.image("a.jpg")
    reconciler = scene.reconciler()
    scene.finish(reconciler)
    late = Directory("", 1, False, scene.clock.monotonic() + 1e6, images=1)
    scene.ledger.record(str(scene.root), late)
    assert reconciler.cycle(full=False).listed == 1


@pytest.mark.parametrize("looks_unfinished", ["empty", "damaged"])
def test_a_file_that_looks_unfinished_is_looked_at_until_its_writer_goes_on(
    looks_unfinished: str, scene: Scene
) -> None:
    path = scene.image("folder/a.jpg", b"" if looks_unfinished == "empty" else b"half of an upload")
    reconciler = scene.reconciler()
    reconciler.cycle(full=False)
    for job in scene.inbox.take():
        scene.learn(job, Result.FAILED, Failure.DAMAGED)
    for _ in range(10):
        scene.clock.pass_by(LOCAL.sure)
        assert reconciler.cycle(full=False).offered == 0
        assert not scene.directory("folder").sure
    with open(path, "ab") as file:  # no directory mtime tells of it
        file.write(b"the rest of it")
    scene.clock.pass_by(300.0)  # the longest wait
    assert reconciler.cycle(full=False).offered == 1


@pytest.mark.parametrize("looks_unfinished", ["empty", "damaged"])
def test_what_has_looked_unfinished_for_an_hour_is_left_to_full_cycles(looks_unfinished: str, scene: Scene) -> None:
    path = scene.image("folder/a.jpg", b"" if looks_unfinished == "empty" else b"half of an upload")
    scene.age(3700.0)
    reconciler = scene.reconciler()
    reconciler.cycle(full=False)
    for job in scene.inbox.take():
        scene.learn(job, Result.FAILED, Failure.DAMAGED)
    scene.clock.pass_by(301.0)
    reconciler.cycle(full=False)
    assert scene.directory("folder").sure
    with open(path, "ab") as file:
        file.write(b"the rest of it")
    scene.clock.pass_by(DAY)
    assert reconciler.cycle(full=False).listed == 0
    assert reconciler.cycle(full=True).offered == 1


@pytest.mark.parametrize("state", ["with an unfinished file", "being converted"])
def test_polling_a_large_directory_stays_cheap_whatever_goes_on_in_it(state: str, scene: Scene) -> None:
    """A look at 60,000 images takes about a second of a core: once a minute, that is 2 % of it."""
    scene.image("empty.jpg", b"")
    if state == "being converted":
        scene.image("a.jpg")
    reconciler = scene.reconciler()
    reconciler.cycle(full=False)
    scene.ledger.record(str(scene.root), scene.directory("")._replace(images=60_000))
    if state == "being converted":
        os.utime(scene.root)  # a sidecar came
    scene.clock.pass_by(5.0)
    assert reconciler.cycle(full=False).listed == 0


def test_while_a_lane_is_full_the_rest_is_postponed_and_nothing_is_lost(scene: Scene) -> None:
    expected = {f"{folder:03}/{name}.jpg" for folder in range(100) for name in range(4)}
    for path in expected:
        scene.image(path)
    scene.age()
    scene.inbox.room = 50
    reconciler = scene.reconciler()
    first = reconciler.cycle(full=False)
    assert first.offered == 50
    assert first.postponed > 0
    assert first.listed < 101
    assert scene.finish(reconciler) == expected
    assert scene.restarted().cycle(full=False).listed == 0


def test_what_found_the_lane_full_is_offered_as_soon_as_there_is_room(scene: Scene) -> None:
    for folder in range(10):
        scene.image(f"{folder}/a.jpg")
    scene.age()
    scene.inbox.room = 5
    reconciler = scene.reconciler()
    for _ in range(5):  # the lane stays full for a while
        scene.clock.pass_by(20.0)
        reconciler.cycle(full=False)
    assert len(scene.work()) == 5
    seen = reconciler.cycle(full=False)
    assert seen.offered or seen.postponed  # or a single pass ends here, with half of the tree undone


def test_a_full_lane_of_found_work_does_not_hold_up_what_was_just_written(scene: Scene) -> None:
    for folder in range(40):
        scene.image(f"{folder:02}/a.jpg")
    scene.image("zz/first.jpg")
    reconciler = scene.reconciler()
    scene.finish(reconciler)
    scene.inbox.room = 10
    for folder in range(40):
        scene.image(f"new{folder:02}/a.jpg")
    scene.image("zz/second.jpg")
    reconciler.cycle(full=False)
    assert scene.inbox.lanes(scene.root)["zz/second.jpg"] is Lane.FRESH


@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    room=st.integers(1, 12),
    folders=st.lists(st.integers(0, 6), min_size=1, max_size=12),
    nested=st.booleans(),
)
def test_whatever_the_room_in_the_queue_all_images_are_offered(
    room: int, folders: list[int], nested: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    with tempfile.TemporaryDirectory() as temporary, monkeypatch.context() as patched:
        scene = Scene(Path(temporary), Clock(patched))
        try:
            expected, above = set(), ""
            for number, images in enumerate(folders):
                folder = f"{above}{number}"
                expected |= {f"{folder}/{name}.jpg" for name in range(images)}
                (scene.root / folder).mkdir()
                above = f"{folder}/" if nested else ""
            for path in expected:
                scene.image(path)
            scene.age()
            scene.inbox.room = room
            reconciler, done = scene.reconciler(), set[str]()
            for _ in range(len(expected) // room + len(folders) + 2):
                reconciler.cycle(full=False)
                assert all(len(queue) <= room for queue in scene.inbox.waiting.values())
                done |= scene.work()
                scene.clock.pass_by(301.0)
            assert done == expected
        finally:
            scene.ledger.close()
