"""How fast a tree is converted, against the bare codec and against peers, on the same files.

    python -m bench.throughput [--images 3000] [--pairs 5] [--quality 80] [--method 4] [--only webpd,bare]

Contenders, each at the same quality and method, start-up included:

- ``webpd``: ``webpd convert --json``, sandbox and all;
- ``bare``: the limit. Pillow's decode and encode of the same bytes, in memory, in one process per core, forked and
  loaded with the files before the clock starts;
- ``sharp``: bench/sharp.mjs, libvips from npm, which reads and writes files;
- ``xargs``: ``find | xargs cwebp``.

Each run gets a fresh copy of the tree, made and synced outside the clock, and its .webp files are counted afterwards.
In every round all contenders run once, in turns forwards and backwards; ratios are taken within a round.
"""

import argparse
import compileall
import io
import json
import multiprocessing
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass

import PIL
from bench.pictures import lay_out
from matplotlib.figure import Figure
from PIL import Image, features

import webpd as webpd_package

HERE = os.path.dirname(os.path.abspath(__file__))
OUT = os.path.join(HERE, "out")
WEBPD = os.path.join(os.path.dirname(sys.executable), "webpd")
CORES = len(os.sched_getaffinity(0))


@dataclass(frozen=True)
class Run:
    """One contender's run: wall-clock seconds, and how many .webp files of how many bytes it left."""

    seconds: float
    files: int
    bytes: int


def sources_below(tree: str) -> list[str]:
    """Paths of all JPEGs and PNGs."""
    return [
        os.path.join(folder, name) for folder, _, names in os.walk(tree) for name in names if not name.endswith(".webp")
    ]


def timed_command(command: list[str], tree: str) -> Run:
    """Run a command that leaves .webp files below ``tree``."""
    start = time.perf_counter()
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    seconds = time.perf_counter() - start
    sizes = [
        os.path.getsize(os.path.join(folder, name))
        for folder, _, names in os.walk(tree)
        for name in names
        if name.endswith(".webp")
    ]
    return Run(seconds, len(sizes), sum(sizes))


def webpd(tree: str, quality: int, method: int) -> Run:
    """Our command."""
    settings = ["--quality", str(quality), "--method", str(method), "--workers", str(CORES)]
    return timed_command([WEBPD, "convert", *settings, "--json", tree], tree)


def sharp(tree: str, quality: int, method: int) -> Run:
    """The npm package."""
    return timed_command(["node", os.path.join(HERE, "sharp.mjs"), tree, str(quality), str(method), str(CORES)], tree)


def xargs(tree: str, quality: int, method: int) -> Run:
    """What administrators write by hand: a cwebp process for each file."""
    line = (
        'find "$0" -type f \\( -name "*.jpg" -o -name "*.png" \\) -print0 |'
        f" xargs -0 -P{CORES} -I% cwebp -quiet -q {quality} -m {method} % -o %.webp"
    )
    return timed_command(["sh", "-c", line, tree], tree)


def bare(tree: str, quality: int, method: int) -> Run:
    """Pillow alone on all cores, with nothing to read and nothing to write."""
    data = []
    for path in sources_below(tree):
        with open(path, "rb") as file:
            data.append(file.read())
    context = multiprocessing.get_context("fork")
    ready, go = context.Semaphore(0), context.Event()
    next_index, made = context.Value("i", 0), context.Array("q", 2 * CORES)

    def work(core: int) -> None:
        ready.release()
        go.wait()
        while True:
            with next_index.get_lock():
                index = next_index.value
                next_index.value += 1
            if index >= len(data):
                return
            buffer = io.BytesIO()
            Image.open(io.BytesIO(data[index])).save(buffer, "WEBP", quality=quality, method=method)
            made[2 * core] += 1
            made[2 * core + 1] += buffer.tell()

    processes = [context.Process(target=work, args=(core,)) for core in range(CORES)]
    Image.init()
    for process in processes:
        process.start()
    for _ in processes:
        ready.acquire()
    start = time.perf_counter()
    go.set()
    for process in processes:
        process.join()
    return Run(time.perf_counter() - start, sum(made[0::2]), sum(made[1::2]))


CONTENDERS: dict[str, Callable[[str, int, int], Run]] = {"webpd": webpd, "bare": bare, "sharp": sharp, "xargs": xargs}


def prepare(names: list[str]) -> str:
    """Install what the peers need, and give the versions of everything that encodes."""
    missing = [
        package
        for package, program, needed in (
            ("webp", "cwebp", "xargs" in names),
            ("nodejs", "node", "sharp" in names),
            ("npm", "npm", "sharp" in names),
        )
        if needed and not shutil.which(program)
    ]
    if missing:
        raise SystemExit(f"These programs are measured against and missing: apt-get install {' '.join(missing)}")
    compileall.compile_dir(webpd_package.__path__[0], quiet=1)  # as installers do
    versions = [f"webpd and bare: Pillow {PIL.__version__}, libwebp {features.version('webp')}"]
    if "sharp" in names:
        print("npm install (sharp)", file=sys.stderr)
        subprocess.run(["npm", "install", "--no-audit", "--no-fund", "--no-package-lock"], cwd=HERE, check=True)
        node = ["node", os.path.join(HERE, "sharp.mjs"), "--versions"]
        versions.append(subprocess.run(node, check=True, capture_output=True, text=True).stdout.strip())
    if "xargs" in names:
        shown = subprocess.run(["cwebp", "-version"], check=True, capture_output=True, text=True).stdout.split()[0]
        versions.append(f"cwebp (Debian): libwebp {shown}")
    return "; ".join(versions)


def race(names: list[str], template: str, pairs: int, quality: int, method: int, work: str) -> list[dict[str, Run]]:
    """All contenders ``pairs`` times, each on a copy of ``template``."""
    rounds = []
    for turn in range(pairs):
        runs = {}
        for name in names if turn % 2 == 0 else reversed(names):
            # Trees stay until the end: a file system may search for long to avoid the inodes of files just deleted.
            tree = os.path.join(work, f"tree-{turn}-{name}")
            shutil.copytree(template, tree)
            os.sync()
            runs[name] = CONTENDERS[name](tree, quality, method)
            print(f"  round {turn + 1} {name}: {runs[name]}", file=sys.stderr)
        rounds.append(runs)
    return rounds


def ratios(rounds: list[dict[str, Run]], name: str) -> list[float]:
    """The speed of the first contender as a multiple of another's, in each round."""
    first = next(iter(rounds[0]))
    return [runs[name].seconds / runs[first].seconds for runs in rounds]


def table(title: str, rounds: list[dict[str, Run]], images: int, source_bytes: int) -> str:
    """The results as a Markdown table."""
    first = next(iter(rounds[0]))
    lines = [
        f"### {title}",
        "",
        f"| contender | images/s, median | {first} ÷ it, each round | median | .webp files | bytes ÷ source |",
        "|---|--:|---|--:|--:|--:|",
    ]
    for name in rounds[0]:
        runs, times = [r[name] for r in rounds], ratios(rounds, name)
        speed = statistics.median(images / run.seconds for run in runs)
        lines.append(
            f"| {name} | {speed:.1f} | {', '.join(f'{t:.3f}' for t in times)} | **{statistics.median(times):.3f}**"
            f" | {runs[-1].files} | {runs[-1].bytes / source_bytes:.3f} |"
        )
    return "\n".join(lines) + "\n"


def plot(path: str, results: dict[str, list[dict[str, Run]]]) -> None:
    """The ratios of every round, one panel for each kind of file."""
    figure = Figure(figsize=(5.5 * len(results), 4), layout="tight")
    panels = figure.subplots(1, len(results), squeeze=False)[0]
    for panel, (title, rounds) in zip(panels, results.items(), strict=True):
        names = list(rounds[0])
        for place, name in enumerate(names):
            times = ratios(rounds, name)
            panel.barh(place, statistics.median(times), color="tab:blue", alpha=0.5)
            panel.plot(times, [place] * len(times), "k.")
        panel.set_yticks(range(len(names)), names)
        panel.axvline(1, color="black", linewidth=0.8)
        panel.set(title=title, xlabel=f"speed of {names[0]} ÷ speed of it (dots: rounds)")
    figure.savefig(path)


def main() -> None:
    """Measure, print the tables, and leave them and the plot in bench/out."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=3000, help="JPEG thumbnails (default 3000)")
    parser.add_argument("--pngs", type=int, default=0, help="PNG thumbnails (default: a third of the JPEGs)")
    parser.add_argument("--pairs", type=int, default=5, help="rounds (default 5)")
    parser.add_argument("--quality", type=int, default=80)
    parser.add_argument("--method", type=int, default=4)
    parser.add_argument("--photos", help="a folder of further photographs")
    parser.add_argument("--only", default=",".join(CONTENDERS), help=f"contenders (default {','.join(CONTENDERS)})")
    options = parser.parse_args()
    names = [name for name in CONTENDERS if name in options.only.split(",")]
    versions = prepare(names)
    os.makedirs(OUT, exist_ok=True)
    text = f"{CORES} cores, quality {options.quality}, method {options.method}. {versions}.\n\n"
    results = {}
    for kind, number in (("jpg", options.images), ("png", options.pngs or max(1, options.images // 3))):
        with tempfile.TemporaryDirectory(prefix="webpd-bench-") as work:
            template = os.path.join(work, "template")
            source_bytes = lay_out(template, number, kind, options.photos)
            title = f"{number} {kind.upper()} thumbnails, {source_bytes / 1e6:.0f} MB"
            print(title, file=sys.stderr)
            rounds = race(names, template, options.pairs, options.quality, options.method, work)
        results[title] = rounds
        text += table(title, rounds, number, source_bytes) + "\n"
    with open(os.path.join(OUT, "throughput.md"), "w", encoding="utf-8") as file:
        file.write(text)
    with open(os.path.join(OUT, "throughput.json"), "w", encoding="utf-8") as file:
        json.dump(results, file, default=vars, indent=1)
    plot(os.path.join(OUT, "throughput.png"), results)
    print(text)


if __name__ == "__main__":
    main()
