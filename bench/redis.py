"""Whether a Redis, well or faulty, slows the service down.

    python -m bench.redis [--images 1000] [--rounds 9] [--only well,dead]

``webpd run --once`` over JPEG thumbnails with WEBPD_REDIS_URL, and at the same time over a copy of them without it, on
the same cores: what else happens on the machine hits both, and who waits is overtaken. Contenders:

- ``none``: no Redis on either side, which shows how far two runs of the same differ;
- ``well``: a redis-server with deploy/redis/redis.conf, as the others that follow;
- ``paused``: CLIENT PAUSE as soon as the service has connected, until the end;
- ``full``: filled to its maxmemory and evicting, while another client writes 4 MB a second into it;
- ``flushed``: FLUSHALL every second;
- ``dead``: nobody listens at its address;
- ``hung``: connections are taken in, and nothing is ever answered.

The speed is that of the whole command, from its start to its end; the pace that from the first sidecar to the last. The
processor time is that of the service's own process, without the codecs'.
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
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path

from bench.pictures import lay_out
from matplotlib.figure import Figure
from tests.lab import free_port, repeatedly
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


@dataclass(frozen=True)
class Pair:
    """Two services at work at the same time."""

    with_it: Run
    without: Run


@contextlib.contextmanager
def none(_: Path) -> Iterator[str]:
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
    "none": none,
    "well": well,
    "paused": paused,
    "full": full,
    "flushed": flushed,
    "dead": dead,
    "hung": hung,
}


def timed(name: str, template: Path, folder: Path, together: threading.Barrier) -> Run:
    """Run the service once, with that Redis, over a copy of the template in the folder."""
    shutil.copytree(template, folder / "tree")
    images = sum(1 for _ in template.rglob("*.jpg"))
    environment = os.environ | {
        "WEBPD_OWNER": "keep",
        "WEBPD_STATE_DIR": str(folder / "state"),
        "WEBPD_LOG_FORMAT": "json",
    }
    command = [WEBPD, "run", "--once", str(folder / "tree")]
    with CONTENDERS[name](folder / "redis") as url, (folder / "log").open("w") as log:
        together.wait()
        start = time.perf_counter()
        process = subprocess.Popen(command, env=environment | {"WEBPD_REDIS_URL": url}, stdout=log, stderr=log)
        os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
        seconds = time.perf_counter() - start
        # What has ended and was not waited for still tells its own time (proc_pid_stat(5), fields 14 and 15).
        stat = Path(f"/proc/{process.pid}/stat").read_text("utf-8", "replace").rpartition(")")[2].split()
        code = process.wait()
    times = [path.stat().st_ctime for path in (folder / "tree").rglob("*.webp")]
    if code or len(times) != images:
        raise SystemExit(f"{len(times)} of {images} made, ended with {code}: {(folder / 'log').read_text()[-2000:]}")
    return Run(seconds, max(times) - min(times), (int(stat[11]) + int(stat[12])) / TICK)


def race(names: list[str], template: Path, work: Path, turns: int) -> list[dict[str, Pair]]:
    """All contenders in every round, each beside a service without Redis."""
    rounds = []
    with ThreadPoolExecutor(2) as pool:
        for turn in range(turns):
            pairs = {}
            for name in names if turn % 2 == 0 else reversed(names):
                folder = work / f"{turn}-{name}"  # stays until the end: see bench.throughput
                together = threading.Barrier(2, timeout=300)
                with_it = pool.submit(timed, name, template, folder / "with", together)
                without = pool.submit(timed, "none", template, folder / "without", together)
                pairs[name] = Pair(with_it.result(), without.result())
                print(f"  round {turn + 1} {name}: {pairs[name]}", file=sys.stderr)
            rounds.append(pairs)
    return rounds


def ratios(rounds: list[dict[str, Pair]], name: str) -> list[float]:
    """Its speed as a part of that of the run beside it, in each round."""
    return [pairs[name].without.seconds / pairs[name].with_it.seconds for pairs in rounds]


def table(rounds: list[dict[str, Pair]], images: int) -> str:
    """The results as a Markdown table."""
    lines = [
        f"### {images} JPEG thumbnails, {len(rounds)} rounds, medians",
        "",
        "| Redis | speed ÷ without, each round | median | pace ÷ without | ms of a core an image | without |",
        "|---|---|--:|--:|--:|--:|",
    ]
    for name in rounds[0]:
        pairs, speeds = [pairs[name] for pairs in rounds], ratios(rounds, name)
        pace = statistics.median(pair.without.working / pair.with_it.working for pair in pairs)
        used, beside = (
            statistics.median(run.processor / images * 1000 for run in runs)
            for runs in ([pair.with_it for pair in pairs], [pair.without for pair in pairs])
        )
        lines.append(
            f"| {name} | {', '.join(f'{speed:.3f}' for speed in speeds)} | **{statistics.median(speeds):.3f}** |"
            f" {pace:.3f} | {used:.2f} | {beside:.2f} |"
        )
    return "\n".join(lines) + "\n"


def plot(path: str, rounds: list[dict[str, Pair]]) -> None:
    """The ratios of every round."""
    figure = Figure(figsize=(6.5, 3.5), layout="tight")
    panel = figure.subplots()
    for place, name in enumerate(rounds[0]):
        speeds = ratios(rounds, name)
        panel.barh(place, statistics.median(speeds), color="tab:blue", alpha=0.5)
        panel.plot(speeds, [place] * len(speeds), "k.")
    panel.set_yticks(range(len(rounds[0])), list(rounds[0]))
    panel.axvline(1, color="black", linewidth=0.8)
    panel.axvline(WANTED, color="tab:red", linewidth=0.8)
    panel.set(xlabel="speed ÷ speed without Redis (dots: rounds; red: what is wanted)")
    figure.savefig(path)


def main() -> None:
    """Measure, print the table, and leave it and the plot in bench/out."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=1000, help="JPEG thumbnails (default 1000)")
    parser.add_argument("--rounds", type=int, default=9, help="rounds (default 9)")
    parser.add_argument("--only", default=",".join(CONTENDERS), help=f"contenders (default {','.join(CONTENDERS)})")
    options = parser.parse_args()
    if not shutil.which("redis-server"):
        raise SystemExit("missing: redis-server: apt-get install redis-server")
    names = [name for name in CONTENDERS if name in options.only.split(",")]
    os.makedirs(OUT, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="webpd-bench-") as work:
        template = Path(work, "template")
        lay_out(str(template), options.images, "jpg", None)
        rounds = race(names, template, Path(work), options.rounds)
    text = table(rounds, options.images)
    with open(os.path.join(OUT, "redis.md"), "w", encoding="utf-8") as file:
        file.write(text)
    with open(os.path.join(OUT, "redis.json"), "w", encoding="utf-8") as file:
        json.dump(rounds, file, default=vars, indent=1)
    plot(os.path.join(OUT, "redis.png"), rounds)
    print(text)


if __name__ == "__main__":
    main()
