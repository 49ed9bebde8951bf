"""The history's keys in Redis, as docs/redis.md lists them: how they are written and read.

Any key may vanish at any time. What belongs together is written in one script or transaction; what is left of something
that vanished is passed over, and swept up by who finds it. All functions raise what redis-py raises.
"""

import itertools
import math
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import fields
from typing import Any

from redis.asyncio import Redis

from webpd.ledger.history import KEPT, SECONDS, Event, Step, Total, spans, sums
from webpd.ledger.schema import from_blob, to_blob
from webpd.model import Result
from webpd.redis import PREFIX

Forgotten = tuple[str, str]
"""Root and path of an original that is gone, or of a directory."""

IMAGE_KEPT = 28 * 86_400
"""For how many seconds it is told what happened to an image, and which failed."""

MOST_FAILED = 200_000
"""Of more failures than that, the new ones are not listed."""

_IMAGE = f"{PREFIX}image:"
_GONE = f"{PREFIX}gone:"
_FAILED = f"{PREFIX}failed"

_FACTS = tuple(field.name for field in fields(Event) if field.name not in {"root", "path"})
_SUMS = tuple(field.name for field in fields(Total))

# Pieces of scripts: the names of all facts, and with the values that follow a name in ARGV; where two of these are.
_NAMES = ", ".join(f"'{name}'" for name in _FACTS)
_VALUES = ", ".join(f"'{name}', ARGV[i + {n}]" for n, name in enumerate(_FACTS, 1))
_AT, _RESULT = _FACTS.index("at") + 1, _FACTS.index("result") + 1

# Redis' own clock, in microseconds.
_NOW = "local time = redis.call('TIME'); local now = string.format('%d%06d', time[1], time[2])"

# ARGV: of each event its root and path, and its facts.
_NOTE = f"""
{_NOW}
local room = {MOST_FAILED} - redis.call('ZCARD', '{_FAILED}')
for i = 1, #ARGV, {len(_FACTS) + 1} do
    local image, key = ARGV[i], '{_IMAGE}' .. ARGV[i]
    local before = redis.call('HGET', key, 'at')
    if not before or tonumber(before) <= tonumber(ARGV[i + {_AT}]) then
        redis.call('HSET', key, 'noted', now, {_VALUES})
        redis.call('EXPIRE', key, {IMAGE_KEPT})
        if ARGV[i + {_RESULT}] ~= '{Result.FAILED}' then
            room = room + redis.call('ZREM', '{_FAILED}', image)
        elseif room > 0 then
            room = room - redis.call('ZADD', '{_FAILED}', 0, image)
            redis.call('EXPIRE', '{_FAILED}', {IMAGE_KEPT})
        end
    end
end
"""

# ARGV: root and path, and the first and last of what may lie below. A path that is no image may be a directory: what is
# below it can't be found without looking through all keys, so it is noted that all before now is void.
_FORGET = f"""
local failed = redis.call('ZRANGEBYLEX', '{_FAILED}', ARGV[2], ARGV[3])
for _, image in ipairs(failed) do
    redis.call('DEL', '{_IMAGE}' .. image)
end
redis.call('ZREMRANGEBYLEX', '{_FAILED}', ARGV[2], ARGV[3])
redis.call('ZREM', '{_FAILED}', ARGV[1])
if redis.call('DEL', '{_IMAGE}' .. ARGV[1]) == 0 then
    {_NOW}
    redis.call('SET', '{_GONE}' .. ARGV[1], now, 'EX', {IMAGE_KEPT})
end
"""

# ARGV: the first and the last of those that are asked for, and how many.
_FAILURES = f"""
local found, first, limit = {{}}, ARGV[1], tonumber(ARGV[3])
while #found < limit do
    local failed = redis.call('ZRANGEBYLEX', '{_FAILED}', first, ARGV[2], 'LIMIT', 0, limit - #found)
    if #failed == 0 then break end
    for _, image in ipairs(failed) do
        local facts = redis.call('HMGET', '{_IMAGE}' .. image, {_NAMES})
        if facts[{_RESULT}] == '{Result.FAILED}' then
            table.insert(found, {{image, facts}})
        else
            redis.call('ZREM', '{_FAILED}', image)
        end
    end
    first = '(' .. failed[#failed]
end
return found
"""

_REASONS = f"""
local counts, first = {{}}, '-'
while true do
    local failed = redis.call('ZRANGEBYLEX', '{_FAILED}', first, '+', 'LIMIT', 0, 1000)
    if #failed == 0 then break end
    for _, image in ipairs(failed) do
        local reason = redis.call('HGET', '{_IMAGE}' .. image, 'reason')
        if reason then
            counts[reason] = (counts[reason] or 0) + 1
        end
    end
    first = '(' .. failed[#failed]
end
local found = {{}}
for reason, count in pairs(counts) do
    table.insert(found, {{reason, count}})
end
return found
"""

# ARGV: the beginning of the keys, the first beginning, that at which to end, and the length of a step.
_SERIES = """
local found = {}
for start = tonumber(ARGV[2]), ARGV[3] - 1, tonumber(ARGV[4]) do
    local sums = redis.call('HGETALL', ARGV[1] .. string.format('%d', start))
    if #sums > 0 then
        table.insert(found, {start, sums})
    end
end
return found
"""


async def write(redis: Redis, told: Sequence[Event | Forgotten]) -> None:
    """Note and forget, in that order, in one transaction."""
    async with redis.pipeline() as pipe:
        for noted, those in itertools.groupby(told, lambda one: isinstance(one, Event)):
            if noted:
                _note(pipe, [one for one in those if isinstance(one, Event)])
            else:
                for root, path in (one for one in those if not isinstance(one, Event)):
                    pipe.eval(_FORGET, 0, _name(root, path), *_below(root, path))
        await pipe.execute()


async def read_image(redis: Redis, root: str, path: str) -> Event | None:
    """Return what happened last to the image."""
    above = itertools.accumulate(path.split("/"), lambda folder, name: f"{folder}/{name}")
    async with redis.pipeline(transaction=False) as pipe:
        pipe.hmget(_IMAGE.encode() + _name(root, path), "noted", *_FACTS)
        pipe.mget([_GONE.encode() + _name(root, folder) for folder in ("", *above)])
        (noted, *facts), gone = await pipe.execute()
    if noted is None or any(int(noted) <= int(at) for at in gone if at is not None):
        return None
    return _event(_name(root, path), facts)


async def read_failures(redis: Redis, root: str | None, after: tuple[str, str] | None, limit: int) -> list[Event]:
    """Return up to ``limit`` failures in the order of their names, of the root or of all."""
    first, last = (b"-", b"+") if root is None else _below(root, "")
    if after is not None and _name(*after) >= first[1:]:
        first = b"(" + _name(*after)
    return [_event(name, facts) for name, facts in await redis.eval(_FAILURES, 0, first, last, limit)]


async def read_reasons(redis: Redis) -> dict[str, int]:
    """Return how many images failed, by reason."""
    return {reason.decode(): count for reason, count in await redis.eval(_REASONS, 0)}


async def read_series(
    redis: Redis, since: float, until: float, step: Step, now: float
) -> list[tuple[int, Result, Total]]:
    """Return the sums of each step that began in that time, of those still kept ``now`` (Unix times, seconds)."""
    length = SECONDS[step]
    first = math.ceil(max(since, now - KEPT[step] - SECONDS["day"]) / length) * length
    found = []
    for start, told in await redis.eval(_SERIES, 0, f"{PREFIX}{step}:", first, math.ceil(until), length):
        found += [(start, result, total) for result, total in _totals(told).items()]
    return found


async def read_totals(redis: Redis, since: float, until: float, now: float) -> dict[Result, Total]:
    """Return the sums over that time, as far as steps are still kept ``now``."""
    found: dict[Result, Total] = {}
    nothing = Total(0, 0, 0, 0.0)
    for step, first, end in spans(since, until):
        for _, result, total in await read_series(redis, first, end, step, now):
            so_far = found.get(result, nothing)
            found[result] = Total(*(getattr(so_far, name) + getattr(total, name) for name in _SUMS))
    return found


def _note(pipe: Any, events: Sequence[Event]) -> None:
    pipe.eval(_NOTE, 0, *itertools.chain.from_iterable(map(_arguments, events)))
    for (step, start, result), total in sums(events).items():
        key = f"{PREFIX}{step}:{start}"
        for name in _SUMS:
            add = pipe.hincrbyfloat if name == "seconds" else pipe.hincrby
            add(key, f"{result}:{name}", getattr(total, name))
        pipe.expireat(key, start + KEPT[step] + SECONDS["day"])


def _name(root: str, path: str) -> bytes:
    """Return what stands for an image or a directory. Its bytes sort as root and path do: no name has a NUL."""
    return os.fsencode(root) + b"\0" + os.fsencode(path)


def _below(root: str, path: str) -> tuple[bytes, bytes]:
    """Return the first and the last name below the directory, as ZRANGEBYLEX takes them ("/" comes before "0")."""
    if path == "":
        return b"[" + os.fsencode(root) + b"\0", b"(" + os.fsencode(root) + b"\1"
    return b"[" + _name(root, path) + b"/", b"(" + _name(root, path) + b"0"


def _arguments(event: Event) -> Iterable[bytes | str | int | float]:
    return (
        _name(event.root, event.path),
        event.size,
        event.mtime_ns,
        event.width,
        event.height,
        event.format,
        event.result.value,
        event.reason,
        to_blob(event.detail),
        event.webp_bytes,
        event.seconds,
        event.fingerprint,
        event.at,
        os.fsencode(event.host),
    )


def _event(name: bytes, facts: Sequence[bytes]) -> Event:
    root, _, path = name.partition(b"\0")
    size, mtime_ns, width, height, format_, result, reason, detail, webp_bytes, seconds, fingerprint, at, host = facts
    return Event(
        root=os.fsdecode(root),
        path=os.fsdecode(path),
        size=int(size),
        mtime_ns=int(mtime_ns),
        width=int(width),
        height=int(height),
        format=format_.decode(),
        result=Result(result.decode()),
        reason=reason.decode(),
        detail=from_blob(detail),
        webp_bytes=int(webp_bytes),
        seconds=float(seconds),
        fingerprint=fingerprint,
        at=float(at),
        host=os.fsdecode(host),
    )


def _totals(told: Sequence[bytes]) -> Mapping[Result, Total]:
    """Return what the fields and values of one step say, in the order of results."""
    values = {name.decode(): value for name, value in zip(told[::2], told[1::2], strict=True)}
    found = {}
    for result in sorted({Result(name.partition(":")[0]) for name in values}):
        images, source_bytes, webp_bytes, seconds = (values.get(f"{result}:{name}", b"0") for name in _SUMS)
        found[result] = Total(int(images), int(source_bytes), int(webp_bytes), float(seconds))
    return found
