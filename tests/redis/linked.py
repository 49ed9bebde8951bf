"""A link that runs, and what it told."""

import asyncio
import contextlib
import random
import re
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from typing import Any

import pytest
import structlog
from redis.asyncio import Redis

from webpd.redis import link as link_module
from webpd.redis.link import LinkState, RedisDownError, RedisLink
from webpd.settings import RedisUrl


class Told(list[LinkState]):
    """The states that the link told of, and its log lines."""

    def __init__(self) -> None:
        self.log = structlog.testing.LogCapture()

    @property
    def lines(self) -> list[str]:
        return [f"{line['log_level']}: {line['event']} {line.get('detail', '')}".rstrip() for line in self.log.entries]


@contextlib.asynccontextmanager
async def linked(url: RedisUrl) -> AsyncIterator[tuple[RedisLink, Told]]:
    """Run a link to there."""
    told = Told()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(link_module, "_log", structlog.wrap_logger(None, [structlog.stdlib.add_log_level, told.log]))
        link = RedisLink(url, changed=told.append)
        running = asyncio.create_task(link.run())
        try:
            yield link, told
        finally:
            running.cancel()
            await asyncio.gather(running, return_exceptions=True)
            await link.close()


async def becomes(condition: Callable[[], object], seconds: float = 30) -> None:
    """Wait until the condition holds. Raises ``TimeoutError``."""
    give_up = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > give_up:
            raise TimeoutError
        await asyncio.sleep(0.01)


def play(url: RedisUrl, scene: Callable[[RedisLink, Told], Coroutine[Any, Any, None]]) -> Told:
    """Run the scene with a link, and return what that told."""

    async def play() -> Told:
        async with linked(url) as (link, told):
            await scene(link, told)
        return told

    return asyncio.run(asyncio.wait_for(play(), 120))


async def answer(link: RedisLink, within: float = 1.0) -> None:
    """Ask for something, and see that it is the answer to that."""
    word = str(random.random())
    assert await link.ask(lambda redis: redis.echo(word), within=within) == word.encode()


def ping(redis: Redis) -> Awaitable[Any]:
    return redis.ping()


async def down(link: RedisLink, saying: str) -> None:
    """See that nothing can be asked, and that the reason is told."""
    await becomes(lambda: not link.state.up and saying in link.state.detail)
    with pytest.raises(RedisDownError, match=re.escape(saying)):
        await link.ask(ping)
