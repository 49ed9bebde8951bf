"""The rate limit of several hosts: the contract in real time with a real Redis, and what holds for all together."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import pytest
from structlog.testing import capture_logs

from tests.queue.contract import BACKFILL, FRESH, URGENT
from tests.queue.rate_contract import (
    KIB,
    LONG,
    Make,
    Passed,
    RateContract,
    images,
    is_refused,
    let_pass,
    most_in,
    now,
    source,
)
from tests.redis.server import RedisServer
from webpd.queue import shared_rate
from webpd.queue.port import Lane
from webpd.queue.shared_rate import KEYS, SharedRateLimit
from webpd.redis.link import RedisLink
from webpd.settings import Rate, RedisUrl

pytestmark = pytest.mark.anyio


@pytest.fixture
def anyio_backend() -> tuple[str, dict[str, Any]]:
    return "asyncio", {}


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    with RedisServer(tmp_path_factory.mktemp("redis")) as server:
        yield server


@pytest.fixture
def server(running: RedisServer) -> RedisServer:
    """The server, with nothing in it."""
    running.cli("FLUSHALL")
    return running


class Host:
    """One host of several: a link to Redis, and a limit that uses it."""

    def __init__(self, url: RedisUrl, images: Rate | None, source: Rate | None, urgent: int = 0) -> None:
        self.link = RedisLink(url, changed=lambda _: None)
        self.limit = SharedRateLimit(self.link, images, source, urgent)

    async def __aenter__(self) -> "Host":
        self._tasks = [asyncio.create_task(self.link.run()), asyncio.create_task(self.limit.run())]
        return self

    async def __aexit__(self, *_: object) -> None:
        for task in self._tasks:
            task.cancel()
        ended = await asyncio.gather(*self._tasks, return_exceptions=True)
        await self.link.close()
        assert all(isinstance(one, asyncio.CancelledError) for one in ended), ended

    async def let_pass_until_stopped(self, passed: list[Passed], size: int = KIB) -> None:
        while True:
            passed += await let_pass(self.limit, [size])
            await asyncio.sleep(0)


Hosts = Callable[..., Awaitable[Host]]


@pytest.fixture
async def host() -> AsyncIterator[Hosts]:
    """Return a function that starts a host, which ends with the test, and waits until it has its link."""
    async with AsyncExitStack() as stack:

        async def start(*arguments: Any) -> Host:
            one = await stack.enter_async_context(Host(*arguments))
            await asyncio.wait_for(one.link.until_up(), LONG)
            return one

        yield start


@pytest.fixture
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have images wait for the answers of Redis however busy the machine is: then it is Redis that counts."""
    monkeypatch.setattr(shared_rate, "_ANSWER_WITHIN", LONG)


@pytest.mark.usefixtures("patient")
class TestSharedRateLimit(RateContract):
    @pytest.fixture
    def make(self, host: Hosts, server: RedisServer) -> Iterator[Make]:
        limits = []

        async def make(images: Rate | None, source: Rate | None, urgent: int) -> SharedRateLimit:
            limits.append((await host(server.url, images, source, urgent)).limit)
            return limits[-1]

        yield make
        assert all(limit.shared for limit in limits), "it was Redis that counted"


async def becomes(condition: Callable[[], object]) -> None:
    async with asyncio.timeout(LONG):
        while not condition():  # noqa: ASYNC110 - of a real server, nobody tells
            await asyncio.sleep(0.02)


async def pass_all(hosts: list[Host], lane: Lane = FRESH, size: int = KIB) -> list[int]:
    """Let pass what hosts that never have enough can take, until all are refused; return how many images each took."""
    taken = [0] * len(hosts)

    async def work(number: int) -> None:
        refused = now()
        while now() < refused + 0.5:
            if hosts[number].limit.admit(lane, size):
                await asyncio.sleep(0.01)
            else:
                taken[number], refused = taken[number] + 1, now()
                await asyncio.sleep(0)

    await asyncio.gather(*(work(number) for number in range(len(hosts))))
    return taken


@pytest.mark.usefixtures("patient")
async def test_all_hosts_together_pass_what_the_limit_says_and_each_has_its_share(
    host: Hosts, server: RedisServer
) -> None:
    hosts = [await host(server.url, images(200, 60), None) for _ in range(4)]
    taken = await pass_all(hosts)
    assert 200 - 4 * 10 <= sum(taken) <= 200
    assert min(taken) >= 10


@pytest.mark.usefixtures("patient")
async def test_a_host_that_becomes_idle_keeps_no_more_than_a_batch(host: Hosts, server: RedisServer) -> None:
    busy, idle = [await host(server.url, images(200, 60), None) for _ in range(2)]
    await let_pass(idle.limit, [KIB] * 50)
    (taken,) = await pass_all([busy])
    assert 200 - 50 - 10 <= taken <= 200 - 50


@pytest.mark.usefixtures("patient")
async def test_the_urgent_allowance_is_one_for_all_hosts(host: Hosts, server: RedisServer) -> None:
    hosts = [await host(server.url, images(15, 60), None, 40) for _ in range(2)]
    assert sum(await pass_all(hosts)) == 15, "a limit of less than 20 is taken one by one"
    assert sum(await pass_all(hosts, URGENT)) == 6
    assert sum(await pass_all(hosts, URGENT)) == 0


@pytest.mark.usefixtures("patient")
async def test_bytes_are_counted_for_all_hosts_together(host: Hosts, server: RedisServer) -> None:
    hosts = [await host(server.url, None, source(1000, 60)) for _ in range(2)]
    assert 1000 - 2 * 50 - 70 <= 7 * sum(await pass_all(hosts, size=7 * KIB)) <= 1000


@pytest.mark.parametrize(("size", "count"), [(30, 3), (5000, 1)])
async def test_a_large_image_is_not_starved_by_small_ones_of_other_hosts_nor_these_by_large_ones(
    host: Hosts, server: RedisServer, size: int, count: int
) -> None:
    hosts = [await host(server.url, None, source(100)) for _ in range(3)]
    passed = [list[Passed]() for _ in hosts]
    tasks = [
        asyncio.create_task(hosts[0].let_pass_until_stopped(passed[0])),
        asyncio.create_task(hosts[1].let_pass_until_stopped(passed[1], size * KIB)),
        asyncio.create_task(hosts[2].let_pass_until_stopped(passed[2], size * KIB)),
    ]
    await becomes(lambda: min(map(len, passed)) >= count)
    largest = max(passed[1][count - 1].after, passed[2][count - 1].after)
    await becomes(lambda: passed[0][-1].before > largest)
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


async def test_a_redis_that_hangs_holds_nothing_up_and_each_host_keeps_to_the_limit(
    host: Hosts, tmp_path: Path
) -> None:
    with RedisServer(tmp_path) as server, capture_logs() as logs:
        one = await host(server.url, images(300, 60), None)
        await let_pass(one.limit, [KIB] * 100)
        assert one.limit.shared
        server.cli("CLIENT", "PAUSE", "120000")
        passed = await let_pass(one.limit, [KIB] * 200, within=LONG)
        await becomes(lambda: not one.link.state.up)
        assert await is_refused(one.limit, BACKFILL), "what passed before counts"
        assert not one.limit.shared
    assert sum(image.asked > 1 for image in passed) <= 5, "most never waited"
    assert [line["log_level"] for line in logs if "rate limit" in line["event"]] == ["info"]


async def test_with_redis_killed_and_back_again_empty_the_limit_is_shared_again(host: Hosts, tmp_path: Path) -> None:
    with RedisServer(tmp_path) as server, capture_logs() as logs:
        hosts = [await host(server.url, images(100, 60), None) for _ in range(2)]
        for one in hosts:
            await let_pass(one.limit, [KIB] * 30)
        server.kill()
        for one in hosts:
            await let_pass(one.limit, [KIB] * 40, within=LONG)
        await becomes(lambda: not hosts[0].link.state.up and not hosts[1].link.state.up)
        for one in hosts:
            assert one.limit.admit(FRESH, KIB) == 0
            assert not one.limit.shared
        server.restart(empty=True)
        await becomes(lambda: not any(one.limit.alone() for one in hosts))
        taken = await pass_all(hosts)
        assert max(taken) <= 100 - 71, "no host has a second limit because Redis has forgotten the first"
        assert min(taken) >= 100 - 71 - 5
        assert all(one.limit.shared for one in hosts)
    told = [line["log_level"] for line in logs if "rate limit" in line["event"]]
    assert sorted(told) == ["info"] * 4 + ["warning"] * 2, "one line for each change on each of two hosts"


async def test_a_redis_that_was_never_there_leaves_the_limit_of_one_host(tmp_path: Path) -> None:
    server = RedisServer(tmp_path)
    with capture_logs() as logs:
        async with Host(server.url, images(20, 60), None) as one:
            await becomes(lambda: one.link.state.errors)
            await let_pass(one.limit, [KIB] * 20, within=LONG)
            assert await is_refused(one.limit, FRESH)
            assert not one.limit.shared
    assert [line["log_level"] for line in logs if "rate limit" in line["event"]] == ["warning"]


async def test_a_redis_that_is_flushed_again_and_again_stops_nothing(host: Hosts, server: RedisServer) -> None:
    one = await host(server.url, images(30), source(500))
    passed = list[Passed]()
    task = asyncio.create_task(one.let_pass_until_stopped(passed, 5 * KIB))
    flushed = 0
    while len(passed) < 65:
        server.cli("FLUSHALL")
        flushed += 1
        await asyncio.sleep(0.1)
        assert not task.done()
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    assert flushed > 5
    assert most_in(passed, 1, lambda _: 1) <= 30, "its own count holds"


async def test_redis_is_asked_for_batches_and_not_for_each_image(host: Hosts, server: RedisServer) -> None:
    server.cli("CONFIG", "RESETSTAT")
    one = await host(server.url, images(40_000, 60), source(10_000_000, 60))
    await let_pass(one.limit, [50 * KIB] * 5000)
    assert one.limit.shared
    calls = server.info("commandstats")["cmdstat_evalsha"].partition(",")[0].removeprefix("calls=")
    assert int(calls) < 500


async def test_every_key_has_its_prefix_and_a_lifetime(host: Hosts, server: RedisServer) -> None:
    one = await host(server.url, images(2, 60), source(100, 60), 50)
    await let_pass(one.limit, [40 * KIB] * 2)
    await let_pass(one.limit, [40 * KIB], URGENT)
    other = await host(server.url, None, source(100, 60))
    assert await is_refused(other.limit, BACKFILL, 5000 * KIB)
    keys = [key for key in server.cli("KEYS", "*").splitlines() if key != "webpd:probe"]
    assert len(keys) == 5, "images, KiB, what is urgent of both, and that the other host waits for room"
    assert all(key.startswith(f"{KEYS}:") for key in keys)
    lifetimes = [int(server.cli("TTL", key)) for key in keys]
    assert max(lifetimes) <= 120
    assert -1 not in lifetimes, "it would stay for ever"
