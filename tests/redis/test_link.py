"""The link to a Redis that is missing, killed, emptied, hung, full, closed to us: each with a real server."""

import asyncio
import contextlib
import random
import socket
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.lab import free_port
from tests.redis.linked import Told, answer, becomes, down, linked, ping, play
from tests.redis.server import RedisServer
from webpd.redis import link as link_module
from webpd.redis.link import RedisDownError, RedisLink
from webpd.settings import RedisUrl

PATIENT = 60.0
"""Seconds that a server on a busy machine may take."""


def fill(server: RedisServer, keys: int, size: int) -> None:
    """Write so many new keys, of so many bytes each, as another program would."""
    script = f"""
    for _ = 1, {keys} do
        redis.call('SET', 'other:' .. redis.call('INCR', 'other'), string.rep('x', {size}))
    end
    """
    server.cli("EVAL", script, "0")


def fill_up(file: Path) -> None:
    """Write into the file until its disk is full."""
    with file.open("wb", buffering=0) as opened, contextlib.suppress(OSError):
        while True:
            opened.write(bytes(4096))


def test_a_redis_that_is_not_there_at_the_start_is_found_when_it_comes(tmp_path: Path) -> None:
    server = RedisServer(tmp_path)

    async def scene(link: RedisLink, told: Told) -> None:
        with pytest.raises(RedisDownError, match="was not asked yet"):
            await link.ask(ping)
        await down(link, "refuses connections: start it, or set its address in WEBPD_REDIS_URL")
        await asyncio.to_thread(server.start)
        await link.until_up()
        await answer(link)

    try:
        told = play(server.url, scene)
    finally:
        server.kill()
    assert [state.up for state in told] == [False, True]
    gone, back = told.lines
    assert gone.startswith("warning: redis is down: this host goes on by itself refuses connections: start it")
    assert back == "info: redis answers"


def test_a_killed_redis_is_told_of_once_and_found_again(server: RedisServer) -> None:
    async def scene(link: RedisLink, told: Told) -> None:
        await link.until_up()
        await asyncio.to_thread(server.kill)
        with pytest.raises(RedisDownError):
            await link.ask(ping)
        await down(link, "refuses connections")
        since, errors = link.state.since, link.state.errors
        await becomes(lambda: link.state.errors >= errors + 2)
        assert link.state.since == since
        await asyncio.to_thread(server.start)
        await link.until_up()
        await answer(link)

    told = play(server.url, scene)
    assert [state.up for state in told] == [True, False, True]
    assert len(told.lines) == 3


def test_nothing_need_be_asked_to_learn_that_it_is_gone(server: RedisServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(link_module, "_LOOK_EVERY", 0.1)

    async def scene(link: RedisLink, told: Told) -> None:
        await link.until_up()
        await asyncio.to_thread(server.kill)
        await down(link, "refuses connections")

    play(server.url, scene)


def test_a_redis_restarted_empty_and_one_that_is_flushed_go_on_being_used(server: RedisServer) -> None:
    async def scene(link: RedisLink, told: Told) -> None:
        await link.until_up()
        await link.ask(lambda redis: redis.set("webpd:x", "1"))
        await asyncio.to_thread(server.cli, "FLUSHALL")
        assert await link.ask(lambda redis: redis.get("webpd:x")) is None
        await link.ask(lambda redis: redis.set("webpd:x", "1"))
        await asyncio.to_thread(lambda: server.restart(empty=True))
        await link.until_up()
        assert await link.ask(lambda redis: redis.get("webpd:x")) is None

    play(server.url, scene)


def test_a_paused_redis_holds_nobody_longer_than_said(server: RedisServer, prove: bool) -> None:
    async def scene(link: RedisLink, told: Told) -> None:
        await link.until_up()
        await asyncio.to_thread(server.cli, "CLIENT", "PAUSE", "30000" if prove else "2500")
        with pytest.raises(RedisDownError, match=r"does not answer within 0\.05 s"):
            await link.ask(ping, within=0.05)
        assert link.state.up  # whether it is down, only who waits for a second can tell
        await down(link, "does not answer within 1 s")
        await link.until_up()
        await answer(link)

    told = play(server.url, scene)
    assert [state.up for state in told] == [True, False, True]


def test_a_moment_without_an_answer_does_not_count_as_an_outage(server: RedisServer) -> None:
    async def scene(link: RedisLink, told: Told) -> None:
        await link.until_up()
        server.freeze()
        try:
            with pytest.raises(RedisDownError):
                await link.ask(ping, within=0.02)
        finally:
            server.thaw()
        await answer(link)

    told = play(server.url, scene)
    assert [state.up for state in told] == [True]


def test_an_answer_is_never_given_to_another_question_though_calls_are_cancelled(
    server: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(link_module, "_PATIENCE", PATIENT)
    noise = random.Random(1)

    async def cancelled(link: RedisLink) -> bool:
        asking = asyncio.create_task(answer(link, PATIENT))
        for _ in range(noise.randrange(20)):  # before it has begun, while it asks, while the answer is on its way
            await asyncio.sleep(0)
        asking.cancel()
        await asyncio.wait([asking])
        return asking.cancelled() or asking.result() is not None

    async def scene(link: RedisLink, told: Told) -> None:
        await link.until_up()
        for _ in range(30):
            *ended, _ = await asyncio.gather(
                *(cancelled(link) for _ in range(15)), *(answer(link, PATIENT) for _ in range(5))
            )
            assert any(ended)
        await answer(link)

    told = play(server.url, scene)
    assert [state.up for state in told] == [True]


def test_many_who_ask_at_once_share_few_connections(server: RedisServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(link_module, "_PATIENCE", PATIENT)

    async def scene(link: RedisLink, told: Told) -> None:
        await link.until_up()
        await asyncio.gather(*(answer(link, PATIENT) for _ in range(500)))
        assert int(server.info("clients")["connected_clients"]) <= 8 + 2  # and those that look, and that ask this

    play(server.url, scene)


def test_those_who_wait_long_for_an_answer_keep_nobody_from_seeing_that_it_lives(
    server: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(link_module, "_LOOK_EVERY", 0.1)

    async def scene(link: RedisLink, told: Told) -> None:
        await link.until_up()
        waiting = [
            asyncio.create_task(link.ask(lambda redis: redis.blpop(["webpd:none"], 2), within=10)) for _ in range(30)
        ]
        assert await asyncio.gather(*waiting[:8]) == [None] * 8
        for task in waiting:
            task.cancel()
        await asyncio.gather(*waiting, return_exceptions=True)
        await answer(link)

    told = play(server.url, scene)
    assert [state.up for state in told] == [True]


def test_a_full_redis_that_evicts_goes_on_being_used(server: RedisServer) -> None:
    async def scene(link: RedisLink, told: Told) -> None:
        await link.until_up()
        await asyncio.to_thread(server.cli, "CONFIG", "SET", "maxmemory", "8mb")
        for _ in range(20):
            await asyncio.to_thread(fill, server, 1000, 2000)
            await link.ask(lambda redis: redis.set("webpd:x", "1"))
        assert int(server.info("stats")["evicted_keys"]) > 1000

    told = play(server.url, scene)
    assert [state.up for state in told] == [True]


def test_a_full_redis_that_does_not_evict_is_told_with_what_to_do(server: RedisServer) -> None:
    async def scene(link: RedisLink, told: Told) -> None:
        await link.until_up()
        await asyncio.to_thread(fill, server, 1000, 2000)
        await asyncio.to_thread(server.cli, "CONFIG", "SET", "maxmemory-policy", "noeviction", "maxmemory", "2mb")
        with pytest.raises(RedisDownError, match=r"is full: set a larger maxmemory.*OOM"):
            await link.ask(lambda redis: redis.set("webpd:x", "1"))
        errors = link.state.errors
        await becomes(lambda: link.state.errors > errors)  # it still answers PING, and is still down
        await down(link, "is full")
        await asyncio.to_thread(server.cli, "FLUSHALL")
        await link.until_up()
        await link.ask(lambda redis: redis.set("webpd:x", "1"))

    told = play(server.url, scene)
    assert [state.up for state in told] == [True, False, True]


def test_a_wrong_password_is_told_and_none_is_shown(server: RedisServer) -> None:
    async def scene(link: RedisLink, told: Told) -> None:
        await down(link, "refuses the user or the password: set those")
        with pytest.raises(RedisDownError) as raised:
            await link.ask(ping)
        shown.append(f"{raised.value} {raised.value.__cause__} {told} {told.log.entries}")
        server.allow("an0ther")
        await asyncio.to_thread(server.cli, "ACL", "LOAD")
        await link.until_up()
        with pytest.raises(RedisDownError) as raised:
            await link.ask(lambda redis: redis.flushall())
        shown.append(f"{raised.value} {raised.value.__cause__} {told} {told.log.entries}")

    shown: list[str] = []
    play(server.url_of("webpd", "an0ther"), scene)
    assert all("webpd:***@" in each and "an0ther" not in each for each in shown)


def test_missing_rights_are_told_with_what_to_do(server: RedisServer) -> None:
    async def scene(link: RedisLink, told: Told) -> None:
        await link.until_up()
        await asyncio.to_thread(server.cli, "ACL", "SETUSER", "webpd", "-set")
        with pytest.raises(RedisDownError, match=r"give it the rights that deploy/redis/users.acl has \(NOPERM\)"):
            await link.ask(lambda redis: redis.set("webpd:x", "1"))
        await down(link, "NOPERM")
        await asyncio.to_thread(server.cli, "ACL", "SETUSER", "webpd", "+set")
        await link.until_up()
        with pytest.raises(RedisDownError, match="NOPERM"):
            await link.ask(lambda redis: redis.eval("return redis.call('GET', 'foreign')", 0))

    play(server.url, scene)


def test_a_redis_that_loads_its_data_is_waited_for(server: RedisServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(link_module, "_LOOK_EVERY", 0.1)
    monkeypatch.setattr(link_module, "_LAST_DELAY", 0.5)
    fill(server, 50_000, 10)

    async def scene(link: RedisLink, told: Told) -> None:
        await link.until_up()
        await asyncio.to_thread(server.restart, "--key-load-delay", "20")  # microseconds
        await down(link, "is loading its data")
        await asyncio.to_thread(server.cli, "CONFIG", "SET", "key-load-delay", "0")
        await link.until_up()
        await answer(link)

    play(server.url, scene)


def test_a_redis_without_room_on_its_disk_is_told_with_what_to_do(tmpfs: Callable[[str], Path], tmp_path: Path) -> None:
    folder = tmpfs("size=8m")

    async def scene(link: RedisLink, told: Told) -> None:
        await link.until_up()
        fill_up(folder / "filler")
        while link.state.up:
            await asyncio.gather(link.ask(lambda redis: redis.set("webpd:x", "x" * 5000)), return_exceptions=True)
        await down(link, "can't write to its disk, and takes no writes until it can: make room there")
        (folder / "filler").unlink()
        await link.until_up()
        await answer(link)

    with RedisServer(folder / "redis") as server:
        play(server.url, scene)


def test_a_replica_is_told_with_what_to_do(server: RedisServer) -> None:
    async def scene(link: RedisLink, told: Told) -> None:
        await link.until_up()
        await asyncio.to_thread(server.cli, "REPLICAOF", "127.0.0.1", str(free_port()))
        with pytest.raises(RedisDownError, match="is a replica and takes no writes: name the primary"):
            await link.ask(lambda redis: redis.set("webpd:x", "1"))
        await asyncio.to_thread(server.cli, "REPLICAOF", "NO", "ONE")
        await link.until_up()

    play(server.url, scene)


def test_a_key_of_ours_that_is_somebody_elses_is_told(server: RedisServer) -> None:
    server.cli("SET", "webpd:hash", "not a hash")

    async def scene(link: RedisLink, told: Told) -> None:
        await link.until_up()
        with pytest.raises(RedisDownError, match=r"let no other program write keys that begin with webpd: \(WRONGTYPE"):
            await link.ask(lambda redis: redis.hgetall("webpd:hash"))

    play(server.url, scene)


@pytest.mark.parametrize(
    ("url", "detail"),
    [
        ("redis://no-such-host.invalid:6379/0", "can't be found: its name is not known; set its address in"),
        ("unix:///nowhere/redis.sock", "is not there: start it, or set its socket in WEBPD_REDIS_URL"),
    ],
)
def test_an_address_at_which_there_is_none_is_told(url: str, detail: str) -> None:
    async def scene(link: RedisLink, told: Told) -> None:
        await down(link, detail)

    play(RedisUrl(url), scene)


def test_what_is_no_redis_is_told() -> None:
    async def greet(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"220 mail.example.org ESMTP\r\n")
        await writer.drain()
        writer.close()

    async def play() -> None:
        async with await asyncio.start_server(greet, "127.0.0.1", 0) as listening:
            port = listening.sockets[0].getsockname()[1]
            async with linked(RedisUrl(f"redis://127.0.0.1:{port}/0")) as (link, told):
                await becomes(lambda: told)
                assert "does not answer as Redis does: set its address in WEBPD_REDIS_URL" in link.state.detail

    asyncio.run(asyncio.wait_for(play(), 60))


def test_a_right_that_is_missing_is_seen_at_once_and_not_only_when_it_is_needed(server: RedisServer) -> None:
    async def scene(link: RedisLink, told: Told) -> None:
        await link.until_up()
        server.cli("ACL", "SETUSER", "webpd", "-eval")
        await down(link, "does not let this user do what webpd needs")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(link_module, "_LOOK_EVERY", 0.1)
        told = play(server.url, scene)
    assert [state.up for state in told] == [True, False]


def test_a_name_server_that_hangs_holds_up_nobody_and_takes_one_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    asked, answers = 0, threading.Event()

    def hang(*_: object, **__: object) -> None:
        nonlocal asked
        asked += 1
        answers.wait(60)
        raise socket.gaierror

    monkeypatch.setattr(socket, "getaddrinfo", hang)
    monkeypatch.setattr(link_module, "_PATIENCE", 0.05)
    monkeypatch.setattr(link_module, "_FIRST_DELAY", 0.05)

    async def scene(link: RedisLink, told: Told) -> None:
        await becomes(lambda: link.state.errors > 3)
        assert await asyncio.to_thread(lambda: "another thread of the loop is free")
        assert asked == 1
        answers.set()
        await becomes(lambda: "can't be found" in link.state.detail)

    play(RedisUrl("redis://redis.example:6379/0"), scene)
