"""The servers as they are shipped: who may do what, and what they do when they are full."""

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from redis.backoff import NoBackoff
from redis.client import Redis
from redis.exceptions import AuthenticationError, NoPermissionError
from redis.retry import Retry

from tests.lab import free_port, wait_for
from tests.redis.server import DEPLOY, RedisServer

ONCE = Retry(NoBackoff(), 0)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    with RedisServer(tmp_path_factory.mktemp("redis")) as running:
        yield running


@pytest.fixture
def client(server: RedisServer) -> Iterator[Redis]:
    with Redis.from_url(server.url, protocol=2) as connected:
        yield connected


def test_the_cache_evicts_and_keeps_what_it_has_over_a_restart(server: RedisServer, client: Redis) -> None:
    settings = ("maxmemory", "maxmemory-policy", "appendonly", "appendfsync", "protected-mode", "bind", "save")
    told = server.cli("CONFIG", "GET", *settings).splitlines()
    assert dict(zip(told[::2], told[1::2], strict=True)) == {
        "maxmemory": str(512 << 20),
        "maxmemory-policy": "allkeys-lru",
        "appendonly": "yes",
        "appendfsync": "everysec",
        "protected-mode": "yes",
        "bind": "127.0.0.1 -::1",
        "save": "",
    }
    client.set("webpd:x", "1")
    server.restart()
    wait_for(server.loaded, "its data is there")
    assert client.get("webpd:x") == b"1"


def test_what_was_written_in_one_step_is_there_after_a_restart(server: RedisServer, client: Redis) -> None:
    with client.pipeline(transaction=True) as pipeline:
        pipeline.set("webpd:one", "1")
        pipeline.set("webpd:other", "2")
        pipeline.execute()
    client.eval("redis.call('SET', KEYS[1], 3) redis.call('SET', KEYS[2], 4)", 2, "webpd:third", "webpd:fourth")
    server.restart()
    wait_for(server.loaded, "its data is there")
    assert client.mget("webpd:one", "webpd:other", "webpd:third", "webpd:fourth") == [b"1", b"2", b"3", b"4"]
    assert "CRITICAL" not in server.log


def test_the_queue_does_not_evict(tmp_path: Path) -> None:
    with RedisServer(tmp_path, "queue.conf") as server:
        assert server.cli("CONFIG", "GET", "maxmemory-policy").split() == ["maxmemory-policy", "noeviction"]
        with Redis.from_url(server.url, protocol=2) as client:
            assert client.info("memory")["maxmemory_policy"] == "noeviction"


def test_the_service_may_do_with_its_own_keys_what_it_needs(client: Redis) -> None:
    client.set("webpd:x", "1", ex=60)
    assert client.eval("return redis.call('GET', 'webpd:x')", 0) == b"1"
    client.script_load("return 1")
    client.xadd("webpd:stream", {"a": "b"})
    assert client.publish("webpd:channel", "x") == 0
    assert client.info("memory")["maxmemory_policy"] == "allkeys-lru"


@pytest.mark.parametrize(
    "command",
    [
        "GET foreign",
        "SET foreign 1",
        "PUBLISH foreign x",
        "FLUSHALL",
        "FLUSHDB",
        "KEYS webpd:*",
        "CONFIG GET maxmemory",
        "CONFIG SET maxmemory 1",
        "CLIENT KILL TYPE normal",
        "CLIENT PAUSE 1",
        "ACL LIST",
        "MONITOR",
        "SAVE",
        "SHUTDOWN",
        "REPLICAOF NO ONE",
        "MODULE LIST",
    ],
)
def test_the_service_may_do_nothing_else(client: Redis, command: str) -> None:
    with pytest.raises(NoPermissionError):
        client.execute_command(*command.split())  # type: ignore[no-untyped-call]


def test_who_gives_no_password_may_do_nothing(server: RedisServer) -> None:
    host, port = server.address
    with Redis(host, port, protocol=2, retry=ONCE) as client, pytest.raises(AuthenticationError):
        client.ping()


def start(folder: Path, users: Path) -> "subprocess.CompletedProcess[str]":
    """Start the cache with this ACL file, and return how it ended."""
    places = ("--port", str(free_port()), "--dir", str(folder), "--aclfile", str(users))
    command = ("redis-server", str(DEPLOY / "redis.conf"), *places)
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=30)


def test_as_long_as_no_password_is_in_the_acl_file_the_server_does_not_start(tmp_path: Path) -> None:
    ended = start(tmp_path, DEPLOY / "users.acl")
    assert ended.returncode != 0
    assert "password hash must be exactly 64 characters" in ended.stdout


def test_without_an_acl_file_the_server_does_not_start(tmp_path: Path) -> None:
    ended = start(tmp_path, tmp_path / "users.acl")
    assert ended.returncode != 0
    assert "users.acl" in ended.stdout
