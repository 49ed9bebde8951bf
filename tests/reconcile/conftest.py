"""The scene that the tests of this room play in."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.reconcile.scene import Clock, Scene


@pytest.fixture
def scene(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Scene]:
    made = Scene(tmp_path, Clock(monkeypatch))
    yield made
    made.ledger.close()
