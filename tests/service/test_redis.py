"""Redis fails in every way that it can while images are converted: nothing is lost, and what is wrong is told."""

import contextlib
import itertools
import json
import os
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import Ended, write
from tests.lab import family, free_port, repeatedly
from tests.pictures import RGB, png
from tests.redis.server import PASSWORD, RedisServer
from tests.service.driver import Service, leftovers, sidecars
from tests.service.test_outcomes import lay_out

Webpd = Callable[..., Ended]
Photograph = Callable[..., bytes]

TICK = os.sysconf("SC_CLK_TCK")
ANSWERS, DOWN = "redis answers", "redis is down: this host goes on by itself"


@pytest.fixture
def server(tmp_path: Path) -> Iterator[RedisServer]:
    with RedisServer(tmp_path / "redis") as running:
        yield running


@dataclass(frozen=True)
class Fault:
    """What is done to the server, how it is undone, and what of it is to be read."""

    name: str
    harm: Callable[[RedisServer], object]
    mend: Callable[[RedisServer], object]
    says: str


def pause(server: RedisServer) -> None:
    server.cli("CLIENT", "PAUSE", "30000" if os.environ.get("PROVE") == "1" else "5000")


def end_of_pause(server: RedisServer) -> None:
    """Nothing: it ends by itself."""


def change_password(server: RedisServer, password: str) -> None:
    server.allow(password)
    server.cli("ACL", "LOAD")
    server.cli("CLIENT", "KILL", "USER", "webpd")


def load_slowly(server: RedisServer) -> None:
    """Have it start with so much data that it takes a minute to load it; it answers meanwhile, every 2 ms or so."""
    for _ in range(40):  # at once, they would make it hang
        fill(server, 5_000, 10)
    server.restart("--key-load-delay", "100", "--loading-process-events-interval-bytes", "1024")


FAULTS = [
    Fault("killed", RedisServer.kill, RedisServer.start, "refuses connections: start it, or set its address in"),
    Fault("paused", pause, end_of_pause, "does not answer within 1 s: it hangs"),
    Fault(
        "another password",
        lambda server: change_password(server, "another"),
        lambda server: change_password(server, PASSWORD),
        "refuses the user or the password: set those of its ACL file",
    ),
    Fault(
        "loading",
        load_slowly,
        lambda server: server.cli("CONFIG", "SET", "key-load-delay", "0"),
        "is loading its data from disk: it will answer",
    ),
    Fault(
        "missing right",
        lambda server: server.cli("ACL", "SETUSER", "webpd", "-hset"),
        lambda server: server.cli("ACL", "SETUSER", "webpd", "+hset"),
        "give it the rights that deploy/redis/users.acl has (NOPERM)",
    ),
    Fault(
        "full",
        lambda server: server.cli("CONFIG", "SET", "maxmemory-policy", "noeviction", "maxmemory", "1"),
        lambda server: server.cli("CONFIG", "SET", "maxmemory", "0"),
        "is full: set a larger maxmemory",
    ),
]


def fill(server: RedisServer, keys: int, size: int) -> None:
    """Write so many new keys, of so many bytes each, as another program would."""
    script = f"""
    for _ = 1, {keys} do
        redis.call('SET', 'other:' .. redis.call('INCR', 'other'), string.rep('x', {size}))
    end
    """
    server.cli("EVAL", script, "0")


def photographs(folder: Path, number: int, photograph: Photograph) -> list[Path]:
    """Write so many photographs."""
    data = [photograph(width, name) for width in (60, 110) for name in ("chelsea.png", "coffee.png", "astronaut.png")]
    return [write(folder / f"{index % 12}" / f"{index}.jpg", data[index % len(data)]) for index in range(number)]


def told(one: Service, says: str = "") -> bool:
    """Tell whether the health page and the metrics tell that Redis answers, or says so that it does not."""
    redis = one.health()["redis"]
    assert redis["configured"]
    assert redis["up"] == (not redis["detail"])
    assert one.metrics()['webpd_redis_up{server="cache"}'] in {0, 1}
    return redis["up"] is not bool(says) and says in redis["detail"]


def all_done(one: Service, tree: Path) -> None:
    """Wait until every image has its sidecar."""
    images = len(list(tree.rglob("*.jpg")))
    one.wait_until(lambda: len(sidecars(tree)) == images, "every image has its sidecar", 300)


def all_right(one: Service, tree: Path, webpd: Webpd) -> None:
    """Nothing failed, nothing is wrong, and all that was said is each change of Redis, once."""
    one.settle()
    images = len(list(tree.rglob("*.jpg")))
    verified = webpd("verify", "--json", tree)
    assert (verified.code, verified.json["right"]) == (0, images)
    assert not leftovers(tree)
    assert one.outcomes()["failed"] == 0
    lines = [(line["event"], line.get("detail")) for line in one.lines if line["event"] in {ANSWERS, DOWN}]
    assert all(line != after for line, after in itertools.pairwise(lines))
    other = [line for line in one.lines if line["level"] not in {"info", "debug"} and line["event"] != DOWN]
    assert other == []
    assert "another" not in json.dumps(one.lines)
    assert PASSWORD not in json.dumps(one.lines)


def changes(one: Service) -> list[str]:
    """Return what the log tells of Redis being there or not, each once."""
    events = (line["event"] for line in one.lines if line["event"] in {ANSWERS, DOWN})
    return [event for event, _ in itertools.groupby(events)]


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.name)
def test_a_fault_of_redis_costs_no_image_and_is_told_with_its_cure(
    fault: Fault,
    tmp_path: Path,
    server: RedisServer,
    service: Callable[..., Service],
    webpd: Webpd,
    photograph: Photograph,
    prove: bool,
) -> None:
    tree, number = tmp_path / "tree", 1000 if prove else 40
    one = service(tree, WEBPD_REDIS_URL=server.url)
    photographs(tree / "before", number, photograph)
    one.start()
    one.wait_until(lambda: told(one) and sidecars(tree), "work has begun")
    fault.harm(server)
    photographs(tree / "first", number, photograph)
    one.wait_until(lambda: told(one, fault.says), fault.says)
    assert one.ready()
    photographs(tree / "then", number, photograph)
    all_done(one, tree)
    fault.mend(server)
    one.wait_until(lambda: told(one), "it is back")
    photographs(tree / "after", number, photograph)
    all_done(one, tree)
    all_right(one, tree, webpd)
    assert changes(one) == [ANSWERS, DOWN, ANSWERS]
    at = [line["event"] for line in one.lines]
    assert "converted" in at[at.index(DOWN) : len(at) - at[::-1].index(ANSWERS)], "none was done meanwhile"
    one.wait_until(lambda: shared(one, server, webpd)["converted"] >= number, "what came after is told to Redis again")
    assert one.stop() == 0


def status(one: Service, server: RedisServer, webpd: Webpd) -> Any:
    """Return what ``webpd status`` tells; it never fails."""
    options = {"WEBPD_STATE_DIR": str(one.state), "WEBPD_HEALTH_ADDRESS": "off", "WEBPD_REDIS_URL": str(server.url)}
    done = webpd("status", "--json", **options)
    assert (done.code, done.err) == (0, "")
    return done.json


def shared(one: Service, server: RedisServer, webpd: Webpd) -> Any:
    """Return the totals of all hosts."""
    return status(one, server, webpd)["all_hosts"]["all"]


def busy(one: Service, seconds: float) -> float:
    """Return the share of a core that the service uses in that time."""

    def used() -> int:
        stats = [Path(f"/proc/{pid}/stat").read_text("utf-8", "replace") for pid in family(one.pid)]
        return sum(sum(map(int, stat.rpartition(")")[2].split()[11:13])) for stat in stats)

    before, begun = used(), time.monotonic()
    one.wait_until(lambda: time.monotonic() > begun + seconds)
    return (used() - before) / TICK / (time.monotonic() - begun)


def test_a_redis_that_comes_late_is_waited_for_at_no_cost_and_may_come_back_empty(
    tmp_path: Path, service: Callable[..., Service], webpd: Webpd, photograph: Photograph, prove: bool
) -> None:
    tree, number = tmp_path / "tree", 1000 if prove else 40
    photographs(tree / "before", number, photograph)
    server = RedisServer(tmp_path / "redis")
    one = service(tree, WEBPD_REDIS_URL=server.url)
    one.start()
    one.wait_until(lambda: told(one, "refuses connections"), "it is not there")
    all_done(one, tree)
    one.settle()
    without = busy(one, 30 if prove else 1.5)
    with server:
        one.wait_until(lambda: told(one), "it is there")
        assert without < busy(one, 30 if prove else 1.5) + 0.1
        photographs(tree / "then", number, photograph)
        one.wait_until(lambda: len(sidecars(tree)) > number, "work has begun")
        server.restart(empty=True)
        photographs(tree / "after", number, photograph)
        all_done(one, tree)
        one.wait_until(lambda: told(one), "it is there again")
        all_right(one, tree, webpd)
        one.wait_until(lambda: shared(one, server, webpd)["converted"], "it is told of the work again")
        assert one.stop() == 0


@contextlib.contextmanager
def harassed(server: RedisServer) -> Iterator[None]:
    """Empty it every second, and have another program fill it all the time, until the block ends."""
    flushed = time.monotonic()

    def harass() -> None:
        nonlocal flushed
        fill(server, 500, 2000)
        if time.monotonic() > flushed + 1:
            flushed = time.monotonic()
            server.cli("FLUSHALL")

    with repeatedly(0.05, harass):
        yield
    assert int(server.info("stats")["evicted_keys"]) > 1000
    assert int(server.info("commandstats")["cmdstat_flushall"].partition("calls=")[2].partition(",")[0]) >= 3


def test_flushed_every_second_and_evicting_it_loses_nothing_and_the_commands_answer_right(
    tmp_path: Path, service: Callable[..., Service], webpd: Webpd, photograph: Photograph, prove: bool
) -> None:
    tree, step = tmp_path / "tree", 100 if prove else 15
    images: list[Path] = []
    broken: list[Path] = []
    with RedisServer(tmp_path / "redis", "redis.conf", "--maxmemory", "8mb") as server:
        one = service(tree, WEBPD_REDIS_URL=server.url, WEBPD_FULL_INTERVAL="1")
        tree.mkdir()
        write(tree / "text.jpg", b"not an image")
        one.start()
        with harassed(server):
            before, over = 0, time.monotonic() + (60 if prove else 5)
            while time.monotonic() < over:
                images += photographs(tree / f"{len(images)}", step, photograph)
                broken.append(write(tree / f"broken{len(broken)}.jpg", photograph(60)[:600]))
                now = status(one, server, webpd)
                assert now["notes"] == []
                assert now["redis"]["up"]
                assert before <= now["totals"]["all"]["converted"] <= len(images)
                assert now["all_hosts"]["all"]["converted"] <= len(images)
                assert failed(one, webpd) <= set(map(str, broken))
                before = now["totals"]["all"]["converted"]
            kept = [write(tree / "kept" / f"{n}.png", png((1, 1), RGB, n.to_bytes(3, "big"))) for n in range(10)]
            one.wait_until(lambda: len(sidecars(tree)) == len(images), "every image has its sidecar", 300)
            for gone in images[:3]:
                gone.unlink()
            counted_right(one, tree, server, webpd, [len(kept), 1, len(broken)])
            one.wait_until(lambda: failed(one, webpd) == set(map(str, broken)), "all that failed is listed")
        totals = status(one, server, webpd)["totals"]["all"]
        assert (totals["converted"], totals["kept_original"], totals["failed"]) == (len(images), 10, len(broken))
        assert changes(one) == [ANSWERS]
        verified = webpd("verify", "--json", tree).json
        assert verified["right"] == len(images) - 3
        assert one.stop() == 0


def failed(one: Service, webpd: Webpd) -> set[str]:
    """Return the paths that ``webpd failures`` lists."""
    done = webpd("failures", "--json", "--limit", 10_000, WEBPD_STATE_DIR=str(one.state))
    assert (done.code, done.err) == (0, "")
    return {failure["path"] for failure in done.json["failures"]}


def counted_right(one: Service, tree: Path, server: RedisServer, webpd: Webpd, ended: Sequence[int]) -> None:
    """What the status counts is what the tree holds; of the images, so many are kept, skipped and failed."""
    one.settle()
    changed = time.time()
    counted: dict[str, Any] = {}

    def looked() -> bool:
        counted.update(status(one, server, webpd)["roots"][0]["counted"] or {})
        return bool(counted) and datetime.fromisoformat(counted["at"]).timestamp() > changed

    one.wait_until(looked, "a pass after the last change", 120)
    files = [Path(folder, name) for folder, _, names in os.walk(tree) for name in names]
    made = [path for path in files if path.suffix == ".webp"]
    orphans = [path for path in made if not path.with_suffix("").exists()]
    kept, skipped, broken = (counted[name] for name in ("kept_original", "skipped", "failed"))
    assert counted["directories"] == sum(1 for _ in os.walk(tree))
    assert counted["images"] == len(files) - len(made)
    assert counted["orphans"] == len(orphans)
    assert counted["images"] - kept - skipped - broken == len(made) - len(orphans)
    assert [kept, skipped, broken] == list(ended)


def test_with_redis_or_without_nothing_is_encoded_again_from_the_second_start_on(
    tmp_path: Path, server: RedisServer, webpd: Webpd, photograph: Photograph, prove: bool
) -> None:
    tree = tmp_path / "tree"
    kept, broken, converted, starts = (5000, 200, 1000, 10) if prove else (50, 10, 10, 3)
    lay_out(tree, kept, broken, photograph)
    photographs(tree / "photographs", converted, photograph)

    def worked_on(start: int, expected: dict[str, int]) -> dict[Path, int]:
        """Start it, let it look at everything, and return which sidecars there are."""
        url = server.url if start % 2 == 0 else "none"
        server.cli("FLUSHALL")
        with contextlib.closing(Service(tmp_path, tree, WEBPD_REDIS_URL=url, WEBPD_FULL_INTERVAL="1")) as one:
            one.start()
            one.wait_until(lambda: sum(one.outcomes().values()) == sum(expected.values()), seconds=600)
            counted_right(one, tree, server, webpd, [kept, 0, broken])
            outcomes = {result: number for result, number in one.outcomes().items() if number}
            assert outcomes == expected
            images = {name: number for name, number in one.metrics().items() if name.startswith("webpd_images_total")}
            assert sum(images.values()) == sum(expected.values())
            assert one.stop() == 0
        return {path: path.stat().st_ino for path in sidecars(tree)}

    made = worked_on(0, {"converted": converted, "kept_original": kept, "failed": broken})
    for start in range(1, starts):
        assert worked_on(start, {}) == made
    assert len(made) == converted


def test_when_the_redis_of_a_rate_limit_dies_this_host_keeps_to_the_limit_by_itself(
    tmp_path: Path, server: RedisServer, service: Callable[..., Service], webpd: Webpd, photograph: Photograph
) -> None:
    tree, rate = tmp_path / "tree", 40
    one = service(tree, WEBPD_REDIS_URL=server.url, WEBPD_RATE_LIMIT=f"{rate}/second")
    together, alone = "the rate limit holds for all hosts together", "each host keeps to the whole rate limit by itself"
    photographs(tree / "before", rate, photograph)
    one.start()
    one.wait_until(lambda: one.said(together) and sidecars(tree), "work has begun")
    server.kill()
    begun, before = time.monotonic(), len(sidecars(tree))
    photographs(tree / "then", 4 * rate, photograph)
    all_done(one, tree)
    # In any stretch of time of a second no more than the limit, but for those that had been let through before.
    assert time.monotonic() - begun >= (5 * rate - before) / rate - 2
    assert len(one.said(alone)) == 1
    server.start()
    one.wait_until(lambda: told(one), "it is back")
    photographs(tree / "after", rate, photograph)
    one.wait_until(lambda: len(one.said(together)) == 2, "the limit is shared again")
    all_done(one, tree)
    assert changes(one) == [ANSWERS, DOWN, ANSWERS]
    assert one.stop() == 0


def test_what_redis_can_not_be_told_takes_little_memory(
    tmpfs: Callable[[str], Path], service: Callable[..., Service], prove: bool
) -> None:
    number = 36_000 if prove else 400

    def memory_after_all(url: str) -> int:
        """Return the KiB that the service's process has after so many images."""
        tree = tmpfs("size=1g")
        one = service(tree, WEBPD_REDIS_URL=url)
        one.start()
        for n in range(number):
            write(tree / f"{n % 500}" / f"{n}.png", png((1, 1), RGB, n.to_bytes(3, "big")))
        one.wait_until(lambda: one.outcomes()["kept_original"] == number, "all are done", 1200)
        one.settle(300)
        memory = int(Path(f"/proc/{one.pid}/status").read_text("ascii").partition("VmRSS:")[2].split()[0])
        assert one.stop() == 0
        return memory

    without = memory_after_all("none")
    untold = memory_after_all(f"redis://127.0.0.1:{free_port()}/0") - without
    print(f"{untold} KiB more than {without} after {number} images")
    assert untold < 8 << 10
