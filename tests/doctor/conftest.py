"""Trees that ``webpd doctor`` looks at."""

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.conftest import write
from tests.lab import SshfsLab, sshfs_lab
from webpd.settings import Owner, Settings


@pytest.fixture
def shop(tmp_path: Path, photograph: Callable[..., bytes]) -> Path:
    """A small tree as Bitrix makes it."""
    folder = tmp_path / "upload" / "resize_cache"
    for number in range(6):
        write(folder / "iblock" / "abc" / "120_120_1" / f"{number}.jpg", photograph(80 + number), mtime=1_600_000_000)
    return folder


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings(state_dir=str(tmp_path / "state"), owner=Owner(os.geteuid(), os.getegid()))


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SshfsLab]:
    options = ("allow_other", "default_permissions", "ServerAliveInterval=15")
    with sshfs_lab(tmp_path_factory.mktemp("lab"), options=options) as laboratory:
        yield laboratory
