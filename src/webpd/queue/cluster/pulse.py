"""How the parts of a queue go on while Redis comes and goes."""

import asyncio
from collections.abc import Awaitable, Callable

import structlog
from redis.asyncio import Redis

from webpd.errors import UnfitError
from webpd.redis.link import RedisDownError, RedisLink
from webpd.settings import RedisUrl

VARIABLE = "WEBPD_QUEUE_URL"
_REST = 1.0

_log = structlog.get_logger(__name__)


class Pulse:
    """Runs steps again and again while the Redis at ``url`` answers, and is fit: it must not evict."""

    def __init__(self, url: RedisUrl) -> None:
        self.link = RedisLink(url, variable=VARIABLE, meanwhile="no work comes or goes until it answers")
        self._url = url
        self._fit = asyncio.Event()

    async def inspect(self) -> None:
        """Raises ``UnfitError``: what is offered may be evicted; ``RedisDownError``."""

        async def ask(client: Redis) -> str:
            return str((await client.info("memory")).get("maxmemory_policy"))

        if (policy := await self.link.ask(ask, within=5.0)) != "noeviction":
            raise UnfitError(
                f"the Redis of {VARIABLE} ({self._url.public}) may evict what is queued (maxmemory-policy {policy}): "
                "set maxmemory-policy noeviction, as deploy/redis/queue.conf does, or name a server that has it"
            )
        self._fit.set()

    async def keep(self, step: Callable[[], Awaitable[None]], *, unfit: bool = False) -> None:
        """Do the step again and again, until cancelled or ``UnfitError``; ``unfit``: even if Redis may not be fit."""
        while True:
            await self.link.until_up()
            if not unfit:
                await self._fit.wait()
            try:
                await step()
            except RedisDownError:
                continue
            except UnfitError:
                raise
            except Exception:  # a fault of ours must not end the queue
                _log.exception("unexpected error, please report it")
                await asyncio.sleep(_REST)
