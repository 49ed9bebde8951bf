"""What these tests share: the shop, and whom it tells."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.bitrix.listener import TOKEN, HintServer, hint_server
from tests.bitrix.shop import Shop
from tests.service.driver import Service


@pytest.fixture
def shop(tmp_path: Path, photograph: Callable[..., bytes]) -> Shop:
    return Shop(tmp_path / "www", photograph)


@pytest.fixture
def server() -> Iterator[HintServer]:
    with hint_server() as one:
        yield one


@pytest.fixture
def service(shop: Shop, tmp_path: Path) -> Iterator[Service]:
    """webpd over the shop's thumbnails, which by itself would look at them tomorrow."""
    shop.cache.mkdir(parents=True)
    settings = {"WEBPD_TOKEN": TOKEN, "WEBPD_WATCH": "poll", "WEBPD_POLL_INTERVAL": "1d"}
    one = Service(tmp_path, shop.cache, **settings)
    try:
        one.start()
        one.wait_until(lambda: one.root()["cycles"], "its first look")
        yield one
    finally:
        one.close()
