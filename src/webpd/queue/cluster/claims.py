"""One offer a path, however many hosts find it: who hands a job out claims it, and its ending takes the claim's place.

``place:claim:DIGEST`` (string, of path, size and mtime of the source) holds ``?OWNER`` from when the job is handed out,
then ``!OWNER`` and the ending as JSON, for others who found the same: who handed it out is told of it, and has it again
only to be done again. The claims of an owner that has died are void.
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

OWNER_KEPT = 10
_CLAIM_KEPT = 600
_ENDING_KEPT = 300
"""Seconds: how long an owner may be silent before its claims are void, and how long claims and endings are kept."""
_WITHIN = 5.0

# Each key but the first: what is there, or nothing, and then it is ours.
_CLAIM = """
local owner, kept, silent = ARGV[1], ARGV[2], redis.call('TIME')[1] - ARGV[3]
local answers = {}
for i = 2, #KEYS do
    local there = redis.call('GET', KEYS[i]) or ''
    local ended, who = there:match('^([?!])(%x+)')
    local heard = ended == '?' and redis.call('ZSCORE', KEYS[1], who)
    if not ended or who == owner or (ended == '?' and (not heard or tonumber(heard) < silent)) then
        redis.call('SET', KEYS[i], '?' .. owner, 'EX', kept)
        there = ''
    end
    answers[i - 1] = there
end
return answers
"""


class Free(Enum):
    """What is free to be handed out, now that it is claimed."""

    FREE = auto()


FREE = Free.FREE


@dataclass(frozen=True, slots=True)
class Claims:
    """The claims of ``owner`` (hexadecimal digits) on jobs of the root at ``place``."""

    link: RedisLink
    place: str
    owner: str

    async def claim(self, jobs: Sequence[Job]) -> list[Ending | Free | None]:
        """Claim the jobs; tell of each that it is free, how it ended, or None: another host has it in hands.

        Raises ``RedisDownError``.
        """
        keys = [key_of(self.place, job) for job in jobs]

        async def ask(client: Redis) -> Any:
            lasting = _CLAIM_KEPT, OWNER_KEPT
            return await cast("Any", client.eval(_CLAIM, 1 + len(keys), self._owners, *keys, self.owner, *lasting))

        answers = await self.link.ask(ask, within=_WITHIN)
        return [_understood(answer, job) for answer, job in zip(answers, jobs, strict=True)]

    @property
    def _owners(self) -> str:
        return owners_of(self.place)

    async def insist(self, jobs: Sequence[Job]) -> None:
        """Claim jobs that ended before: they are to be done once more. Raises ``RedisDownError``."""
        if not jobs:
            return

        async def ask(client: Redis) -> None:
            pipeline = client.pipeline(transaction=False)
            for job in jobs:
                pipeline.set(key_of(self.place, job), f"?{self.owner}", ex=_CLAIM_KEPT)
            await pipeline.execute()

        await self.link.ask(ask, within=_WITHIN)


async def ended_places(link: RedisLink, place: str, jobs: Sequence[Job]) -> set[int]:
    """Return which of the jobs, by their place among them, have ended since they were handed out.

    Raises ``RedisDownError``.
    """

    async def ask(client: Redis) -> Any:
        return await client.mget([key_of(place, job) for job in jobs])

    answers = await link.ask(ask, within=_WITHIN)
    return {number for number, answer in enumerate(answers) if answer and answer.startswith(b"!")}


@dataclass(slots=True)
class Endings:
    """Endings to be written in place of claims, by key; None where there is nothing to tell."""

    texts: dict[str, str | None] = field(default_factory=dict)

    def note(self, place: str, job: Job, owner: str, ending: Ending | None) -> None:
        text = None if ending is None else f"!{owner} {json.dumps(wire.ending_out(ending), separators=(',', ':'))}"
        self.texts[key_of(place, job)] = text

    def add_to(self, pipeline: Any) -> None:
        for key, text in self.texts.items():
            if text is None:
                pipeline.delete(key)
            else:
                pipeline.set(key, text, ex=_ENDING_KEPT)


def owners_of(place: str) -> str:
    """Return the key of the sorted set of those who find work, by when they last said so: see ``mailbox``."""
    return f"{place}:owners"


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
        return wire.ending_in(json.loads(answer.partition(b" ")[2]), job.path)
    except (TypeError, ValueError):
        return None  # whoever wrote this, it goes in a while
