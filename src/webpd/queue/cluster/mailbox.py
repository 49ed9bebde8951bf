"""What the hosts tell one another through Redis, beside the batches. All that is kept there has a lifetime.

For the root at ``place``: ``place:owners`` (sorted set) has those who find work, by the second of Redis's clock when
they last said so. ``webpd:q:post:OWNER`` (list) has the letters to one of them. Whoever does work writes to all of them
how much room it has, and to the owner of each job what became of it.
"""

from collections.abc import Mapping, Sequence
from typing import Any, cast

from redis.asyncio import Redis

from webpd.queue.cluster.claims import OWNER_KEPT, Endings, owners_of
from webpd.redis import PREFIX
from webpd.redis.link import RedisLink

_POST = f"{PREFIX}q:post:"
_POST_KEPT = 600
"""Seconds for which letters are kept that nobody reads; nobody writes to an owner that has been silent for a while."""
_AT_ONCE = 100
_BLOCK = 1.0
WITHIN = 5.0
"""Seconds that Redis gets for one call."""

_REGISTER = """
redis.call('ZADD', KEYS[1], redis.call('TIME')[1], ARGV[1])
redis.call('EXPIRE', KEYS[1], ARGV[2])
"""

_TELL = """
local post, word, kept, alive, counted = ARGV[1], ARGV[2], ARGV[3], ARGV[4], tonumber(ARGV[5])
local told = {}
local function write(owner, letter)
    redis.call('RPUSH', post .. owner, letter)
    redis.call('EXPIRE', post .. owner, kept)
    told[owner] = true
end
for i = 6, 5 + 2 * counted, 2 do
    write(ARGV[i], ARGV[i + 1])
end
redis.call('ZREMRANGEBYSCORE', KEYS[1], '-inf', redis.call('TIME')[1] - alive)
for _, owner in ipairs(redis.call('ZRANGE', KEYS[1], 0, -1)) do
    if not told[owner] then
        write(owner, word)
    end
end
return next(told) and 1 or 0
"""


async def register(link: RedisLink, places: Sequence[str], owner: str) -> None:
    """Say that this owner finds work in these roots; to be said again every few seconds. Raises ``RedisDownError``."""

    async def say(client: Redis) -> None:
        pipeline = client.pipeline(transaction=False)
        for place in places:
            pipeline.eval(_REGISTER, 1, owners_of(place), owner, 10 * OWNER_KEPT)
        await pipeline.execute()

    await link.ask(say, within=WITHIN)


async def tell(link: RedisLink, place: str, word: str, letters: Mapping[str, str], endings: Endings) -> bool:
    """Write each owner of ``letters`` its letter, and ``word`` to those who get none; record the endings.

    Tell whether there was anybody. Raises ``RedisDownError``; then it may have been done or not.
    """
    pairs = [text for pair in letters.items() for text in pair]

    async def say(client: Redis) -> bool:
        pipeline = client.pipeline(transaction=False)
        endings.add_to(pipeline)
        pipeline.eval(
            _TELL, 1, owners_of(place), _POST, word, _POST_KEPT, OWNER_KEPT, len(letters), *cast("Any", pairs)
        )
        return bool((await pipeline.execute())[-1])

    return await link.ask(say, within=WITHIN)


async def receive(link: RedisLink, owner: str) -> list[bytes]:
    """Return the letters that have come for this owner, in their order; none after about a second without any.

    Raises ``RedisDownError``: some may be lost.
    """

    async def pop(client: Redis) -> Any:
        return await client.blmpop(_BLOCK, 1, _POST + owner, direction="LEFT", count=_AT_ONCE)

    popped = await link.ask(pop, within=_BLOCK + WITHIN)
    return list(popped[1]) if popped else []
