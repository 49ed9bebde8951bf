"""One offer a path, however many hosts find it: who hands a job out claims it, and its ending takes the claim's place.

``place:claim:DIGEST`` (string, of path, size and mtime of the source) holds ``?`` and the owner while the job is handed
out, then the ending as JSON, for those who found the same.
"""

import hashlib
import json
import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import Enum, auto
from typing import Any, cast

from redis.asyncio import Redis

from webpd.model import Ending, Job
from webpd.queue.cluster import wire
from webpd.redis.link import RedisLink

_CLAIM_KEPT = 60
_ENDING_KEPT = 300
"""Seconds."""
_WITHIN = 5.0

# Each key: what was there, or nothing, and then it is ours. A claim of our own is renewed.
_CLAIM = """
local answers = {}
for i, key in ipairs(KEYS) do
    local there = redis.call('GET', key)
    if not there or there == ARGV[1] then
        redis.call('SET', key, ARGV[1], 'EX', ARGV[2])
        there = ''
    end
    answers[i] = there
end
return answers
"""


class Free(Enum):
    """What is free to be handed out, now that it is claimed."""

    FREE = auto()


FREE = Free.FREE


@dataclass(frozen=True, slots=True)
class Claims:
    """The claims of ``owner`` on jobs of the root at ``place``."""

    link: RedisLink
    place: str
    owner: str

    async def claim(self, jobs: Sequence[Job]) -> list[Ending | Free | None]:
        """Claim the jobs; tell of each that it is free, how it ended, or None: another host has it in hands.

        Raises ``RedisDownError``.
        """
        keys = [key_of(self.place, job) for job in jobs]

        async def ask(client: Redis) -> Any:
            return await cast("Any", client.eval(_CLAIM, len(keys), *keys, f"?{self.owner}", _CLAIM_KEPT))

        answers = await self.link.ask(ask, within=_WITHIN)
        return [_understood(answer, job) for answer, job in zip(answers, jobs, strict=True)]

    async def insist(self, jobs: Sequence[Job]) -> None:
        """Claim jobs that ended before: they are to be done once more. Raises ``RedisDownError``."""
        await self._each(jobs, lambda pipeline, key: pipeline.set(key, f"?{self.owner}", ex=_CLAIM_KEPT))

    async def renew(self, jobs: Sequence[Job]) -> None:
        """Keep what is claimed; to be called every few seconds. Raises ``RedisDownError``."""
        await self._each(jobs, lambda pipeline, key: pipeline.expire(key, _CLAIM_KEPT, gt=True))

    async def _each(self, jobs: Sequence[Job], do: Any) -> None:
        if not jobs:
            return

        async def ask(client: Redis) -> None:
            pipeline = client.pipeline(transaction=False)
            for job in jobs:
                do(pipeline, key_of(self.place, job))
            await pipeline.execute()

        await self.link.ask(ask, within=_WITHIN)


@dataclass(slots=True)
class Endings:
    """Endings to be written in place of claims, by key; None where there is nothing to tell."""

    texts: dict[str, str | None] = field(default_factory=dict)

    def note(self, place: str, job: Job, ending: Ending | None) -> None:
        text = None if ending is None else json.dumps(wire.ending_out(ending), separators=(",", ":"))
        self.texts[key_of(place, job)] = text

    def add_to(self, pipeline: Any) -> None:
        for key, text in self.texts.items():
            if text is None:
                pipeline.delete(key)
            else:
                pipeline.set(key, text, ex=_ENDING_KEPT)


def key_of(place: str, job: Job) -> str:
    digest = hashlib.blake2b(os.fsencode(job.path), digest_size=12)
    digest.update(f"\0{job.size}\0{job.mtime_ns}".encode())
    return f"{place}:claim:{digest.hexdigest()}"


def _understood(answer: bytes, job: Job) -> Ending | Free | None:
    if not answer:
        return FREE
    if answer.startswith(b"?"):
        return None
    try:
        return wire.ending_in(json.loads(answer), job.path)
    except (TypeError, ValueError):
        return None  # whoever wrote this, it goes in a while
