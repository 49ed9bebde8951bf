"""The metrics pages of real services, fetched once for all who ask what is on them."""

import contextlib
import re
from collections.abc import Callable

import pytest

from tests.conftest import write
from tests.lab import free_port
from tests.monitoring.page import Page, read
from tests.monitoring.prometheus import DEPLOY
from tests.redis.server import RedisServer
from tests.service.driver import Service
from tests.service.hosts import Hosts


@pytest.fixture(scope="session")
def pages(tmp_path_factory: pytest.TempPathFactory, photograph: Callable[..., bytes]) -> dict[str, Page]:
    """The page of each role, when an image that had just been written was converted."""
    folder = tmp_path_factory.mktemp("roles")
    ports = {role: free_port() for role in ("all", "watch", "work")}
    address = {role: f"127.0.0.1:{port}" for role, port in ports.items()}
    with contextlib.ExitStack() as stack:
        cache = stack.enter_context(RedisServer(folder / "cache"))
        own_folder = ("--appenddirname", "appendonlydir")
        queue = stack.enter_context(RedisServer(folder / "queue", "queue.conf", *own_folder))
        settings = {"WEBPD_REDIS_URL": str(cache.url), "WEBPD_METRICS_ADDRESS": address["all"]}
        alone = Service(folder / "alone", folder / "tree", **settings)
        stack.callback(alone.close)
        hosts = Hosts(folder / "hosts", folder / "shared", queue)
        stack.callback(hosts.close)
        write(folder / "tree" / "1.jpg", photograph())
        write(hosts.tree / "1.jpg", photograph())
        alone.launch()
        watch = hosts.watch(WEBPD_METRICS_ADDRESS=address["watch"])
        work = hosts.work(WEBPD_METRICS_ADDRESS=address["work"])
        alone.wait_until(alone.ready)
        alone.settle()
        write(folder / "tree" / "2.jpg", photograph(100))
        alone.wait_until(lambda: alone.outcomes()["converted"] == 2, "the new image is converted")
        hosts.finish()
        running = {"all": alone, "watch": watch, "work": work}
        return {role: read(one.get("/metrics", ports[role])[1]) for role, one in running.items()}


@pytest.fixture(scope="session")
def known(pages: dict[str, Page]) -> set[str]:
    """The names of what Prometheus scrapes, of what the shipped rules record, and of what it has by itself."""
    recorded = set(re.findall(r"- record: (\S+)", (DEPLOY / "recording.yml").read_text("utf-8")))
    return {name for page in pages.values() for name in page.series} | recorded | {"up", "ALERTS"}
