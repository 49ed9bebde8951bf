"""How soon the service answers for its health while it, its mounts and its Redis are at their worst.

    python -m bench.health [--seconds 5] [--connections 4] [--files 1000000] [--only idle,hung]    (as root)

``wrk`` asks ``/livez``, ``/readyz`` and ``/health`` in turns, each for some seconds by that many connections that ask
again as soon as they are answered, and ``/metrics`` by one, as Prometheus does; on the same cores as everything else:

- ``idle``: nothing to do;
- ``converting``: JPEG thumbnails wait for conversion, both cores full;
- ``hung``: an SSHFS mount whose sshd was stopped while images were being converted on it;
- ``paused``: CLIENT PAUSE of its Redis, while images are converted;
- ``scanning``: the first walk over ``--files`` files in 25 times fewer directories, all converted, on a tmpfs;
- ``known``: ``--files`` originals known in 25 times fewer directories, watched and polled, and nothing to do;
- ``busy``: the same, while JPEG thumbnails are converted in another root;
- ``all``: all of the first five in one service;
- ``mute``: its standard error is a pipe that nobody reads, and more was logged than it holds.

Wanted: 99 of 100 answers within 100 ms, of scrapes within 20 ms. ``lasted`` tells whether the scene was still on when
the last answer came.
"""

import argparse
import contextlib
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench.pictures import lay_out
from bench.poll import lay_out as lay_out_converted
from bench.poll import tmpfs
from tests.lab import SshfsLab, sshfs_lab
from tests.redis.server import RedisServer
from tests.service.driver import Service
from tests.service_parts.mute import Mute

OUT = os.path.join(os.path.dirname(os.path.abspath(__file__)), "out")
ENDPOINTS = ("/livez", "/readyz", "/health", "/metrics")
_PAUSE = 3_600_000  # milliseconds
_ENOUGH = 50
"""Conversions whose log lines fill the pipe of ``mute``."""

# https://github.com/wg/wrk/blob/master/SCRIPTING: latencies are in microseconds.
_REPORT = """
done = function(summary, latency, requests)
  local e = summary.errors
  io.write(string.format('{"answers": %d, "p50": %f, "p99": %f, "max": %f, "errors": %d}',
    summary.requests, latency:percentile(50), latency:percentile(99), latency.max,
    e.connect + e.read + e.write + e.timeout))
end
"""


@dataclass(frozen=True)
class Options:
    """What the command line asks for."""

    seconds: int
    connections: int
    files: int
    images: int


@dataclass(frozen=True)
class Row:
    """What one endpoint was measured to take in a scene, in milliseconds."""

    scene: str
    endpoint: str
    answers: int
    p50: float
    p99: float
    most: float
    errors: int


@dataclass(frozen=True)
class Stage:
    """A service in its scene, and what tells whether the scene still lasts."""

    service: Service
    lasts: Callable[[], object]


Scene = Callable[[Path, Options], AbstractContextManager[Stage]]


@contextlib.contextmanager
def running(folder: Path, *roots: Path, **environment: str) -> Iterator[Service]:
    """A service that has begun to look at its roots; whatever it logs is read."""
    service = Service(folder, *roots, **environment)
    service.launch()
    try:
        service.wait_until(lambda: service.alive() and service.health()["roots"], "it has begun")
        yield service
    finally:
        service.close()


def pictures(root: Path, options: Options) -> Path:
    """Lay out more images than can be converted while they are measured."""
    lay_out(str(root), options.images, "jpg", None)
    return root


def converting(service: Service) -> bool:
    """Tell whether there are images to convert, and some are being converted."""
    queue = service.health()["queue"]
    return bool(queue["fresh"] + queue["backfill"] and queue["in_flight"])


@contextlib.contextmanager
def idle(folder: Path, _: Options) -> Iterator[Stage]:
    """Nothing to do."""
    root = folder / "tree"
    root.mkdir()
    with running(folder, root) as service:
        service.wait_until(service.ready, "it is ready")
        yield Stage(service, service.ready)


@contextlib.contextmanager
def full_conversion(folder: Path, options: Options) -> Iterator[Stage]:
    """Both cores full."""
    with running(folder, pictures(folder / "tree", options)) as service:
        service.wait_until(lambda: converting(service), "it converts")
        yield Stage(service, lambda: converting(service))


@contextlib.contextmanager
def hung(folder: Path, options: Options) -> Iterator[Stage]:
    """An SSHFS mount whose server was stopped while images were converted on it."""
    with sshfs_lab(folder / "lab") as lab:
        pictures(lab.origin / "tree", options)
        with running(folder, lab.mnt / "tree") as service, _stopped(service, lab):
            yield Stage(service, lambda: service.root()["mount"] == "hung")


@contextlib.contextmanager
def _stopped(service: Service, lab: SshfsLab, number: int = 0) -> Iterator[None]:
    service.wait_until(lambda: converting(service), "it converts")
    lab.stop()
    try:
        service.wait_until(lambda: service.root(number)["mount"] == "hung", "the mount is seen to hang")
        yield
    finally:
        lab.cont()


@contextlib.contextmanager
def paused(folder: Path, options: Options) -> Iterator[Stage]:
    """A Redis that answers nobody, while images are converted."""
    with RedisServer(folder / "redis") as redis:
        root = pictures(folder / "tree", options)
        with running(folder, root, WEBPD_REDIS_URL=redis.url) as service:
            service.wait_until(lambda: service.health()["redis"]["up"], "Redis answers")
            redis.cli("CLIENT", "PAUSE", str(_PAUSE))
            yield Stage(service, lambda: converting(service) and not service.health()["redis"]["up"])


@contextlib.contextmanager
def scanning(folder: Path, options: Options) -> Iterator[Stage]:
    """The first walk over a large tree, in which there is nothing to do."""
    with tmpfs() as place, running(folder, _large(place, options.files, options.files // 2)) as service:
        yield Stage(service, lambda: not service.root()["cycles"])


def _large(place: str, files: int, originals: int) -> Path:
    """Lay out a converted tree of so many originals, in 25 times fewer directories than ``files``."""
    directories = [f"{number % 200:03}/{number}" for number in range(max(1, files // 25))]
    root = os.path.join(place, "tree")
    lay_out_converted(root, directories, originals)
    return Path(root)


@contextlib.contextmanager
def known(folder: Path, options: Options) -> Iterator[Stage]:
    """All of a large tree is known."""
    with tmpfs() as place, running(folder, _large(place, options.files, options.files)) as service:
        service.wait_until(lambda: knows(service, options.files), "it knows all", 600)
        yield Stage(service, lambda: knows(service, options.files))


@contextlib.contextmanager
def busy(folder: Path, options: Options) -> Iterator[Stage]:
    """All of a large tree is known, and another one is being converted."""
    new, small = pictures(folder / "new", options), folder / "tree"
    small.mkdir()
    with tmpfs() as place, running(folder, _large(place, options.files, options.files), small) as service:
        service.wait_until(lambda: knows(service, options.files), "it knows all", 600)
        new.rename(small / "new")
        service.wait_until(lambda: converting(service), "it converts")
        yield Stage(service, lambda: converting(service) and knows(service, options.files))


def knows(service: Service, originals: int) -> bool:
    """Tell whether it knows so many originals in its first root, and has nothing to do there."""
    root = service.root()
    return bool(root["images"] == originals and not root["unsettled"])


@contextlib.contextmanager
def everything(folder: Path, options: Options) -> Iterator[Stage]:
    """All of it in one service."""
    with ExitStack() as stack:
        redis = stack.enter_context(RedisServer(folder / "redis"))
        lab = stack.enter_context(sshfs_lab(folder / "lab"))
        large = _large(stack.enter_context(tmpfs()), options.files, options.files // 2)
        pictures(lab.origin / "tree", options)
        roots = (lab.mnt / "tree", large, pictures(folder / "tree", options))
        service = stack.enter_context(running(folder, *roots, WEBPD_REDIS_URL=redis.url))
        stack.enter_context(_stopped(service, lab))
        redis.cli("CLIENT", "PAUSE", str(_PAUSE))
        yield Stage(service, lambda: converting(service) and not service.root(1)["cycles"])


@contextlib.contextmanager
def mute(folder: Path, options: Options) -> Iterator[Stage]:
    """Nobody reads what it logs, and the pipe is full: each conversion logs a line."""
    service = Mute(folder, pictures(folder / "tree", options))
    service.launch()
    try:
        service.wait_until(lambda: service.alive() and sum(service.outcomes().values()) > _ENOUGH, "it has logged")
        yield Stage(service, lambda: converting(service))
    finally:
        service.close()


SCENES: dict[str, Scene] = {
    "idle": idle,
    "converting": full_conversion,
    "hung": hung,
    "paused": paused,
    "scanning": scanning,
    "known": known,
    "busy": busy,
    "all": everything,
    "mute": mute,
}


def load(service: Service, endpoint: str, options: Options) -> dict[str, Any]:
    """Return what wrk measured, times in microseconds."""
    with tempfile.NamedTemporaryFile("w", suffix=".lua") as script:
        script.write(_REPORT)
        script.flush()
        port, connections = service.health_port, options.connections
        if endpoint == "/metrics":
            port, connections = service.metrics_port, 1
        amount = ("-t1", f"-c{connections}", f"-d{options.seconds}s", "--timeout", "10s", "--latency")
        url = f"http://127.0.0.1:{port}{endpoint}"
        done = subprocess.run(("wrk", *amount, "-s", script.name, url), capture_output=True, text=True, check=True)
    told: dict[str, Any] = json.loads(done.stdout[done.stdout.rindex("{") :])
    return told


def measure(name: str, options: Options) -> tuple[list[Row], bool]:
    """Return what was measured in a scene, and whether it lasted to the end."""
    rows = []
    with tempfile.TemporaryDirectory(prefix="webpd-health-") as folder, SCENES[name](Path(folder), options) as stage:
        for endpoint in ENDPOINTS:
            told = load(stage.service, endpoint, options)
            p50, p99, most = (told[key] / 1000 for key in ("p50", "p99", "max"))
            rows.append(Row(name, endpoint, told["answers"], p50, p99, most, told["errors"]))
        lasted = bool(stage.lasts())
    return rows, lasted


def main() -> None:
    """Measure every scene, print the table, and leave it in bench/out."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=int, default=5, help="for each endpoint in each scene (default 5)")
    parser.add_argument("--connections", type=int, default=4, help="that ask at once (default 4)")
    parser.add_argument("--files", type=int, default=1_000_000, help="files of the large tree (default 1,000,000)")
    parser.add_argument("--images", type=int, default=6000, help="images to convert in a scene (default 6,000)")
    parser.add_argument("--only", default=",".join(SCENES), help="scenes, comma-separated")
    asked = parser.parse_args()
    options = Options(asked.seconds, asked.connections, asked.files, asked.images)
    lines = [
        "| scene | | answers | median, ms | p99, ms | longest, ms | errors | lasted |",
        "|---|---|--:|--:|--:|--:|--:|---|",
    ]
    for name in asked.only.split(","):
        rows, lasted = measure(name, options)
        for row in rows:
            times = f"{row.p50:.1f} | {row.p99:.1f} | {row.most:.1f}"
            rest = f"{row.errors} | {'yes' if lasted else 'NO'}"
            lines.append(f"| {name} | `{row.endpoint}` | {row.answers:,} | {times} | {rest} |")
            print(lines[-1], file=sys.stderr, flush=True)
    text = "\n".join(lines) + "\n"
    os.makedirs(OUT, exist_ok=True)
    with open(os.path.join(OUT, "health.md"), "w", encoding="utf-8") as file:
        file.write(text)
    print(text)


if __name__ == "__main__":
    main()
