"""The shop, and the clock by which it times its doubts."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.service_parts.shop import Clock, Shop
from webpd.convert.pool import CodecPool
from webpd.service import doubts as doubts_module


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    made = Clock()
    monkeypatch.setattr(doubts_module, "time", made)
    return made


@pytest.fixture
def shop(tmp_path: Path, pool: CodecPool, clock: Clock) -> Iterator[Shop]:
    made = Shop(tmp_path, pool)
    yield made
    made.ledger.close()
