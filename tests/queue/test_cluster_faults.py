"""Several hosts, and what befalls them: real processes are killed, a real Redis is stopped, emptied and poisoned."""

import asyncio
import os
import pickle
import signal
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import structlog

from redis import Redis
from tests.queue.contract import BACKFILL, OTHER, ROOT, eventually, job, jobs
from tests.queue.host import TAKERS
from tests.queue.hosts import Hosts, ended, paths
from tests.redis.server import RedisServer
from webpd.errors import UnfitError
from webpd.queue.cluster.watch import WatchQueue
from webpd.queue.cluster.wire import Batch, Item, place_of
from webpd.queue.cluster.work import WorkQueue
from webpd.queue.manager import QueueManager

pytestmark = pytest.mark.anyio


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


async def test_what_a_killed_host_had_is_done_by_another_one_soon(hosts: Hosts) -> None:
    watch = hosts.watch()
    await watch.offer(jobs("a", 12), BACKFILL)
    victim = hosts.process("work", 60)
    await eventually(lambda: len(hosts.written) == TAKERS and watch.state().in_flight >= 8)
    victim.kill()
    hosts.work(takers=2)
    await eventually(lambda: watch.state().idle)
    assert sorted(hosts.done) == sorted(paths(12))
    assert sorted(hosts.concluded) == sorted((path, True) for path in paths(12))


async def test_what_a_killed_host_had_told_of_is_not_done_again(hosts: Hosts) -> None:
    watch = hosts.watch(batch=8)
    victim = hosts.process("work", 0.4)
    await watch.offer(jobs("a", 8), BACKFILL)
    await eventually(lambda: len(hosts.concluded) >= 4)
    victim.kill()
    told = {path for path, _ in hosts.concluded}
    hosts.work(takers=2)
    await eventually(lambda: watch.state().idle)
    assert not told & set(hosts.done)
    assert told | set(hosts.done) == set(paths(8))


async def test_what_a_host_that_hangs_had_is_done_by_another_one_and_nobody_minds_when_it_wakes(hosts: Hosts) -> None:
    watch = hosts.watch()
    await watch.offer(jobs("a", 12), BACKFILL)
    sleeper = hosts.process("work", 0.3)
    await eventually(lambda: len(hosts.written) == TAKERS and watch.state().in_flight >= 8)
    os.kill(sleeper.pid, signal.SIGSTOP)
    hosts.work(takers=2, seconds=0.05)
    await eventually(lambda: watch.state().idle)
    os.kill(sleeper.pid, signal.SIGCONT)
    await eventually(lambda: len(hosts.written) > TAKERS)
    await watch.offer(jobs("b", 40), BACKFILL)
    await eventually(lambda: watch.state().idle)
    assert sorted(hosts.concluded) == sorted((path, True) for path in paths(12) + paths(40, "b"))
    assert sleeper.poll() is None


async def test_a_host_that_is_told_to_stop_gives_back_at_once_what_it_has(hosts: Hosts) -> None:
    watch = hosts.watch()
    await watch.offer(jobs("a", 8), BACKFILL)
    leaving = hosts.work(lease=600)
    in_hands = await leaving.take(ROOT)
    await eventually(lambda: watch.state().in_flight == 8)
    hosts.tasks[-1].cancel()
    hosts.work(takers=2, lease=600)
    await eventually(lambda: watch.state().idle)
    assert sorted(hosts.done) == sorted(paths(8))
    await leaving.done(in_hands, ended(in_hands.job))  # what ends too late is of no use, and no error


async def test_a_host_that_is_about_to_stop_finishes_what_is_in_hands_and_lets_others_have_the_rest(
    hosts: Hosts,
) -> None:
    watch = hosts.watch()
    await watch.offer(jobs("a", 8), BACKFILL)
    leaving = hosts.work(lease=600)
    in_hands = await leaving.take(ROOT)
    await eventually(lambda: watch.state().in_flight == 8)
    leaving.drain()
    hosts.work(takers=2, lease=600)
    await eventually(lambda: len(hosts.done) == 7)
    assert in_hands.job.path not in hosts.done
    await leaving.done(in_hands, ended(in_hands.job))
    await eventually(lambda: watch.state().idle)
    assert len(hosts.done) == 7


async def test_a_host_whose_mount_hangs_gives_back_what_does_not_move(hosts: Hosts) -> None:
    watch = hosts.watch()
    await watch.offer(jobs("a", 8), BACKFILL)
    hosts.work(takers=2, seconds=3600, patience=0.5)
    await eventually(lambda: watch.state().in_flight == 8)
    hosts.work(takers=2)
    await eventually(lambda: watch.state().idle)
    assert sorted(hosts.done) == sorted(paths(8))


async def test_a_host_where_nobody_takes_any_more_keeps_nothing(hosts: Hosts) -> None:
    watch = hosts.watch()
    sick = hosts.work(takers=2, lease=600)
    takers = hosts.tasks[-3:-1]
    await watch.offer(jobs("a", 8), BACKFILL)
    await eventually(lambda: watch.state().idle)
    for taker in takers:
        taker.cancel()
    await watch.offer(jobs("b", 8), BACKFILL)
    healthy = hosts.work(takers=2)
    await eventually(lambda: watch.state().idle)
    assert sick.state().idle
    assert healthy.state().idle


@pytest.mark.parametrize("fault", ["FLUSHALL", "restart empty", "killed"])
async def test_what_redis_forgets_is_done_all_the_same(hosts: Hosts, fault: str) -> None:

    def reached(count: float) -> bool:
        return len(hosts.concluded) >= count

    watch = hosts.watch()
    await watch.offer(jobs("a", 400), BACKFILL)
    for _ in range(2):
        hosts.work(takers=2, seconds=0.01)
    for fraction in (0.2, 0.5):
        await eventually(partial(reached, 400 * fraction))
        if fault == "FLUSHALL":
            hosts.server.cli("FLUSHALL")
        elif fault == "killed":
            hosts.server.kill()
            hosts.server.start()
        else:
            hosts.server.restart(empty=True)
    await eventually(lambda: watch.state().idle)
    assert sorted(hosts.concluded) == sorted((path, True) for path in paths(400))


async def test_without_redis_all_waits_and_nobody_knocks_all_the_time(hosts: Hosts) -> None:
    watch = hosts.watch()
    queue = hosts.work(takers=2, seconds=0.01)
    await watch.offer(jobs("a", 100), BACKFILL)
    await eventually(lambda: len(hosts.concluded) > 20)
    with structlog.testing.capture_logs() as logs:
        hosts.server.kill()
        await eventually(lambda: not watch.link.up and not queue.link.up)
        attempts = await knocks_within(3.0, hosts.server.address)
        assert await watch.offer(jobs("b", 10), BACKFILL) == 10
        hosts.server.start()
        await eventually(lambda: watch.state().idle)
    assert attempts < 30
    assert sorted(hosts.concluded) == sorted((path, True) for path in paths(100) + paths(10, "b"))
    lines = Counter("engine" in line["event"] for line in logs)
    assert not lines[True], "the engine does not say it as well"
    assert lines[False] <= 2 * 6, "each host says each change, and the fault is one that closes, refuses and hangs up"


async def knocks_within(seconds: float, address: tuple[str, int]) -> int:
    """Return how many connections are tried in that time; each is closed again without a word."""
    attempts = 0

    def knock(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal attempts
        attempts += 1
        writer.close()

    async with await asyncio.start_server(knock, *address):
        await asyncio.sleep(seconds)
    return attempts


async def test_two_hosts_that_find_the_same_have_it_done_once(hosts: Hosts) -> None:
    for watch in (hosts.watch(), hosts.watch()):
        await watch.offer(jobs("a", 100), BACKFILL)
    hosts.work(takers=4, seconds=0.002)
    await eventually(lambda: len(hosts.concluded) == 200)
    assert sorted(hosts.done) == sorted(paths(100))
    assert sorted(path for path, mine in hosts.concluded if mine) == sorted(paths(100))


async def test_when_one_of_two_hosts_that_watch_is_killed_the_other_one_misses_nothing(hosts: Hosts) -> None:
    hosts.work(takers=4, seconds=0.005)
    victim = hosts.process("watch", 200)
    await eventually(lambda: len(hosts.written) > 20)
    watch = hosts.watch()
    await watch.offer(jobs("a", 200), BACKFILL)
    await eventually(lambda: len(hosts.concluded) > 20)
    victim.kill()
    await eventually(lambda: watch.state().idle, 90)
    assert {path for path, _ in hosts.concluded} == set(paths(200))


async def test_what_is_gone_again_after_it_was_done_is_done_again(hosts: Hosts) -> None:
    watch = hosts.watch()
    hosts.work(takers=1)
    for _ in range(2):
        await watch.offer([job("a/0.jpg")], BACKFILL)
        await eventually(lambda: watch.state().idle)
    assert hosts.done == 2 * paths(1)


async def test_a_host_without_the_root_or_with_other_settings_gets_nothing_of_it(hosts: Hosts) -> None:
    watch = hosts.watch()
    strangers = [
        WorkQueue([OTHER], hosts.server.url, hosts.fingerprint),
        WorkQueue([ROOT], hosts.server.url, b"other settings"),
    ]
    takers = [asyncio.create_task(strangers[0].take(OTHER)), asyncio.create_task(strangers[1].take(ROOT))]
    for stranger in strangers:
        hosts.start(stranger.run())
    await watch.offer(jobs("a", 20), BACKFILL)
    await eventually(lambda: all(stranger.link.up for stranger in strangers))
    hosts.work(takers=1)
    await eventually(lambda: watch.state().idle)
    assert len(hosts.done) == 20
    assert not any(taker.done() for taker in takers)
    for taker in takers:
        taker.cancel()


class Bomb:
    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.path),)


def poison(fingerprint: bytes, marker: Path) -> Iterator[dict[str, bytes]]:
    """Messages that webpd would not write: one runs code, one leads out of the root, the others are nonsense."""
    good = {"when": b"2026-01-01T00:00:00+00:00", "function": b"convert", "kwargs": pickle.dumps({}), "attempt": b"1"}
    outside = Batch("k", "o", [Item(replace(job("a/0.jpg"), path=f"{ROOT}/../../etc/x.jpg"), BACKFILL, 0)]).encode()
    yield good | {"key": b"k", "args": pickle.dumps((Bomb(marker),))}
    yield good | {"key": b"k", "args": pickle.dumps((outside,))}
    yield good | {"key": b"k", "args": pickle.dumps(("{}",))}
    yield good | {"key": b"k", "args": b"\x80\x04garbled"}
    yield {"nonsense": b"\xff"}


async def test_what_webpd_did_not_write_is_thrown_away_before_it_can_do_harm(hosts: Hosts, tmp_path: Path) -> None:
    place = place_of(ROOT, hosts.fingerprint)
    marker = tmp_path / "code has run"
    watch = hosts.watch()
    with structlog.testing.capture_logs() as logs, Redis.from_url(hosts.server.administrator) as client:
        for message in poison(hosts.fingerprint, marker):
            client.xadd(f"{place}:stream", message)
        hosts.work(takers=1)
        await watch.offer(jobs("a", 20), BACKFILL)
        await eventually(lambda: watch.state().idle and not client.xlen(f"{place}:stream"))
    assert sum("thrown away" in line["event"] for line in logs) == len(list(poison(hosts.fingerprint, marker)))
    assert not marker.exists()


async def test_a_letter_that_nobody_can_read_is_thrown_away(hosts: Hosts) -> None:
    watch = hosts.watch()
    hosts.work(takers=1)
    with structlog.testing.capture_logs() as logs, Redis.from_url(hosts.server.administrator) as client:
        await eventually(lambda: client.zrange(f"{place_of(ROOT, hosts.fingerprint)}:owners", 0, -1))
        (owner,) = client.zrange(f"{place_of(ROOT, hosts.fingerprint)}:owners", 0, -1)
        client.rpush(b"webpd:q:post:" + owner, b"\xff", b"[]", b'["x","y",1,[]]')
        await watch.offer(jobs("a", 20), BACKFILL)
        await eventually(lambda: watch.state().idle)
    assert sum("thrown away" in line["event"] for line in logs) == 3


async def test_a_redis_that_evicts_is_refused_with_what_to_set(tmp_path: Path) -> None:
    with RedisServer(tmp_path / "cache", "redis.conf") as cache:
        for queue in (
            WorkQueue([ROOT], cache.url, b""),
            WatchQueue(QueueManager([ROOT]), [ROOT], cache.url, b"", lambda *_, **__: None),
        ):
            with pytest.raises(UnfitError, match=r"maxmemory-policy noeviction.*queue\.conf"):
                await asyncio.wait_for(queue.run(), 30)


async def test_all_keys_have_a_lifetime_or_go_with_the_batch(hosts: Hosts) -> None:
    watch = hosts.watch()
    hosts.work(takers=2)
    await watch.offer(jobs("a", 50), BACKFILL)
    await eventually(lambda: watch.state().idle)
    place = place_of(ROOT, hosts.fingerprint)
    with Redis.from_url(hosts.server.administrator) as client:
        await eventually(lambda: not client.xlen(f"{place}:stream"))
        kept = {key for key in client.scan_iter(f"{place}*") if client.ttl(key) < 0}
    stays = {f"{place}:stream", f"{place}:workers", f"{place}:task-workers:convert"}
    assert {key.decode() for key in kept} <= stays
