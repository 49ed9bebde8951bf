"""What it costs to keep an eye on a large tree where nothing happens: time of a core for each look, and memory.

    python -m bench.poll [--files 1000000] [--directories 40000] [--single 300000] [--cycles 3]    (as root)

Two trees on a tmpfs of their own, all converted: ``--files`` originals and sidecars in ``--directories`` directories;
and ``--single`` originals, each with a folder of its own inside another, as Bitrix makes them with original names kept.
The files are hard links to two, so that the trees fit into memory; names, times and sizes are what everybody looks at.
Contenders:

- ``webpd run``: processor time of its main process from one polling cycle to the next, all else that it does included;
- ``PollingObserver``: one cycle of watchdog's emitter, a snapshot and the difference to the last;
- ``full scan``: each directory listed and each file stat-ed, in Python;
- ``find``: the same by ``find -printf``.

Then the service is restarted: how soon it is ready, and has looked at every directory, and how many it listed.
"""

import argparse
import contextlib
import json
import os
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from bench.pictures import jpeg, photographs, thumbnail
from tests.lab import free_port

OUT = os.path.join(os.path.dirname(os.path.abspath(__file__)), "out")
WEBPD = os.path.join(os.path.dirname(sys.executable), "webpd")
LONG_AGO = 1_600_000_000
_SELDOM = 2.0  # seconds between two questions while cycles are measured: answering takes time of the core too
TICK = os.sysconf("SC_CLK_TCK")

# Each prints the seconds of processor time of a cycle, and the peak of its memory in KiB.
_REPORT = 'print(cpu, open("/proc/self/status").read().partition("VmHWM:")[2].split()[0])'
_POLLING_OBSERVER = f"""
import queue, sys, time
from watchdog.observers.api import ObservedWatch
from watchdog.observers.polling import PollingEmitter
emitter = PollingEmitter(queue.Queue(), ObservedWatch(sys.argv[1], recursive=True), timeout=0)
emitter.on_thread_start()
start = time.process_time()
emitter.queue_events(0)
cpu = time.process_time() - start
{_REPORT}
"""
_FULL_SCAN = f"""
import os, sys, time
start = time.process_time()
stack = [sys.argv[1]]
while stack:
    with os.scandir(stack.pop()) as entries:
        for entry in entries:
            if entry.is_dir(follow_symlinks=False):
                stack.append(entry.path)
            else:
                os.stat(entry.path)
cpu = time.process_time() - start
{_REPORT}
"""
_FIND = """
import resource, subprocess, sys
subprocess.run(["find", sys.argv[1], "-type", "f", "-printf", "%s %T@\\n"], check=True, stdout=subprocess.DEVNULL)
used = resource.getrusage(resource.RUSAGE_CHILDREN)
print(used.ru_utime + used.ru_stime, used.ru_maxrss)
"""


@dataclass
class Row:
    """Processor seconds of each cycle, and the peak of memory in MiB."""

    cycles: list[float]
    memory: float
    notes: list[str] = field(default_factory=list)


@contextlib.contextmanager
def tmpfs() -> Iterator[str]:
    """A tmpfs of its own, without a limit on inodes: a million hard links count as a million."""
    with tempfile.TemporaryDirectory(prefix="webpd-poll-") as folder:
        subprocess.run(["mount", "-t", "tmpfs", "-o", "size=4g,nr_inodes=0", "tmpfs", folder], check=True)
        try:
            yield folder
        finally:
            subprocess.run(["umount", "-l", folder], check=True)


def lay_out(root: str, folders: Sequence[str], originals: int) -> None:
    """Make a converted tree: that many images, as evenly as can be in the folders, which are relative to ``root``."""
    files = os.path.dirname(root)
    picture = jpeg(thumbnail(photographs()["coffee"], 50))
    for name, data in (("image", picture), ("sidecar", picture[: len(picture) // 2])):
        with open(os.path.join(files, name), "wb") as file:
            file.write(data)
        os.utime(os.path.join(files, name), (LONG_AGO, LONG_AGO))
    image, sidecar = os.path.join(files, "image"), os.path.join(files, "sidecar")
    for index, folder in enumerate(folders):
        place = os.path.join(root, folder)
        os.makedirs(place)
        for number in range(originals * index // len(folders), originals * (index + 1) // len(folders)):
            path = f"{place}/{number:07}.jpg"
            os.link(image, path)
            os.link(sidecar, f"{path}.webp")


def peer(program: str, root: str, cycles: int) -> Row:
    """Run one of the programs above."""
    runs = []
    for _ in range(cycles):
        line = [sys.executable, "-c", program, root]
        runs.append(subprocess.run(line, check=True, capture_output=True, text=True).stdout.split())
    return Row([float(cpu) for cpu, _ in runs], max(int(memory) for _, memory in runs) / 1024)


class Service:
    """``webpd run`` over one root."""

    def __init__(self, root: str, state: str, watch: str) -> None:
        self._health = f"127.0.0.1:{free_port()}"
        environment = os.environ | {
            "WEBPD_OWNER": "keep",
            "WEBPD_WATCH": watch,
            "WEBPD_STATE_DIR": state,
            "WEBPD_HEALTH_ADDRESS": self._health,
            "WEBPD_METRICS_ADDRESS": f"127.0.0.1:{free_port()}",
            "WEBPD_HINT_SOCKET": "off",
        }
        self.started = time.perf_counter()
        self.process = subprocess.Popen([WEBPD, "run", root], env=environment, stderr=subprocess.DEVNULL)

    def root(self) -> Any:
        """What /health says of the root; None while nobody answers."""
        if self.process.poll() is not None:
            raise SystemExit(f"webpd run ended with {self.process.returncode}")
        try:
            with urllib.request.urlopen(f"http://{self._health}/health", timeout=60) as answer:
                return json.load(answer)["roots"][0]
        except OSError:
            return None

    def wait(self, cycles: int, *, settled: bool = False, every: float = 0.1) -> float:
        """Wait for that many polling cycles since the start; the seconds since the start."""
        while True:
            root = self.root()
            if root and root["cycles"] >= cycles and not (settled and root["unsettled"]):
                return time.perf_counter() - self.started
            time.sleep(every)

    def cpu(self) -> float:
        """Seconds of processor time of the main process so far."""
        with open(f"/proc/{self.process.pid}/stat", encoding="utf-8") as file:
            fields = file.read().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / TICK

    def memory(self, what: str) -> float:
        """VmRSS or VmHWM of the main process, in MiB."""
        with open(f"/proc/{self.process.pid}/status", encoding="utf-8") as file:
            return int(file.read().partition(f"{what}:")[2].split()[0]) / 1024

    def stop(self) -> None:
        self.process.terminate()
        self.process.wait()


def measure(root: str, watch: str, cycles: int) -> Row:
    """The service's first pass, its idle cycles, and its restart."""
    with tempfile.TemporaryDirectory(prefix="webpd-poll-state-") as state:
        one = Service(root, state, watch)
        first = one.wait(1, settled=True)
        before = one.root()
        used = []
        at = before["cycles"] + 2  # a directory that was young when it was listed is listed once more
        one.wait(at, settled=True, every=_SELDOM)
        for cycle in range(cycles):
            start = one.cpu()
            one.wait(at + cycle + 1, every=_SELDOM)
            used.append(one.cpu() - start)
        after = one.root()
        row = Row(used, one.memory("VmHWM"))
        row.notes.append(
            f"first pass {first:.1f} s, {after['directories']:,} directories, {after['images']:,} images,"
            f" {after['watches']:,} watches; resident when idle {one.memory('VmRSS'):.0f} MiB"
        )
        one.stop()
        one = Service(root, state, watch)
        while not one.root():
            time.sleep(0.01)
        ready = time.perf_counter() - one.started
        looked = one.wait(1)
        while one.root()["watches"] < after["watches"]:
            time.sleep(0.1)
        watched = time.perf_counter() - one.started
        row.notes.append(
            f"restarted: answers after {ready:.2f} s, has looked at every directory after {looked:.2f} s,"
            f" has set all watches after {watched:.2f} s; listed {one.root()['listed']:,};"
            f" peak {one.memory('VmHWM'):.0f} MiB"
        )
        one.stop()
    return row


def table(title: str, rows: dict[str, Row]) -> str:
    """The results as a Markdown table, and what else is to be told of the service."""
    lines = [f"### {title}", "", "| | s of a core a cycle | each | peak memory, MiB |", "|---|--:|---|--:|"]
    for name, row in rows.items():
        each = ", ".join(f"{cycle:.2f}" for cycle in row.cycles)
        lines.append(f"| {name} | {sorted(row.cycles)[len(row.cycles) // 2]:.2f} | {each} | {row.memory:.0f} |")
    notes = [f"- {name}: {note}." for name, row in rows.items() for note in row.notes]
    return "\n".join([*lines, "", *notes]) + "\n"


def main() -> None:
    """Lay out both trees, one after the other, measure, print the tables, and leave them in bench/out."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--files", type=int, default=1_000_000, help="files of the first tree (default 1,000,000)")
    parser.add_argument("--directories", type=int, default=40_000, help="its directories (default 40,000)")
    parser.add_argument("--single", type=int, default=300_000, help="images of the second tree (default 300,000)")
    parser.add_argument("--cycles", type=int, default=3, help="cycles measured (default 3)")
    parser.add_argument("--watch", default="auto", choices=("auto", "poll"), help="WEBPD_WATCH (default auto)")
    options = parser.parse_args()
    os.makedirs(OUT, exist_ok=True)
    many = [f"{number % 200:03}/{number}" for number in range(options.directories)]
    single = [f"{number % 200:03}/{number}/300_300_1" for number in range(options.single)]
    text = ""
    for title, folders, originals in (
        (f"{options.files:,} files in {len(many):,} directories", many, options.files // 2),
        (f"{len(single):,} images in {2 * len(single):,} directories", single, len(single)),
    ):
        print(title, file=sys.stderr)
        with tmpfs() as folder:
            root = os.path.join(folder, "tree")
            lay_out(root, folders, originals)
            rows = {"webpd run": measure(root, options.watch, options.cycles)}
            for name, program in (
                ("PollingObserver", _POLLING_OBSERVER),
                ("full scan", _FULL_SCAN),
                ("find", _FIND),
            ):
                rows[name] = peer(program, root, options.cycles)
        text += table(title, rows) + "\n"
    with open(os.path.join(OUT, "poll.md"), "w", encoding="utf-8") as file:
        file.write(text)
    print(text)


if __name__ == "__main__":
    main()
