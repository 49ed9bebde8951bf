"""Several hosts on one tree, as their administrator meets them: who does what, and what a fault of one costs."""

import os
import random
import shutil
import signal
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.conftest import Ended, write
from tests.lab import sshfs_lab, wait_for
from tests.pictures import RGB, png
from tests.redis.server import RedisServer
from tests.service.driver import shows, sidecars
from tests.service.hosts import Host, Hosts

NAMES = ("coffee.png", "astronaut.png", "chelsea.png")

Lay = Callable[..., list[Path]]


@pytest.fixture(scope="module")
def queue(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    """The Redis of the queue, with the configuration that webpd ships."""
    with RedisServer(tmp_path_factory.mktemp("queue"), "queue.conf", "--appenddirname", "appendonlydir") as one:
        yield one


@pytest.fixture
def hosts(tmp_path: Path, queue: RedisServer) -> Iterator[Hosts]:
    one = Hosts(tmp_path / "hosts", tmp_path / "tree", queue)
    yield one
    one.close()


@pytest.fixture
def lay(hosts: Hosts, photograph: Callable[..., bytes]) -> Lay:
    """Return a function that lays out so many photographs of a width, in folders, and returns their paths."""

    def lay_out(count: int, width: int = 120, folder: str = "photos") -> list[Path]:
        data = [photograph(width, name) for name in NAMES]
        return [
            write(hosts.tree / folder / f"{number % 20}" / f"{number}.jpg", data[number % len(data)])
            for number in range(count)
        ]

    return lay_out


def lay_out_odd(root: Path, kept: int, broken: int, photograph: Callable[..., bytes]) -> None:
    """Lay out images whose WebP is larger than they are, and images that are damaged."""
    for number in range(kept):
        write(root / "kept" / f"{number}.png", png((1, 1), RGB, number.to_bytes(3, "big")))
    for number in range(broken):
        write(root / "broken" / f"{number}.jpeg", photograph(60)[:900] + b"%d" % number)


def each(paths: list[Path], times: int = 1) -> dict[str, int]:
    return dict.fromkeys(map(str, paths), times)


def test_each_image_is_done_once_and_the_host_that_watches_remembers_what_came_of_it(
    hosts: Hosts, lay: Lay, photograph: Callable[..., bytes], webpd: Callable[..., Ended]
) -> None:
    photos = lay(120)
    lay_out_odd(hosts.tree, 20, 5, photograph)
    kept, broken = list(hosts.tree.glob("kept/*.png")), list(hosts.tree.glob("broken/*.jpeg"))
    for _ in range(2):
        hosts.work()
    hosts.all_ready()
    watch = hosts.watch()
    hosts.all_ready()
    hosts.finish()
    hosts.wait_until(lambda: len(hosts.ended("failed")) == len(broken), "the broken ones are tried")
    watch.settle()
    assert (hosts.ended(), hosts.ended("kept_original")) == (each(photos), each(kept))
    assert hosts.ended("failed") == each(broken)
    assert all(one.outcomes()["converted"] for one in hosts.working)
    assert webpd("verify", "--json", hosts.tree).json["right"] == len(photos)

    state = {"WEBPD_STATE_DIR": str(watch.state)}
    told = webpd("status", "--json", **state).json
    assert (told["role"], told["totals"]["all"]["converted"], told["failures"]) == ("watch", 120, {"damaged": 5})
    counted = told["roots"][0]["counted"]
    assert (counted["images"], counted["kept_original"], counted["failed"]) == (145, 20, 5)
    listed = webpd("failures", "--json", **state).json["failures"]
    assert {failure["path"] for failure in listed} == set(map(str, broken))
    assert {failure["host"] for failure in listed} <= {"work0", "work1"}

    assert webpd("failures", "--retry", "--json", **state).json["retried"] == 5
    hosts.wait_until(lambda: hosts.ended("failed") == each(broken, 2), "they are tried again")
    watch.settle()
    assert watch.stop() == 0
    watch.start()
    watch.settle()
    assert (hosts.ended(), hosts.ended("kept_original")) == (each(photos), each(kept))
    assert hosts.ended("failed") == each(broken, 2)


def test_killed_workers_cost_no_image_and_break_no_sidecar(
    hosts: Hosts, lay: Lay, prove: bool, webpd: Callable[..., Ended]
) -> None:
    kills = 20 if prove else 4
    photos = lay(40 * kills, 400)
    hosts.watch()
    for _ in range(2):
        hosts.work()
    chance = random.Random(1)
    for kill in range(1, kills + 1):
        enough = len(photos) * kill // (kills + 2)
        hosts.wait_until(lambda: len(sidecars(hosts.tree)) >= enough, f"{enough} images")  # noqa: B023
        victims = [one for one in hosts.working if one.runs]
        hosts.wait_until(lambda: any(one.in_hands for one in victims if one.ready()), "work in hands")  # noqa: B023
        chance.choice([one for one in victims if one.get("/health")[0] == 200 and one.in_hands]).kill()
        hosts.work()
    hosts.finish(600 if prove else 60)
    done = hosts.ended()
    # What was done just before a kill may not have been told to anybody.
    assert all(times <= 2 for times in done.values())
    assert sum(done.values()) - len(done) <= kills * 48
    assert webpd("verify", "--json", hosts.tree).json["right"] == len(photos)
    assert not hosts.complaints()
