"""A real Redis for the queue between hosts, and hosts on it."""

from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from tests.queue.hosts import Hosts
from tests.redis.server import RedisServer


@pytest.fixture(scope="module")
def queue_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    """A Redis as ``deploy/redis/queue.conf`` has it."""
    with RedisServer(tmp_path_factory.mktemp("redis"), "queue.conf") as running:
        yield running


@pytest.fixture
async def hosts(tmp_path: Path) -> AsyncIterator[Hosts]:
    """Hosts on a Redis of their own; when the test ends, those in this process end, and the others are killed."""
    with RedisServer(tmp_path / "redis", "queue.conf") as running:
        some = Hosts(running, tmp_path)
        yield some
        await some.end()
