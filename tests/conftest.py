"""What tests of all rooms share: real photographs, small trees of them, and the command as a user runs it."""

import io
import json
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import skimage
from hypothesis import HealthCheck, settings
from PIL import Image

from tests.referee import Chromium, open_chromium
from webpd.convert.frames import Limits
from webpd.convert.pool import CodecPool
from webpd.model import Encoding

PHOTOGRAPHS = Path(skimage.__file__).parent / "data"
WEBPD = (sys.executable, "-m", "webpd")
LIMITS = Limits(max_pixels=50_000_000, worker_memory=3 << 29, job_timeout=60.0)

# No test fails because the machine is busy: `make test` runs more of them at once than there are cores.
settings.register_profile("busy", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("busy")


@pytest.fixture(scope="session")
def prove() -> bool:
    """Whether the checks run at their full size."""
    return os.environ.get("PROVE") == "1"


@pytest.fixture(scope="session")
def photograph() -> Callable[..., bytes]:
    """Return a function that gives a JPEG of a real photograph, ``width`` pixels wide."""

    def encode(width: int = 160, name: str = "chelsea.png", quality: int = 95, format_: str = "JPEG") -> bytes:
        with Image.open(PHOTOGRAPHS / name) as picture:
            small = picture.convert("RGB")
            small.thumbnail((width, width))
        file = io.BytesIO()
        small.save(file, format_, **({"quality": quality} if format_ == "JPEG" else {}))
        return file.getvalue()

    return encode


@pytest.fixture(scope="session")
def pool() -> Iterator[CodecPool]:
    """Real codec processes, as the service has them."""
    with CodecPool(Encoding(quality=80, method=4), LIMITS, 2) as processes:
        yield processes


@pytest.fixture(scope="session")
def chromium() -> Iterator[Chromium]:
    """One Chromium for all: what it shows is what counts."""
    with open_chromium() as browser:
        yield browser


@dataclass(frozen=True)
class Ended:
    """How a command ended, and what it said."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)


@pytest.fixture
def webpd() -> Callable[..., Ended]:
    """Return a function that runs the command with these arguments, and environment variables by keyword."""

    def run(*arguments: object, **environment: str) -> Ended:
        clean = {name: value for name, value in os.environ.items() if not name.startswith("WEBPD_")}
        done = subprocess.run(
            [*WEBPD, *map(str, arguments)],
            env=clean | environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="surrogateescape",
            check=False,
        )
        return Ended(done.returncode, done.stdout, done.stderr)

    return run


@dataclass(frozen=True)
class Measured:
    """What ``webpd convert --json`` told, and the peak of resident memory among all its processes, in MiB."""

    code: int
    json: Any
    memory: int


# A process counts the memory of the one that it was forked from as its own peak: a small one must start it.
_LAUNCHER = """
import os, subprocess, sys
process = subprocess.Popen(sys.argv[1:])
_, status, usage = os.wait4(process.pid, 0)
print(usage.ru_maxrss // 1024, file=sys.stderr)
sys.exit(os.waitstatus_to_exitcode(status))
"""


def convert_measured(root: Path, *options: str, **environment: str) -> Measured:
    """Run ``webpd convert`` and measure it."""
    done = subprocess.run(
        [sys.executable, "-c", _LAUNCHER, *WEBPD, "convert", "--json", *options, str(root)],
        env=os.environ | environment,
        capture_output=True,
        text=True,
        check=False,
    )
    return Measured(done.returncode, json.loads(done.stdout), int(done.stderr))


def write(path: Path, data: bytes, mtime: float | None = None) -> Path:
    """Write a file with the folders above it; ``mtime`` in seconds."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    if mtime is not None:
        os.utime(path, (mtime, mtime))
    return path


def open_to_all(path: Path) -> None:
    """Let other users reach it: the folders that pytest makes for tests are closed to them."""
    temporary = Path(tempfile.gettempdir())
    for folder in (path, *path.parents):
        if temporary in folder.parents:
            folder.chmod(0o755)


def descendants(pid: int) -> set[int]:
    """Return the processes that this one started, and those that these started."""
    children: dict[int, set[int]] = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            parent = int(stat.read_text("utf-8", "replace").rpartition(")")[2].split()[1])
        except (FileNotFoundError, ProcessLookupError):
            continue
        children.setdefault(parent, set()).add(int(stat.parent.name))
    found: set[int] = set()
    waiting = [pid]
    while waiting:
        new = children.get(waiting.pop(), set()) - found
        found |= new
        waiting.extend(new)
    return found


def kill(pid: int) -> None:
    """End a process that this test started."""
    os.kill(pid, signal.SIGKILL)


@pytest.fixture
def tmpfs(tmp_path: Path) -> Iterator[Callable[[str], Path]]:
    """Return a function that mounts a real tmpfs with these mount options (needs root, as CI has it)."""
    mounted: list[Path] = []

    def mount(options: str) -> Path:
        folder = tmp_path / f"tmpfs{len(mounted)}"
        folder.mkdir()
        subprocess.run(["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(folder)], check=True)
        mounted.append(folder)
        return folder

    yield mount
    for folder in mounted:
        subprocess.run(["umount", "-l", str(folder)], check=True)


def as_nobody(function: Callable[[], object]) -> Any:
    """Return what the function returns in a child process that is not root; it must be JSON."""
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        status = 1
        try:
            os.setgroups([])
            os.setgid(65534)
            os.setuid(65534)
            os.write(writing, json.dumps(function()).encode())
            status = 0
        finally:
            os._exit(status)
    os.close(writing)
    with os.fdopen(reading) as file:
        answer = file.read()
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    return json.loads(answer)
