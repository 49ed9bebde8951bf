"""The servers as they are shipped: who may do what, and what they do when they are full."""

import subprocess
from pathlib import Path

import pytest
import redis

from tests.redis.server import DEPLOY, RedisServer


@pytest.fixture
def client(server: RedisServer) -> redis.Redis:
    return redis.Redis.from_url(server.url, protocol=2)


def test_the_cache_evicts_and_keeps_what_it_has_over_a_restart(server: RedisServer, client: redis.Redis) -> None:
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
    assert client.get("webpd:x") == b"1"
    client.close()


def test_the_queue_does_not_evict(tmp_path: Path) -> None:
    with RedisServer(tmp_path, "queue.conf") as server:
        assert server.cli("CONFIG", "GET", "maxmemory-policy").split() == ["maxmemory-policy", "noeviction"]
        with redis.Redis.from_url(server.url, protocol=2) as client:
            assert client.info("memory")["maxmemory_policy"] == "noeviction"


def test_the_service_may_do_with_its_own_keys_what_it_needs(client: redis.Redis) -> None:
    client.set("webpd:x", "1", ex=60)
    assert client.eval("return redis.call('GET', 'webpd:x')", 0) == b"1"
    client.script_load("return 1")
    client.xadd("webpd:stream", {"a": "b"})
    assert client.publish("webpd:channel", "x") == 0
    assert client.info("memory")["maxmemory_policy"] == "allkeys-lru"
    client.close()


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
        "DEBUG SLEEP 0",
        "MONITOR",
        "SAVE",
        "SHUTDOWN",
        "REPLICAOF NO ONE",
        "MODULE LIST",
    ],
)
def test_the_service_may_do_nothing_else(client: redis.Redis, command: str) -> None:
    with client, pytest.raises(redis.exceptions.NoPermissionError):
        client.execute_command(*command.split())


def test_who_gives_no_password_may_do_nothing(server: RedisServer) -> None:
    host, port = server.address
    with redis.Redis(host, port, protocol=2) as client, pytest.raises(redis.exceptions.AuthenticationError):
        client.ping()


def test_an_acl_file_in_which_no_password_was_set_does_not_let_the_server_start(tmp_path: Path) -> None:
    command = (
        "redis-server",
        DEPLOY / "redis.conf",
        "--port",
        "0",
        "--dir",
        tmp_path,
        "--aclfile",
        DEPLOY / "users.acl",
    )
    done = subprocess.run(list(map(str, command)), capture_output=True, text=True, check=False, timeout=30)
    assert done.returncode != 0
    assert "password hash must be exactly 64 characters" in done.stdout


def test_a_server_without_an_acl_file_does_not_start(tmp_path: Path) -> None:
    command = ("redis-server", DEPLOY / "redis.conf", "--port", "0", "--dir", tmp_path, "--aclfile", tmp_path / "none")
    done = subprocess.run(list(map(str, command)), capture_output=True, text=True, check=False, timeout=30)
    assert done.returncode != 0
