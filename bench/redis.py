"""Whether a Redis, well or faulty, slows the service down.

    python -m bench.redis [--images 1500] [--rounds 5] [--only well,dead]

``webpd run --once`` over JPEG thumbnails, each time over a fresh copy of the same tree, against:

- ``without``: no WEBPD_REDIS_URL;
- ``well``: a redis-server with deploy/redis/redis.conf, as the others that follow;
- ``paused``: CLIENT PAUSE as soon as the service has connected, until the end;
- ``full``: filled to its maxmemory and evicting, while another client writes 4 MB a second into it;
- ``flushed``: FLUSHALL every second;
- ``dead``: nobody listens at its address;
- ``hung``: connections are taken in, and nothing is ever answered.

All run once in every round, in turns forwards and backwards; ratios are taken within a round. The speed is that of the
whole command, from its start to its end; the pace that from the first sidecar to the last. The processor time is that
of the service's own process, without the codecs'. The server and its other clients run on the same cores.
"""

import argparse
import contextlib
import json
import os
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path

from bench.pictures import lay_out
from matplotlib.figure import Figure
from tests.lab import free_port
from tests.redis.server import RedisServer

from redis import Redis

OUT = os.path.join(os.path.dirname(os.path.abspath(__file__)), "out")
WEBPD = os.path.join(os.path.dirname(sys.executable), "webpd")
TICK = os.sysconf("SC_CLK_TCK")
WANTED = 0.95


@dataclass(frozen=True)
class Run:
    """Wall-clock seconds, of these those from the first sidecar to the last, and of a core in the service's process."""

    seconds: float
    working: float
    processor: float


def repeatedly(seconds: float, work: Callable[[], object]) -> AbstractContextManager[None]:
    """Do the work in a thread, every so many seconds, until the block ends."""

    @contextlib.contextmanager
    def beside() -> Iterator[None]:
        ended = threading.Event()

        def repeat() -> None:
            while not ended.wait(seconds):
                work()

        thread = threading.Thread(target=repeat)
        thread.start()
        try:
            yield
        finally:
            ended.set()
            thread.join()

    return beside()


@contextlib.contextmanager
def without(_: Path) -> Iterator[str]:
    """No Redis."""
    yield "none"


@contextlib.contextmanager
def well(folder: Path) -> Iterator[str]:
    """One that works."""
    with RedisServer(folder) as server:
        yield server.url


@contextlib.contextmanager
def paused(folder: Path) -> Iterator[str]:
    """One that answers nothing more once the service is there."""
    ended = threading.Event()

    def pause() -> None:
        with contextlib.closing(Redis.from_url(server.administrator)) as client:
            while not ended.wait(0.02):
                if any(one["name"] == "webpd" for one in client.client_list()):
                    client.client_pause(3_600_000)
                    return

    with RedisServer(folder) as server:
        thread = threading.Thread(target=pause)
        thread.start()
        try:
            yield server.url
        finally:
            ended.set()
            thread.join()


@contextlib.contextmanager
def full(folder: Path) -> Iterator[str]:
    """One that is full, and always has to evict something."""
    with (
        RedisServer(folder, "redis.conf", "--maxmemory", "32mb") as server,
        contextlib.closing(Redis.from_url(server.administrator)) as client,
    ):

        def write(number: int) -> None:
            with client.pipeline(transaction=False) as pipe:
                for _ in range(number):
                    pipe.set(f"other:{os.urandom(8).hex()}", bytes(10_000))
                pipe.execute()

        write(4000)
        before = client.info("stats")["evicted_keys"]
        with repeatedly(0.05, lambda: write(20)):
            yield server.url
        assert client.info("stats")["evicted_keys"] > before


@contextlib.contextmanager
def flushed(folder: Path) -> Iterator[str]:
    """One that forgets everything every second."""
    with (
        RedisServer(folder) as server,
        contextlib.closing(Redis.from_url(server.administrator)) as client,
        repeatedly(1, client.flushall),
    ):
        yield server.url


@contextlib.contextmanager
def dead(_: Path) -> Iterator[str]:
    """Nobody there."""
    yield f"redis://127.0.0.1:{free_port()}/0"


@contextlib.contextmanager
def hung(_: Path) -> Iterator[str]:
    """One whose kernel takes connections in, and nobody else does."""
    with socket.create_server(("127.0.0.1", 0), backlog=1000) as silent:
        yield f"redis://127.0.0.1:{silent.getsockname()[1]}/0"


CONTENDERS: dict[str, Callable[[Path], AbstractContextManager[str]]] = {
    "without": without,
    "well": well,
    "paused": paused,
    "full": full,
    "flushed": flushed,
    "dead": dead,
    "hung": hung,
}


def timed(tree: Path, folder: Path, url: str, images: int) -> Run:
    """Run the service once over the tree, with its state in the folder."""
    environment = os.environ | {
        "WEBPD_OWNER": "keep",
        "WEBPD_STATE_DIR": str(folder / "state"),
        "WEBPD_LOG_FORMAT": "json",
        "WEBPD_REDIS_URL": url,
    }
    start = time.perf_counter()
    with (folder / "log").open("w") as log:
        process = subprocess.Popen([WEBPD, "run", "--once", str(tree)], env=environment, stdout=log, stderr=log)
        os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
        seconds = time.perf_counter() - start
        # What has ended and was not waited for still tells its own time (proc_pid_stat(5), fields 14 and 15).
        stat = Path(f"/proc/{process.pid}/stat").read_text("utf-8", "replace").rpartition(")")[2].split()
    times = [path.stat().st_ctime for path in tree.rglob("*.webp")]
    if process.wait() or len(times) != images:
        raise SystemExit(f"{len(times)} of {images} made, ended with {process.returncode}: see {folder}/log")
    return Run(seconds, max(times) - min(times), (int(stat[11]) + int(stat[12])) / TICK)


def race(names: list[str], template: Path, work: Path, options: argparse.Namespace) -> list[dict[str, Run]]:
    """All contenders in every round, each on a copy of ``template``."""
    rounds = []
    for turn in range(options.rounds):
        runs = {}
        for name in names if turn % 2 == 0 else reversed(names):
            folder = work / f"{turn}-{name}"  # stays until the end: see bench.throughput
            shutil.copytree(template, folder / "tree")
            os.sync()
            with CONTENDERS[name](folder / "redis") as url:
                runs[name] = timed(folder / "tree", folder, url, options.images)
            print(f"  round {turn + 1} {name}: {runs[name]}", file=sys.stderr)
        rounds.append(runs)
    return rounds


def ratios(rounds: list[dict[str, Run]], name: str) -> list[float]:
    """Its speed as a part of that without Redis, in each round."""
    return [runs["without"].seconds / runs[name].seconds for runs in rounds]


def table(rounds: list[dict[str, Run]], images: int) -> str:
    """The results as a Markdown table."""
    lines = [
        f"### {images} JPEG thumbnails",
        "",
        "| Redis | images/s, median | ÷ without, each round | median | pace ÷ without, median | ms of a core, each |",
        "|---|--:|---|--:|--:|--:|",
    ]
    for name in rounds[0]:
        times = ratios(rounds, name)
        speed = statistics.median(images / runs[name].seconds for runs in rounds)
        pace = statistics.median(runs["without"].working / runs[name].working for runs in rounds)
        processor = statistics.median(runs[name].processor for runs in rounds) / images * 1000
        lines.append(
            f"| {name} | {speed:.1f} | {', '.join(f'{ratio:.3f}' for ratio in times)} |"
            f" **{statistics.median(times):.3f}** | {pace:.3f} | {processor:.2f} |"
        )
    return "\n".join(lines) + "\n"


def plot(path: str, rounds: list[dict[str, Run]]) -> None:
    """The ratios of every round."""
    figure = Figure(figsize=(6.5, 3.5), layout="tight")
    panel = figure.subplots()
    names = [name for name in rounds[0] if name != "without"]
    for place, name in enumerate(names):
        times = ratios(rounds, name)
        panel.barh(place, statistics.median(times), color="tab:blue", alpha=0.5)
        panel.plot(times, [place] * len(times), "k.")
    panel.set_yticks(range(len(names)), names)
    panel.axvline(1, color="black", linewidth=0.8)
    panel.axvline(WANTED, color="tab:red", linewidth=0.8)
    panel.set(xlabel="speed ÷ speed without Redis (dots: rounds; red: what is wanted)")
    figure.savefig(path)


def main() -> None:
    """Measure, print the table, and leave it and the plot in bench/out."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=1500, help="JPEG thumbnails (default 1500)")
    parser.add_argument("--rounds", type=int, default=5, help="rounds (default 5)")
    parser.add_argument("--only", default=",".join(CONTENDERS), help=f"contenders (default {','.join(CONTENDERS)})")
    options = parser.parse_args()
    if not shutil.which("redis-server"):
        raise SystemExit("missing: redis-server: apt-get install redis-server")
    names = [name for name in CONTENDERS if name == "without" or name in options.only.split(",")]
    os.makedirs(OUT, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="webpd-bench-") as work:
        template = Path(work, "template")
        lay_out(str(template), options.images, "jpg", None)
        rounds = race(names, template, Path(work), options)
    text = f"{len(os.sched_getaffinity(0))} cores.\n\n{table(rounds, options.images)}"
    with open(os.path.join(OUT, "redis.md"), "w", encoding="utf-8") as file:
        file.write(text)
    with open(os.path.join(OUT, "redis.json"), "w", encoding="utf-8") as file:
        json.dump(rounds, file, default=vars, indent=1)
    plot(os.path.join(OUT, "redis.png"), rounds)
    print(text)


if __name__ == "__main__":
    main()
