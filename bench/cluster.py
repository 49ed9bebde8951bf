"""What it costs to spread the work over several hosts, which here share the cores of one machine.

    python -m bench.cluster [--images 1000] [--rounds 5] [--jobs 20000]

First the speed: JPEG thumbnails, converted by

- ``alone``: ``webpd run --once``, without any of this;
- ``1``, ``2``, ``4``: one ``webpd run --role watch`` and so many ``--role work``, each with its share of the codec
  processes (at least one), over a redis-server with deploy/redis/queue.conf.

All hosts that work are ready before there is something to do. The pace is that from the first tenth of the sidecars to
the last; the processor time that of the services' own processes, without the codecs, and of Redis.

Then the engine itself: jobs that cost nothing go from a host that watches to two that work, in batches of 1, 4, 16 and
64, and the processor time of each side is divided by their number.
"""

import argparse
import asyncio
import contextlib
import multiprocessing
import os
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from multiprocessing.synchronize import Event
from pathlib import Path

from bench.pictures import lay_out
from tests.redis.server import RedisServer

from webpd.model import Ending, Job, Outcome, Picture, Result
from webpd.queue.cluster.watch import WatchQueue
from webpd.queue.cluster.work import WorkQueue
from webpd.queue.manager import QueueManager
from webpd.queue.port import Lane
from webpd.settings import RedisUrl

OUT = os.path.join(os.path.dirname(os.path.abspath(__file__)), "out")
WEBPD = os.path.join(os.path.dirname(sys.executable), "webpd")
CORES = len(os.sched_getaffinity(0))
TICK = os.sysconf("SC_CLK_TCK")
HOSTS = (1, 2, 4)
BATCHES = (1, 4, 16, 64)
ROOT = "/nowhere"
TAKERS = 8
WORKING = 2


@dataclass(frozen=True)
class Run:
    """Images a second between the first tenth and the last; µs of a core for each image: watch, work, Redis."""

    pace: float
    watch: float
    work: float
    redis: float = 0.0


def used(pid: int) -> float:
    """Processor time of a process so far, in seconds (proc_pid_stat(5), fields 14 and 15); it may have ended."""
    stat = Path(f"/proc/{pid}/stat").read_text("utf-8", "replace").rpartition(")")[2].split()
    return (int(stat[11]) + int(stat[12])) / TICK


def pace(tree: Path) -> float:
    times = sorted(path.stat().st_ctime for path in tree.rglob("*.webp"))
    tenth = len(times) // 10
    return (len(times) - 2 * tenth) / (times[-1 - tenth] - times[tenth])


def start(folder: Path, tree: Path, *options: str, **environment: str) -> "subprocess.Popen[bytes]":
    """Start the service with a state folder and a log of its own."""
    folder.mkdir(parents=True)
    quiet = {"WEBPD_OWNER": "keep", "WEBPD_HEALTH_ADDRESS": "off", "WEBPD_METRICS_ADDRESS": "off"}
    own = {"WEBPD_STATE_DIR": str(folder / "state"), "WEBPD_LOG_FORMAT": "json", "WEBPD_HINT_SOCKET": "off"}
    with (folder / "log").open("w") as log:
        return subprocess.Popen(
            [WEBPD, "run", *options, str(tree)], env=os.environ | quiet | own | environment, stdout=log, stderr=log
        )


def wait_for(folder: Path, text: str) -> None:
    while text not in (folder / "log").read_text("utf-8", "replace"):
        time.sleep(0.1)


def alone(folder: Path, tree: Path, images: int) -> Run:
    """One service that does all."""
    process = start(folder / "all", tree, "--once", WEBPD_WORKERS=str(CORES))
    os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)  # what has ended and was not waited for tells its time
    seconds = used(process.pid)
    if process.wait():
        raise SystemExit((folder / "all" / "log").read_text("utf-8", "replace")[-2000:])
    return Run(pace(tree), 0.0, seconds / images * 1e6)


def spread(folder: Path, tree: Path, images: int, hosts: int) -> Run:
    """One host that watches and ``hosts`` that work."""
    share = str(max(1, CORES // hosts))
    with RedisServer(folder / "redis", "queue.conf") as server, contextlib.ExitStack() as ends:

        def host(name: str, role: str, **environment: str) -> "subprocess.Popen[bytes]":
            way = {"WEBPD_QUEUE_URL": str(server.url), **environment}
            process = start(folder / name, tree, "--role", role, **way)
            ends.callback(process.wait)
            ends.callback(process.send_signal, signal.SIGTERM)
            return process

        work = [host(f"work{number}", "work", WEBPD_WORKERS=share) for number in range(hosts)]
        for number in range(hosts):
            wait_for(folder / f"work{number}", '"running"')
        before = [used(process.pid) for process in work]
        watch = host("watch", "watch")
        while sum(1 for _ in tree.rglob("*.webp")) < images:
            time.sleep(0.5)
        working = sum(used(process.pid) for process in work) - sum(before)
        return Run(pace(tree), *(seconds / images * 1e6 for seconds in (used(watch.pid), working, used(server.pid))))


def race(template: Path, work: Path, images: int, turns: int) -> list[dict[str, Run]]:
    """All contenders in every round, forwards and backwards in turns."""
    rounds = []
    names = ["alone", *map(str, HOSTS)]
    for turn in range(turns):
        runs = {}
        for name in names if turn % 2 == 0 else reversed(names):
            folder = work / f"{turn}-{name}"  # stays until the end: see bench.throughput
            shutil.copytree(template, folder / "tree")
            os.sync()
            one = folder, folder / "tree", images
            runs[name] = alone(*one) if name == "alone" else spread(*one, int(name))
            print(f"  round {turn + 1} {name}: {runs[name]}", file=sys.stderr)
        rounds.append({name: runs[name] for name in names})
    return rounds


def speed_table(rounds: list[dict[str, Run]], images: int) -> str:
    lines = [
        f"### {images} JPEG thumbnails, {CORES} cores, {len(rounds)} rounds, medians",
        "",
        "| hosts that work | images/s | ÷ one host, each round | median | µs an image: watch | work | Redis |",
        "|---|--:|---|--:|--:|--:|--:|",
    ]
    for name in rounds[0]:
        runs = [runs[name] for runs in rounds]
        ratios = [runs[name].pace / runs["1"].pace for runs in rounds]
        costs = [statistics.median(getattr(run, side) for run in runs) for side in ("watch", "work", "redis")]
        lines.append(
            f"| {name} | {statistics.median(run.pace for run in runs):.1f} | {', '.join(f'{r:.3f}' for r in ratios)} |"
            f" **{statistics.median(ratios):.3f}** | {' | '.join(f'{cost:.0f}' for cost in costs)} |"
        )
    return "\n".join(lines) + "\n"


def idle_host(url: str, batch: int, ready: Event, stop: Event) -> None:
    """A host that works for nothing, in a process of its own."""

    async def take(queue: WorkQueue) -> None:
        while True:
            ticket = await queue.take(ROOT)
            picture = Picture(300, 200, "jpeg", 1, lossless=False)
            outcome = Outcome(ticket.job.path, Result.CONVERTED, None, "", 20_000, 10_000, 0.02, picture)
            await queue.done(ticket, Ending(outcome, None, "host", time.time()))

    async def work() -> None:
        queue = WorkQueue([ROOT], RedisUrl(url), b"", ahead=2 * batch)
        tasks = [asyncio.create_task(queue.run()), *(asyncio.create_task(take(queue)) for _ in range(TAKERS))]
        while not queue.link.up:  # noqa: ASYNC110 - nobody tells of it
            await asyncio.sleep(0.05)
        ready.set()
        await asyncio.to_thread(stop.wait)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    asyncio.run(work())


def engine(folder: Path, jobs: int, batch: int) -> Run:
    """Move so many jobs that cost nothing."""
    context = multiprocessing.get_context("spawn")
    stop, ready = context.Event(), [context.Event() for _ in range(WORKING)]
    with RedisServer(folder / str(batch), "queue.conf") as server:
        processes = [context.Process(target=idle_host, args=(str(server.url), batch, one, stop)) for one in ready]
        for process in processes:
            process.start()
        for one in ready:
            one.wait()
        pids = [os.getpid(), server.pid, *(process.pid for process in processes if process.pid)]
        run = asyncio.run(move(server.url, jobs, batch, pids))
        stop.set()
        for process in processes:
            process.join()
    return run


async def move(url: RedisUrl, count: int, batch: int, pids: Sequence[int]) -> Run:
    """Hand out jobs from this process until all are done; ``pids`` are this one, Redis, and those that work."""
    done = 0

    def concluded(ended: Sequence[tuple[Job, Ending]], *, mine: bool) -> None:  # noqa: ARG001 - as it is called
        nonlocal done
        done += len(ended)

    queue = WatchQueue(QueueManager([ROOT], capacity=count), [ROOT], url, b"", concluded, batch=batch)
    running = asyncio.create_task(queue.run())
    while not queue.link.up:  # noqa: ASYNC110 - nobody tells of it
        await asyncio.sleep(0.05)
    found = [Job(f"{ROOT}/iblock/{number % 97:03x}/{number}.jpg", ROOT, 20_000, number) for number in range(count)]
    await queue.offer(found, Lane.BACKFILL)
    before, begun = [used(pid) for pid in pids], time.perf_counter()
    while done < count:  # noqa: ASYNC110 - a thread counts
        await asyncio.sleep(0.02)
    seconds = time.perf_counter() - begun
    watch, redis, *work = (used(pid) - old for pid, old in zip(pids, before, strict=True))
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)
    return Run(count / seconds, watch / count * 1e6, sum(work) / count * 1e6, redis / count * 1e6)


def engine_table(runs: dict[int, Run], jobs: int) -> str:
    lines = [
        f"### {jobs} jobs that cost nothing, {WORKING} hosts that work",
        "",
        "| jobs in a batch | jobs/s | µs a job: watch | work | Redis | in all |",
        "|--:|--:|--:|--:|--:|--:|",
    ]
    for batch, run in runs.items():
        costs = (run.watch, run.work, run.redis, run.watch + run.work + run.redis)
        lines.append(f"| {batch} | {run.pace:.0f} | {' | '.join(f'{cost:.0f}' for cost in costs)} |")
    return "\n".join(lines) + "\n"


def main() -> None:
    """Measure, print the tables, and leave them in bench/out."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=1000, help="JPEG thumbnails (default 1000); 0: none")
    parser.add_argument("--rounds", type=int, default=5, help="rounds (default 5)")
    parser.add_argument("--jobs", type=int, default=20_000, help="jobs that cost nothing (default 20000); 0: none")
    options = parser.parse_args()
    if not shutil.which("redis-server"):
        raise SystemExit("missing: redis-server: apt-get install redis-server")
    os.makedirs(OUT, exist_ok=True)
    tables = []
    with tempfile.TemporaryDirectory(prefix="webpd-bench-") as work:
        if options.jobs:
            runs = {batch: engine(Path(work), options.jobs // (4 if batch == 1 else 1), batch) for batch in BATCHES}
            tables.append(engine_table(runs, options.jobs))
        if options.images:
            template = Path(work, "template")
            lay_out(str(template), options.images, "jpg", None)
            tables.insert(0, speed_table(race(template, Path(work), options.images, options.rounds), options.images))
    text = "\n".join(tables)
    with open(os.path.join(OUT, "cluster.md"), "w", encoding="utf-8") as file:
        file.write(text)
    print(text)


if __name__ == "__main__":
    main()
