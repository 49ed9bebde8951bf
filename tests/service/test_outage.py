"""The link is cut, the server hangs, the mount goes: the work waits, loses nothing, and goes on by itself.

The tests ask for the service before the laboratory, so that this one is cleared away first: what hangs in a mount
cannot end, not even by SIGKILL, before the mount does.
"""

import contextlib
import os
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.conftest import Ended, write
from tests.lab import SshfsLab, repeatedly, sshfs_lab, wait_for
from tests.service.driver import Service, leftovers, shows, sidecars

IMAGES = 60
IO_THREADS = 4
# What may hang beside the threads at work: probes, the poll, a look at a directory, the pruner; and codecs' threads.
OTHER_THREADS = 32

# Images that take their time, so that a fault comes in the midst of work.
SLOW = {"WEBPD_IO_THREADS": str(IO_THREADS), "WEBPD_WORKERS": "1", "WEBPD_RATE_LIMIT": "30/second"}


@pytest.fixture
def lab(tmp_path: Path) -> Iterator[SshfsLab]:
    with sshfs_lab(tmp_path, options=("dcache_timeout=1", "ServerAliveInterval=2", "ServerAliveCountMax=2")) as one:
        yield one


@pytest.fixture
def hanging(tmp_path: Path) -> Iterator[SshfsLab]:
    """A mount that waits for its server for ever, as sshfs does unless told otherwise."""
    with sshfs_lab(tmp_path, options=("dcache_timeout=1",)) as one:
        yield one


def begin(lab: SshfsLab, one: Service, photograph: Callable[..., bytes]) -> list[Path]:
    """Start the service on a tree, and return its images when some of them are done."""
    data = [photograph(width) for width in (120, 160, 200)]
    images = [write(lab.origin / f"{n % 12}" / f"{n}.jpg", data[n % 3]) for n in range(IMAGES)]
    one.start()
    one.wait_until(lambda: len(sidecars(lab.origin)) >= 10, "work has begun")
    assert len(sidecars(lab.origin)) < IMAGES
    return images


def check(lab: SshfsLab, one: Service, images: list[Path], webpd: Callable[..., Ended]) -> None:
    """All is done after the mount is back, nothing failed and nothing was pruned."""
    one.wait_until(lambda: all(Path(f"{image}.webp").exists() for image in images), "all is done", 120)
    one.settle()
    health = one.health()
    assert health["roots"][0]["mount"] == "well"
    assert health["outcomes"]["failed"] == 0
    assert health["pruned"] == 0
    assert not leftovers(lab.origin)
    verified = webpd("verify", "--json", lab.origin)
    assert (verified.code, verified.json["right"]) == (0, IMAGES)
    assert one.stop() == 0


@contextlib.contextmanager
def few_threads(one: Service) -> Iterator[None]:
    """Count the threads every 50 ms: no more than a fixed number are ever stuck."""
    before = one.threads()
    counts = [before]

    def count() -> None:
        with contextlib.suppress(OSError):
            counts.append(one.threads())

    with repeatedly(0.05, count):
        yield
    print(f"threads: {before} before, {max(counts)} at the most")
    assert max(counts) <= before + IO_THREADS + OTHER_THREADS


def test_a_killed_server_costs_nothing_but_time(
    service: Callable[..., Service], lab: SshfsLab, photograph: Callable[..., bytes], webpd: Callable[..., Ended]
) -> None:
    one = service(lab.mnt, **SLOW)
    images = begin(lab, one, photograph)
    with few_threads(one):
        lab.kill_sshd()
        one.wait_until(lambda: one.root()["mount"] != "well", "the fault is seen")
        assert one.alive()
    lab.start_sshd()
    check(lab, one, images, webpd)


@pytest.mark.parametrize("kind", ["lab", "hanging"])
def test_a_server_that_hangs_costs_nothing_but_time(
    kind: str,
    request: pytest.FixtureRequest,
    service: Callable[..., Service],
    photograph: Callable[..., bytes],
    webpd: Callable[..., Ended],
    prove: bool,
) -> None:
    lab: SshfsLab = request.getfixturevalue(kind)
    one = service(lab.mnt, **SLOW)
    images = begin(lab, one, photograph)
    over = time.monotonic() + (60 if prove else 5)
    with few_threads(one):
        lab.stop()
        one.wait_until(lambda: one.root()["mount"] in {"hung", "dead"}, "the fault is seen")
        while time.monotonic() < over:
            assert one.alive()
            time.sleep(0.2)
    lab.cont()
    check(lab, one, images, webpd)


def test_a_service_whose_mount_hangs_still_ends_when_it_is_told_to(
    service: Callable[..., Service], hanging: SshfsLab, photograph: Callable[..., bytes], webpd: Callable[..., Ended]
) -> None:
    one = service(hanging.mnt, WEBPD_SHUTDOWN_TIMEOUT="2", **SLOW)
    images = begin(hanging, one, photograph)
    hanging.stop()
    one.wait_until(lambda: one.root()["mount"] == "hung", "the fault is seen")
    one.signal(signal.SIGHUP)
    one.wait_until(one.alive)
    one.signal(signal.SIGTERM)
    wait_for(one.over, "it ends", 60)
    hanging.cont()
    assert one.ended() == 0
    one.start()
    check(hanging, one, images, webpd)


def test_nothing_is_written_under_a_mount_that_was_taken_away(
    service: Callable[..., Service], lab: SshfsLab, photograph: Callable[..., bytes], webpd: Callable[..., Ended]
) -> None:
    one = service(lab.mnt, WEBPD_PRUNE_AFTER="1", **SLOW)
    images = begin(lab, one, photograph)
    lab.unmount()
    one.wait_until(lambda: one.root()["mount"] == "unmounted", "the fault is seen")
    before = one.root()["images"]
    one.wait_until(one.alive)
    assert list(lab.mnt.iterdir()) == []
    assert one.root()["images"] == before  # an empty folder is no reason to forget a tree
    lab.mount()
    check(lab, one, images, webpd)


def test_a_killed_sshfs_costs_nothing_but_time(
    service: Callable[..., Service], lab: SshfsLab, photograph: Callable[..., bytes], webpd: Callable[..., Ended]
) -> None:
    one = service(lab.mnt, WEBPD_PRUNE_AFTER="1", **SLOW)
    images = begin(lab, one, photograph)
    lab.kill_sshfs()
    one.wait_until(lambda: one.root()["mount"] == "dead", "the fault is seen")
    lab.mount()
    check(lab, one, images, webpd)


def test_one_sick_root_does_not_hold_up_another(
    tmp_path: Path, service: Callable[..., Service], hanging: SshfsLab, photograph: Callable[..., bytes]
) -> None:
    well = tmp_path / "well"
    well.mkdir()
    one = service(hanging.mnt, well, WEBPD_IO_THREADS="4", WEBPD_WORKERS="1")
    write(hanging.origin / "first.jpg", photograph(160))
    one.start()
    one.wait_until(lambda: shows(hanging.origin / "first.jpg"))
    hanging.stop()
    one.wait_until(lambda: one.root(0)["mount"] == "hung", "the fault is seen")
    new = [write(well / f"{number}" / "new.jpg", photograph(160)) for number in range(20)]
    one.wait_until(lambda: all(map(shows, new)), "the other root goes on")
    assert one.root(1)["mount"] == "well"
    hanging.cont()
    one.wait_until(lambda: one.root(0)["mount"] == "well")


def test_a_root_that_is_not_mounted_yet_is_waited_for(
    service: Callable[..., Service], lab: SshfsLab, photograph: Callable[..., bytes]
) -> None:
    picture = write(lab.origin / "a" / "picture.jpg", photograph(160))
    one = service(lab.mnt, WEBPD_PRUNE_AFTER="1")
    one.start()
    one.wait_until(lambda: shows(picture))
    assert one.stop() == 0
    lab.unmount()
    one.launch()

    def unmounted() -> bool:
        """Tell it as soon as it answers, and has begun to look at its roots."""
        return one.alive() and [root["mount"] for root in one.health()["roots"]] == ["unmounted"]

    one.wait_until(unmounted, "the bare folder is seen")
    new = write(lab.origin / "b" / "new.jpg", photograph(150))
    lab.mount()
    one.wait_until(lambda: shows(new))
    assert one.health()["pruned"] == 0
    assert os.path.exists(f"{picture}.webp")


@pytest.fixture
def far(tmp_path: Path) -> Iterator[SshfsLab]:
    """A mount so far away that a file being published can be caught in the act."""
    with sshfs_lab(tmp_path, 0.02, options=("dcache_timeout=1",)) as one:
        yield one


def test_what_was_half_written_when_the_mount_died_is_removed_when_it_is_back(
    service: Callable[..., Service], far: SshfsLab, photograph: Callable[..., bytes], webpd: Callable[..., Ended]
) -> None:
    one = service(far.mnt, **SLOW)
    images = begin(far, one, photograph)

    def caught() -> bool:
        far.stop()  # or, on a busy machine, it may have been published by the time that the mount dies
        if leftovers(far.origin):
            return True
        far.cont()
        return False

    wait_for(caught, "a temporary file")
    far.kill_sshfs()
    far.cont()
    one.wait_until(lambda: one.root()["mount"] == "dead", "the fault is seen")
    far.mount()
    check(far, one, images, webpd)
