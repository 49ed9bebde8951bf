"""Who is there, as several processes tell of themselves."""

import asyncio
import json
import sys
import time
from collections.abc import Callable, Coroutine
from dataclasses import asdict, replace
from typing import Any

import pytest

from tests.redis.linked import linked
from tests.redis.server import RedisServer
from webpd.redis import presence as presence_module
from webpd.redis.link import RedisLink
from webpd.redis.presence import Presence, announce, hosts

ONE = Presence("cdn-1", 17, "watch", "0.4.0", "00ff", 1.79e9, {"fresh": 3}, 2, 41.5, {"/srv/\udcff": "well"})
OTHER = replace(ONE, host="cdn-2 — Köln \udcff", role="work")


def play(server: RedisServer, scene: Callable[[RedisLink], Coroutine[Any, Any, None]]) -> None:
    async def play() -> None:
        async with linked(server.url) as (link, _):
            await link.until_up()
            await scene(link)

    asyncio.run(asyncio.wait_for(play(), 60))


async def end(*tasks: "asyncio.Task[Any]") -> None:
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


async def until_there(link: RedisLink, expected: list[Presence]) -> None:
    give_up = time.monotonic() + 30
    while await link.ask(hosts) != expected:
        assert time.monotonic() < give_up
        await asyncio.sleep(0.01)


def test_processes_are_there_until_they_say_that_they_go(server: RedisServer) -> None:
    async def scene(link: RedisLink) -> None:
        assert await link.ask(hosts) == []
        other, one, same = (
            asyncio.create_task(announce(link, lambda: OTHER)),
            asyncio.create_task(announce(link, lambda: ONE)),
            asyncio.create_task(announce(link, lambda: replace(ONE, pid=9))),
        )
        await until_there(link, [replace(ONE, pid=9), ONE, OTHER])
        await end(one, same)
        await until_there(link, [OTHER])
        await end(other)
        await until_there(link, [])

    play(server, scene)


def test_what_a_process_tells_is_renewed(server: RedisServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(presence_module, "_EVERY", 0.02)

    async def scene(link: RedisLink) -> None:
        now = ONE
        telling = asyncio.create_task(announce(link, lambda: now))
        await until_there(link, [ONE])
        now = replace(ONE, in_flight=9)
        await until_there(link, [now])
        await asyncio.to_thread(server.cli, "FLUSHALL")
        await until_there(link, [now])
        await asyncio.to_thread(lambda: server.restart(empty=True))
        await link.until_up()
        await until_there(link, [now])
        await end(telling)

    play(server, scene)


_PROCESS = """
import asyncio, sys
from tests.redis.test_presence import ONE
from webpd.redis import presence
from webpd.redis.link import RedisLink
from webpd.settings import RedisUrl

async def main():
    presence._KEPT = 1
    link = RedisLink(RedisUrl(sys.argv[1]), changed=print)
    running = asyncio.create_task(link.run())
    await link.until_up()
    await presence.announce(link, lambda: ONE)

asyncio.run(main())
"""


def test_who_was_killed_is_gone_by_itself(server: RedisServer) -> None:
    async def scene(link: RedisLink) -> None:
        command = (sys.executable, "-c", _PROCESS, server.url)
        process = await asyncio.create_subprocess_exec(*command, stdout=asyncio.subprocess.DEVNULL)
        await until_there(link, [ONE])
        process.kill()
        await process.wait()
        await until_there(link, [])

    play(server, scene)


def test_lifetimes_are_seconds_and_who_is_gone_is_swept_up(server: RedisServer) -> None:
    async def scene(link: RedisLink) -> None:
        telling = asyncio.create_task(announce(link, lambda: ONE))
        await until_there(link, [ONE])
        for key in ("webpd:host:cdn-1/17", "webpd:hosts"):
            assert 0 < int(server.cli("TTL", key)) <= 20
        server.cli("DEL", "webpd:host:cdn-1/17")
        assert await link.ask(hosts) == []
        assert server.cli("EXISTS", "webpd:hosts") == "0"
        await end(telling)

    play(server, scene)


def test_processes_of_other_versions_do_no_harm(server: RedisServer) -> None:
    async def scene(link: RedisLink) -> None:
        newer = asdict(ONE) | {"colour": "blue"}
        older = {name: value for name, value in asdict(OTHER).items() if name != "roots"}
        for name, text in (("a/1", json.dumps(newer)), ("b/1", json.dumps(older)), ("c/1", "{"), ("d/1", "[]")):
            server.cli("SADD", "webpd:hosts", name)
            server.cli("SET", f"webpd:host:{name}", text)
        assert await link.ask(hosts) == [ONE]

    play(server, scene)
