"""The service over trees on this machine and on a real SSHFS mount."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.lab import SshfsLab, sshfs_lab
from tests.service.driver import Service

# Seconds that the laboratory's mount may show what was; 20 is sshfs's own choice.
CACHE = 1


@pytest.fixture
def service(tmp_path: Path) -> Iterator[Callable[..., Service]]:
    """Return a function that makes a service (not started) over roots, with environment variables by keyword."""
    made: list[Service] = []

    def make(*roots: Path, **environment: str) -> Service:
        made.append(Service(tmp_path / f"service{len(made)}", *roots, **environment))
        return made[-1]

    yield make
    for one in made:
        one.close()


@pytest.fixture
def lab(tmp_path: Path) -> Iterator[SshfsLab]:
    """A mount without delay that is soon sure of what it shows."""
    with sshfs_lab(tmp_path, options=(f"dcache_timeout={CACHE}", "ServerAliveInterval=15")) as one:
        yield one
