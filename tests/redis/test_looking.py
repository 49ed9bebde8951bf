"""How often a link looks for a Redis that is away, and what that costs."""

import asyncio
import contextlib
import socket
import time
from itertools import pairwise

import pytest
from redis.asyncio import Redis
from redis.exceptions import ResponseError

from tests.lab import free_port
from tests.queue.clock import VirtualClock
from tests.redis.linked import Told, down, linked, ping, play
from tests.redis.server import RedisServer
from webpd.errors import UsageError
from webpd.redis import link as link_module
from webpd.redis.link import RedisDownError, RedisLink
from webpd.settings import RedisUrl


def take_all(listening: socket.socket) -> int:
    """Take in all connections that wait there, close them, and return how many there were."""
    taken = 0
    with contextlib.suppress(BlockingIOError):
        while True:
            listening.accept()[0].close()
            taken += 1
    return taken


def attempts(url: RedisUrl, seconds: float) -> int:
    """Return how often a link has looked for a Redis that never answers, in a time that the clock leaps over."""

    async def look() -> int:
        async with linked(url) as (link, told):
            await asyncio.sleep(seconds)
            assert [state.up for state in told] == [False]
            return link.state.errors

    loop = VirtualClock()
    try:
        return loop.run_until_complete(look())
    finally:
        loop.close()


def test_a_redis_that_stays_away_is_looked_for_ever_more_rarely() -> None:
    url = RedisUrl(f"redis://127.0.0.1:{free_port()}/0")
    # 0.5 s, 1, 2, 4, 8, 16 and then 30, each cut by up to a half so that hosts do not come all at once.
    assert 4 <= attempts(url, 10) <= 7
    assert 3600 / 30 <= attempts(url, 3600) <= 3600 / 15 + 7


def test_one_that_takes_connections_and_says_nothing_as_well() -> None:
    with socket.create_server(("127.0.0.1", 0), backlog=1000) as silent:
        silent.setblocking(False)
        url = RedisUrl(f"redis://127.0.0.1:{silent.getsockname()[1]}/0")
        looked = attempts(url, 600)
        assert 600 / 31 <= looked <= 600 / 16 + 7
        assert take_all(silent) in {looked, looked + 1}


def test_who_asks_while_it_is_down_costs_no_connection() -> None:
    async def scene(link: RedisLink, told: Told) -> None:
        await down(link, "refuses")
        errors = link.state.errors
        begun = time.monotonic()
        for _ in range(10_000):
            with pytest.raises(RedisDownError):
                await link.ask(ping, within=10)
        assert link.state.errors - errors <= 3 + (time.monotonic() - begun) / 0.25

    play(RedisUrl(f"redis://127.0.0.1:{free_port()}/0"), scene)


def test_one_that_answers_and_fails_by_turns_is_asked_ever_more_rarely(
    server: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(link_module, "_FIRST_DELAY", 0.04)

    async def refused(redis: Redis) -> None:
        raise ResponseError("ERR unknown command")

    async def scene(link: RedisLink, told: Told) -> None:
        gone = []
        for _ in range(6):
            await link.until_up()
            with pytest.raises(RedisDownError, match=r"fails \(ERR unknown command"):
                await link.ask(refused)
            gone.append(time.monotonic())
        for n, (before, after) in enumerate(pairwise(gone)):
            assert after - before >= 0.04 * 2**n / 2

    told = play(server.url, scene)
    assert [state.up for state in told] == [True, False] * 6


@pytest.mark.parametrize(
    "url",
    ["redis://webpd:secret@host:port/0", "redis://webpd:secret@host/0?nonsense=1", "redis://webpd:secret@host:99999/0"],
)
def test_a_url_that_can_not_be_understood_is_told_with_its_variable(url: str) -> None:
    with pytest.raises(UsageError, match=r"WEBPD_REDIS_URL=redis://webpd:\*\*\*@host") as raised:
        RedisLink(RedisUrl(url), changed=lambda _: None)
    assert "secret" not in str(raised.value)
