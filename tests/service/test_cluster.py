"""Several hosts on one tree, as their administrator meets them: who does what, and what a fault of one costs."""

import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.conftest import Ended, write
from tests.lab import sshfs_lab
from tests.pictures import RGB, png
from tests.redis.server import RedisServer
from tests.service.driver import shows, sidecars
from tests.service.hosts import Hosts

BATCH = 16
NAMES = ("coffee.png", "astronaut.png", "chelsea.png")

# What one host may have and not have told of: what lies there, two images for each of its threads, and a batch.
IN_STOCK = 64

Lay = Callable[..., list[Path]]


@pytest.fixture
def queue(tmp_path: Path) -> Iterator[RedisServer]:
    """The Redis of the queue, with the configuration that webpd ships."""
    with RedisServer(tmp_path / "queue", "queue.conf") as one:
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


def test_workers_that_are_killed_or_hang_cost_no_image_and_break_no_sidecar(
    hosts: Hosts, lay: Lay, prove: bool, webpd: Callable[..., Ended]
) -> None:
    kills = 20 if prove else 4
    photos = lay(50 * kills, 240)
    hosts.watch()
    for _ in range(3):
        hosts.work()
    hung = hosts.caught()
    hung.freeze()
    for kill in range(1, kills + 1):
        enough = len(photos) * kill // (3 * kills)
        hosts.wait_until(lambda: len(sidecars(hosts.tree)) >= enough, f"{enough} images")  # noqa: B023
        hosts.caught().kill()
        hosts.work()
    hosts.wait_until(lambda: not hosts.missing(), "the others do it all", 1800 if prove else 120)
    hung.thaw()
    hosts.finish()
    done = hosts.ended()
    assert set(done) <= set(each(photos))
    assert max(done.values()) <= 2
    assert sum(done.values()) <= len(photos) + IN_STOCK * (kills + 1)

    for one in hosts.working:
        if one is not hung and one.runs:
            assert one.stop() == 0
    more = lay(5, folder="more")
    hosts.finish()
    assert all(map(shows, more)), "who hung works on"
    assert webpd("verify", "--json", hosts.tree).json["right"] == len(photos) + len(more)
    assert not hosts.complaints()


def test_of_two_hosts_that_watch_one_may_die(hosts: Hosts, lay: Lay, photograph: Callable[..., bytes]) -> None:
    photos = lay(150)
    lay_out_odd(hosts.tree, 30, 5, photograph)
    kept, broken = list(hosts.tree.glob("kept/*.png")), list(hosts.tree.glob("broken/*.jpeg"))
    for _ in range(2):
        hosts.work()
    first, second = hosts.watch(), hosts.watch()
    hosts.wait_until(lambda: not hosts.missing(), "all images are done")
    for one in (first, second):
        hosts.wait_until(lambda: one.ready() and one.root()["parked"] == len(broken), "both learn what failed")  # noqa: B023
        one.settle()
    assert (hosts.ended(), hosts.ended("kept_original")) == (each(photos), each(kept))
    assert hosts.ended("failed") == each(broken)

    more = lay(150, folder="more")
    hosts.wait_until(lambda: len(sidecars(hosts.tree)) > len(photos) + 30, "some of those that came later")
    first.kill()
    hosts.finish()
    second.settle()
    assert set(hosts.ended()) == {*each(photos), *each(more)}
    assert max(hosts.ended().values()) == 1
    assert hosts.ended("kept_original") == each(kept)


def test_what_a_worker_had_when_it_was_told_to_stop_is_given_back_at_once(hosts: Hosts, lay: Lay) -> None:
    photos = lay(80, 400)
    watch, worker = hosts.watch(), hosts.work()
    hosts.all_ready()
    assert hosts.caught().stop() == 0
    assert hosts.missing()
    # Nobody is there who could take over what would have been left; one batch may have been on its way just then.
    hosts.wait_until(lambda: watch.in_hands <= BATCH, "all is back")
    assert worker.said("stopped")
    hosts.work()
    hosts.finish()
    assert hosts.ended() == each(photos)


def test_news_is_done_before_a_backlog(hosts: Hosts, lay: Lay) -> None:
    photos = lay(400)
    hosts.watch(WEBPD_RATE_LIMIT="20/second")
    hosts.work()
    hosts.wait_until(lambda: len(sidecars(hosts.tree)) >= 20, "a backlog is worked on")
    news = lay(1, folder="news")[0]
    hosts.wait_until(lambda: shows(news), "what was just written is done")
    assert len(hosts.missing()) > len(photos) // 3


def test_whatever_happens_to_the_redis_of_the_queue_all_is_done_without_help(
    hosts: Hosts, lay: Lay, queue: RedisServer, prove: bool, webpd: Callable[..., Ended]
) -> None:
    photos = lay(10_000 if prove else 200)
    watch = hosts.watch()
    for _ in range(2):
        hosts.work()
    everybody = [watch, *hosts.working]

    def restart_empty() -> None:
        queue.restart(empty=True)

    def flush() -> None:
        queue.cli("FLUSHALL")

    def hang() -> None:
        queue.freeze()
        hosts.wait_until(lambda: not any(one.ready() for one in everybody), "all say that it hangs")
        queue.thaw()

    def kill() -> None:
        queue.kill()
        hosts.wait_until(lambda: not any(one.ready() for one in everybody), "all say that it is gone")
        for one in everybody:
            hosts.wait_until(lambda: "refuse" in one.health()["queue_redis"]["detail"], "and why")  # noqa: B023
        queue.start()

    # One after the other, quickly, they are waited out ever longer: a small tree has no time for all.
    faults = (flush, restart_empty, hang, kill) if prove else (flush, restart_empty, kill)
    for number, fault in enumerate(faults, start=1):
        enough = len(photos) * number // (len(faults) + 1)
        hosts.wait_until(lambda: len(sidecars(hosts.tree)) >= enough, f"{enough} images", 600)  # noqa: B023
        fault()
    hosts.finish(1800 if prove else 120)
    hosts.all_ready()
    watch.settle()
    assert set(hosts.ended()) == set(each(photos))
    assert sum(hosts.ended().values()) <= len(photos) + 2 * len(faults) * IN_STOCK
    assert webpd("verify", "--json", hosts.tree).json["right"] == len(photos)
    for one in everybody:
        # A restart may be over before it is seen, and what is wrong may change from one thing to another.
        assert 1 <= len(one.said("redis is down")) <= 2 * len(faults)
        assert 2 <= len(one.said("redis answers")) <= 1 + len(faults)
    assert not hosts.complaints()


@pytest.mark.parametrize("role", ["watch", "work"])
def test_who_has_no_queue_to_share_or_one_that_forgets_is_told_what_to_set(
    role: str, tmp_path: Path, webpd: Callable[..., Ended]
) -> None:
    options = {
        "WEBPD_HEALTH_ADDRESS": "off",
        "WEBPD_METRICS_ADDRESS": "off",
        "WEBPD_HINT_SOCKET": "off",
        "WEBPD_STATE_DIR": str(tmp_path / "state"),
    }
    tree = tmp_path / "tree"
    tree.mkdir()
    without = webpd("run", "--role", role, tree, **options)
    assert (without.code, "WEBPD_QUEUE_URL" in without.err) == (2, True)
    with RedisServer(tmp_path / "cache", "redis.conf") as cache:
        evicting = webpd("run", "--role", role, tree, WEBPD_QUEUE_URL=str(cache.url), **options)
    assert evicting.code == 3
    assert all(words in evicting.err for words in ("WEBPD_QUEUE_URL", "allkeys-lru", "set maxmemory-policy noeviction"))
    assert "***" in evicting.err


def test_hosts_wait_for_the_redis_of_the_queue_and_for_settings_that_agree(
    hosts: Hosts, lay: Lay, queue: RedisServer, tmp_path: Path
) -> None:
    photos = lay(20)
    queue.stop()
    settings = {role: write(tmp_path / f"{role}.toml", b"quality = 60\n") for role in ("watch", "work")}
    settings["work"].write_text("quality = 70\n")
    watch = hosts.watch(WEBPD_CONFIG=str(settings["watch"]))
    worker = hosts.work(WEBPD_CONFIG=str(settings["work"]))
    for one in (watch, worker):
        hosts.wait_until(lambda: one.said("redis is down", "refuse"), "it says that it waits")  # noqa: B023
        hosts.wait_until(lambda: one.get("/readyz")[0] == 503, "it is not ready")  # noqa: B023
        assert one.alive()
        assert not one.health()["queue_redis"]["up"]
    queue.start()
    hosts.all_ready()
    hosts.wait_until(lambda: watch.said("no host does the work"), "it is told that nobody does what was found")
    assert watch.root()["hosts"] == 0
    assert len(hosts.missing()) == len(photos)
    settings["work"].write_text("quality = 60\n")
    worker.signal(signal.SIGHUP)
    hosts.finish()
    assert watch.root()["hosts"] == 1
    assert hosts.ended() == each(photos)

    watch.signal(signal.SIGHUP)
    hosts.wait_until(lambda: watch.said("settings read again"), "the host that watches begins anew")
    hosts.all_ready()
    more = lay(5, folder="more")
    hosts.finish()
    assert hosts.ended() == each([*photos, *more])


def test_a_worker_whose_mount_is_sick_leaves_the_work_to_others(
    tmp_path: Path, queue: RedisServer, photograph: Callable[..., bytes], webpd: Callable[..., Ended]
) -> None:
    with sshfs_lab(tmp_path / "lab", options=("dcache_timeout=1",)) as lab:
        hosts = Hosts(tmp_path / "hosts", lab.mnt, queue)
        try:
            data = photograph(240)
            for number in range(80):
                write(lab.origin / f"{number % 10}" / f"{number}.jpg", data)
            # They have the same folder at the same path, these two without SSHFS.
            hosts.watch(below=lab.origin)
            sick = hosts.work()
            hosts.wait_until(lambda: sidecars(lab.origin), "it works through its mount")
            hosts.caught()
            lab.kill_sshfs()
            hosts.work(below=lab.origin)
            hosts.wait_until(lambda: len(sidecars(lab.origin)) == 80, "the other one does the rest")
            hosts.wait_until(lambda: not any(one.busy for one in (hosts.watching[0], sick)), "it has nothing in hands")
            assert sick.root()["mount"] == "dead"
            assert not hosts.ended("failed")
            lab.mount()
            hosts.all_ready()
            assert webpd("verify", "--json", lab.origin).json["right"] == 80
        finally:
            hosts.close()
