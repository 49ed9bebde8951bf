"""What tests of the commands share."""

import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.cli.scene import a_past
from tests.conftest import Ended
from tests.lab import free_port


@pytest.fixture
def state(tmp_path: Path) -> Path:
    return tmp_path / "state"


@pytest.fixture
def remembered(state: Path) -> Path:
    """A state directory as a service leaves it."""
    a_past(state)
    return state


@pytest.fixture
def open_to_all() -> Iterator[Path]:
    """A state directory that other users may read; the folders of pytest are closed to them."""
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o755)
        yield Path(folder)


@pytest.fixture
def stopped(webpd: Callable[..., Ended], state: Path) -> Callable[..., Ended]:
    """Return a function that asks for the status where no service runs."""
    address = f"127.0.0.1:{free_port()}"

    def ask(*options: str, **environment: str) -> Ended:
        given = {"WEBPD_STATE_DIR": str(state), "WEBPD_HEALTH_ADDRESS": address} | environment
        return webpd("status", *options, **given)

    return ask
