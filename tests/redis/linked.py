"""A link that runs, and what it told."""

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Callable

import pytest
import structlog

from webpd.redis import link as link_module
from webpd.redis.link import LinkState, RedisLink
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
