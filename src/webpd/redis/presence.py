"""Who is there: each process tells of itself under a key that soon ends, so that who died is gone by itself."""

import asyncio
import contextlib
import json
import os
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any, NoReturn

from redis.asyncio import Redis

from webpd.redis import PREFIX
from webpd.redis.link import RedisDownError, RedisLink

_HOST = f"{PREFIX}host:".encode()
_HOSTS = f"{PREFIX}hosts"
_EVERY = 5.0
_KEPT = 20
"""Seconds for which a process counts as there after it told of itself: three times may go wrong."""


@dataclass(frozen=True, slots=True)
class Presence:
    """One process of ``webpd run``.

    ``fingerprint`` (hexadecimal) stands for the settings and the version, ``started`` is Unix time in seconds,
    ``queue`` counts what waits by lane, ``roots`` tells of each root (an absolute path) how its mount is.
    """

    host: str
    pid: int
    role: str
    version: str
    fingerprint: str
    started: float
    queue: Mapping[str, int]
    in_flight: int
    images_per_second: float
    roots: Mapping[str, str]

    @property
    def name(self) -> bytes:
        return os.fsencode(f"{self.host}/{self.pid}")


async def announce(link: RedisLink, look: Callable[[], Presence]) -> NoReturn:
    """Tell every few seconds what ``look`` returns, until cancelled; then tell that it is gone."""
    try:
        while True:
            with contextlib.suppress(RedisDownError):  # the link says so
                await link.ask(_telling(look()))
            await asyncio.sleep(_EVERY)
    finally:
        name = look().name
        with contextlib.suppress(RedisDownError):
            await link.ask(lambda redis: redis.delete(_HOST + name))


async def hosts(redis: Redis) -> list[Presence]:
    """Return who is there, by host and process. Raises what redis-py raises."""
    names: list[Any] = list(await redis.smembers(_HOSTS))
    if not names:
        return []
    told: list[Any] = await redis.mget([_HOST + name for name in names])
    if gone := [name for name, text in zip(names, told, strict=True) if text is None]:
        await redis.srem(_HOSTS, *gone)
    found = [one for one in map(_read, filter(None, told)) if one is not None]
    return sorted(found, key=lambda one: (one.host, one.pid))


def _telling(presence: Presence) -> Callable[[Redis], Awaitable[object]]:
    text = json.dumps(asdict(presence))  # escapes what is not ASCII, so what is not UTF-8 passes as well

    async def tell(redis: Redis) -> None:
        async with redis.pipeline() as pipe:
            pipe.set(_HOST + presence.name, text, ex=_KEPT)
            pipe.sadd(_HOSTS, presence.name)
            pipe.expire(_HOSTS, _KEPT)
            await pipe.execute()

    return tell


def _read(text: bytes) -> Presence | None:
    """Return what a process told; None where that is of a version with other facts."""
    try:
        told = json.loads(text)
        return Presence(**{field.name: told[field.name] for field in fields(Presence)})
    except (KeyError, TypeError, ValueError):
        return None
