"""The Redis servers: whether they answer, let us do what we need and no more, and are set up for their use."""

import asyncio
import contextlib
import shlex
from collections.abc import Awaitable, Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import unquote, urlsplit

from redis.asyncio import Redis
from redis.exceptions import NoPermissionError, RedisError, ResponseError

from webpd.doctor.finding import Finding, Topic
from webpd.errors import UsageError
from webpd.redis import PREFIX
from webpd.redis.faults import explain
from webpd.redis.link import open_client
from webpd.settings import RedisUrl, Settings

_PATIENCE = 2.0  # seconds
_OLDEST = (6, 2)
"""XAUTOCLAIM, which docket needs, came with Redis 6.2."""
_PROBE = f"{PREFIX}probe:doctor"
_KEPT = 10  # seconds


@dataclass(frozen=True, slots=True)
class _Use:
    """What a server is used for: the variable, the file that it should have been started with, its policy and size."""

    variable: str
    file: str
    evicts: bool
    policy: str
    memory: str


_CACHE = _Use("WEBPD_REDIS_URL", "deploy/redis/redis.conf", evicts=True, policy="allkeys-lru", memory="512mb")
_QUEUE = _Use("WEBPD_QUEUE_URL", "deploy/redis/queue.conf", evicts=False, policy="noeviction", memory="256mb")


def look(settings: Settings) -> Iterator[Finding]:
    """Look at each server that is configured."""
    for url, use in ((settings.redis_url, _CACHE), (settings.queue_url, _QUEUE)):
        if url is not None:
            yield from asyncio.run(_look(url, use))
    if settings.role != "all" and settings.queue_url is None:
        yield Topic("Redis").fault(
            "redis.queue",
            f"WEBPD_ROLE={settings.role}, but no Redis carries the queue",
            "`WEBPD_QUEUE_URL=redis://webpd:PASSWORD@HOST:6380/0` (docs/redis.md), or `WEBPD_ROLE=all`",
        )


async def _look(url: RedisUrl, use: _Use) -> list[Finding]:
    topic = Topic(f"Redis {url.public}")
    try:
        client = open_client(url, use.variable)
    except UsageError as error:
        return [topic.fault("redis.answers", str(error), f"correct {use.variable}; docs/redis.md has examples")]
    try:
        async with asyncio.timeout(_PATIENCE):
            info: Mapping[str, Any] = await client.info("all")
        async with asyncio.timeout(_PATIENCE):
            await client.set(f"{PREFIX}probe", b"", ex=_KEPT)
            may_too_much = await _may_too_much(client)
            lacks = "" if use.evicts else await _lacks(client)
    except (RedisError, OSError) as error:
        what, _, cure = explain(error, _PATIENCE, use.variable).partition(": ")
        return [topic.fault("redis.answers", f"Redis {what}", f"{cure or 'see its log'}; {_by_hand(url)} tries it")]
    finally:
        with contextlib.suppress(RedisError, OSError):
            await client.connection_pool.aclose()
    return [
        topic.ok("redis.answers", "answers, and takes writes"),
        _version(topic, str(info.get("redis_version", "0"))),
        _policy(topic, use, _cli(url), str(info.get("maxmemory_policy"))),
        _memory(topic, use, _cli(url), int(info.get("maxmemory", 0))),
        _persistence(topic, use, _cli(url), info),
        _rights(topic, lacks, _cli(url), too_many=may_too_much),
    ]


def _by_hand(url: RedisUrl) -> str:
    name = urlsplit(url).username
    user = f" --user {name} --askpass" if name else ""
    return f"`{_cli(url)}{user} ping`"


def _cli(url: RedisUrl) -> str:
    """Return the command that talks to this server and no other, as no user yet."""
    parts = urlsplit(url)
    if parts.scheme == "unix":
        return f"redis-cli -s {shlex.quote(unquote(parts.path))}"
    sealed = " --tls" if parts.scheme == "rediss" else ""
    return f"redis-cli -h {parts.hostname} -p {parts.port or 6379}{sealed}"


async def _may_too_much(client: Redis) -> bool:
    try:
        await client.config_get("maxmemory")
    except ResponseError:  # not permitted, or taken away by who hosts it
        return False
    return True


async def _lacks(client: Redis) -> str:
    """Return which of the commands that the queue needs is refused, "" if none is."""
    tries: list[tuple[str, Callable[[], Awaitable[Any]]]] = [
        ("XGROUP", lambda: client.xgroup_create(_PROBE, "doctor", mkstream=True)),
        ("EXPIRE", lambda: client.expire(_PROBE, _KEPT)),
        ("XADD", lambda: client.xadd(_PROBE, {"try": "1"})),
        ("EVAL", lambda: client.eval("return redis.call('XLEN', KEYS[1])", 1, _PROBE)),
        ("PUBLISH", lambda: client.publish(_PROBE, "")),
    ]
    try:
        for name, attempt in tries:
            try:
                await attempt()
            except NoPermissionError:
                return name
    finally:
        with contextlib.suppress(NoPermissionError):
            await client.delete(_PROBE)
    return ""


def _version(topic: Topic, version: str) -> Finding:
    if tuple(int(part) for part in version.split(".")[:2] if part.isdecimal()) >= _OLDEST:
        return topic.ok("redis.version", f"version {version}")
    oldest = ".".join(map(str, _OLDEST))
    return topic.fault(
        "redis.version", f"version {version} is older than {oldest}", "`apt install redis-server` of Debian 12 or later"
    )


def _policy(topic: Topic, use: _Use, cli: str, policy: str) -> Finding:
    if (policy != "noeviction") == use.evicts:
        return topic.ok("redis.policy", f"maxmemory-policy {policy}")
    cure = (
        f"as its administrator `{cli} CONFIG SET maxmemory-policy {use.policy}`, and the same in its configuration "
        f"({use.file})"
    )
    if use.evicts:
        return topic.warning(
            "redis.policy", f"maxmemory-policy {policy}: once it is full, it takes no writes, and is of no use", cure
        )
    return topic.fault(
        "redis.policy",
        f"maxmemory-policy {policy}: what is queued may be evicted, and the roles watch and work refuse to start",
        cure,
    )


def _memory(topic: Topic, use: _Use, cli: str, most: int) -> Finding:
    if most:
        return topic.ok("redis.maxmemory", f"maxmemory {most >> 20:,} MiB")
    return topic.warning(
        "redis.maxmemory",
        "maxmemory is not set: it may take all memory of its host",
        f"as its administrator `{cli} CONFIG SET maxmemory {use.memory}`, and the same in its configuration "
        f"({use.file})",
    )


def _persistence(topic: Topic, use: _Use, cli: str, info: Mapping[str, Any]) -> Finding:
    if "err" in {info.get("aof_last_write_status"), info.get("aof_last_bgrewrite_status")}:
        return topic.fault(
            "redis.persistence", "it can't write to its disk", "make room: `df -h /var/lib/redis`; its log tells more"
        )
    if int(info.get("aof_enabled", 0)):
        return topic.ok("redis.persistence", "keeps what it has over a restart (appendonly)")
    lost = "the statistics of all hosts" if use.evicts else "what is handed out"
    return topic.warning(
        "redis.persistence",
        f"appendonly is off: a restart forgets {lost}",
        f"as its administrator `{cli} CONFIG SET appendonly yes`, and the same in its configuration ({use.file})",
    )


def _rights(topic: Topic, lacks: str, cli: str, *, too_many: bool) -> Finding:
    if lacks:
        return topic.fault(
            "redis.rights",
            f"this user may not use {lacks}",
            f"give it the rights that deploy/redis/users.acl has, then as its administrator `{cli} ACL LOAD`",
        )
    if too_many:
        return topic.warning(
            "redis.rights",
            "this user may change the server's configuration: who learns the password has the server",
            f"make it a user of its own as in deploy/redis/users.acl, then as its administrator `{cli} ACL LOAD`",
        )
    return topic.ok("redis.rights", "its user may do what is needed, and no more")
