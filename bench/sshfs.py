"""How fast images are converted over SSHFS with a long round trip, and with how many calls.

    python -m bench.sshfs [--images 150] [--rtt 20] [--rounds 3] [--directories 150,12,1] [--mount OPTIONS]

A real sshd and a real sshfs mount on this machine, each byte held back for half the round trip in each direction
(``tests/lab.py``). Contenders, on the same mount, with the same quality and method, each on a copy of the same files:

- ``run``: ``webpd run --once``, the service's first pass, with the time that it lets files settle;
- ``convert``: ``webpd convert``;
- ``xargs``: ``find | xargs -P2 cwebp``, what administrators write by hand.

All run once in every round, in turns forwards and backwards; ratios are taken within a round. The speed is that of the
whole command; the pace leaves out what comes before the first sidecar and after the last (starting, looking, settling,
making sure). Calls are the requests that the SFTP server logged in that time, for each image.
"""

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from bench.pictures import lay_out
from tests.lab import SshfsLab, free_port, sshfs_lab

OUT = os.path.join(os.path.dirname(os.path.abspath(__file__)), "out")
WEBPD = os.path.join(os.path.dirname(sys.executable), "webpd")
CONTENDERS = ("run", "convert", "xargs")


@dataclass(frozen=True)
class Run:
    """Wall-clock seconds, of these those from the first sidecar to the last, and the calls by kind."""

    seconds: float
    working: float
    calls: Counter[str]


def command(name: str, tree: str, options: argparse.Namespace) -> list[str]:
    """The contender's command line."""
    settings = ["--quality", str(options.quality), "--method", str(options.method)]
    if name == "run":
        return [WEBPD, "run", "--once", tree]
    if name == "convert":
        return [WEBPD, "convert", "--owner", "keep", *settings, "--json", tree]
    encode = f"cwebp -quiet -q {options.quality} -m {options.method} % -o %.webp"
    return ["sh", "-c", f'find "$0" -type f -name "*.jpg" -print0 | xargs -0 -P2 -I% {encode}', tree]


def measure(lab: SshfsLab, name: str, tree: str, state: str, options: argparse.Namespace) -> Run:
    """Run one contender on the folder ``tree`` of the mount."""
    environment = os.environ | {
        "WEBPD_QUALITY": str(options.quality),
        "WEBPD_METHOD": str(options.method),
        "WEBPD_OWNER": "keep",
        "WEBPD_STATE_DIR": state,
        "WEBPD_HEALTH_ADDRESS": f"127.0.0.1:{free_port()}",
        "WEBPD_METRICS_ADDRESS": f"127.0.0.1:{free_port()}",
    }
    before, start = lab.calls(), time.perf_counter()
    line = command(name, os.path.join(lab.mnt, tree), options)
    done = subprocess.run(line, env=environment, check=False, capture_output=True, text=True)
    seconds = time.perf_counter() - start
    times = [path.stat().st_ctime for path in (lab.origin / tree).rglob("*.webp")]
    if done.returncode or len(times) != options.images:
        raise SystemExit(f"{name} made {len(times)} of {options.images}, ended with {done.returncode}:\n{done.stderr}")
    return Run(seconds, max(times) - min(times), lab.calls() - before)


def race(lab: SshfsLab, template: Path, directories: int, options: argparse.Namespace) -> list[dict[str, Run]]:
    """All contenders in every round, each on a copy of the template's files in that many directories."""
    rounds = []
    for turn in range(options.rounds):
        runs = {}
        for name in CONTENDERS if turn % 2 == 0 else reversed(CONTENDERS):
            tree = f"{directories}-{turn}-{name}"
            for number, path in enumerate(sorted(template.rglob("*.jpg"))):
                folder = lab.origin / tree / f"{number % directories:05}"
                folder.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(path, folder / path.name)
            with tempfile.TemporaryDirectory(prefix="webpd-bench-state-") as state:
                runs[name] = measure(lab, name, tree, state, options)
            print(f"  {directories} directories, round {turn + 1}, {name}: {runs[name].seconds:.1f} s", file=sys.stderr)
        rounds.append(runs)
    return rounds


def table(directories: int, rounds: list[dict[str, Run]], images: int) -> str:
    """The results as a Markdown table."""
    lines = [
        f"### {images} JPEGs in {directories} director{'ies' if directories > 1 else 'y'}",
        "",
        "| contender | images/s, median | ÷ xargs, each round | median | pace | ÷ xargs | calls an image | which |",
        "|---|--:|---|--:|--:|--:|--:|---|",
    ]
    for name in CONTENDERS:
        speed = statistics.median(images / runs[name].seconds for runs in rounds)
        pace = statistics.median((images - 1) / runs[name].working for runs in rounds)
        paces = statistics.median(runs["xargs"].working / runs[name].working for runs in rounds)
        ratios = [runs["xargs"].seconds / runs[name].seconds for runs in rounds]
        calls: Counter[str] = Counter()
        for runs in rounds:
            calls += runs[name].calls
        total = images * len(rounds)
        which = ", ".join(f"{kind} {count / total:.2f}" for kind, count in calls.most_common())
        lines.append(
            f"| {name} | {speed:.1f} | {', '.join(f'{ratio:.2f}' for ratio in ratios)} |"
            f" **{statistics.median(ratios):.2f}** | {pace:.1f} | {paces:.2f} | {calls.total() / total:.1f} | {which} |"
        )
    return "\n".join(lines) + "\n"


def main() -> None:
    """Measure, print the tables, and leave them in bench/out."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=150, help="JPEG thumbnails (default 150)")
    parser.add_argument("--rtt", type=float, default=20, help="round trip in milliseconds (default 20)")
    parser.add_argument("--rounds", type=int, default=3, help="rounds (default 3)")
    parser.add_argument("--directories", default="150,12,1", help="layouts (default 150,12,1)")
    parser.add_argument("--mount", default="ServerAliveInterval=15", help="options of the mount, comma-separated")
    parser.add_argument("--quality", type=int, default=80)
    parser.add_argument("--method", type=int, default=4)
    options = parser.parse_args()
    missing = [program for program in ("cwebp", "sshfs", "ssh", "ssh-keygen") if not shutil.which(program)]
    if missing:
        raise SystemExit(f"missing: {', '.join(missing)}: apt-get install webp sshfs openssh-server")
    os.makedirs(OUT, exist_ok=True)
    text = (
        f"SSHFS on loopback ({options.mount}), round trip {options.rtt:g} ms, {len(os.sched_getaffinity(0))} cores,"
        f" quality {options.quality}, method {options.method}.\n\n"
    )
    results = {}
    with tempfile.TemporaryDirectory(prefix="webpd-bench-") as work:
        template = Path(work, "template")
        lay_out(str(template), options.images, "jpg", None)
        with sshfs_lab(Path(work, "lab"), options.rtt / 1000, options.mount.split(","), count=True) as lab:
            for directories in map(int, options.directories.split(",")):
                results[directories] = race(lab, template, directories, options)
                text += table(directories, results[directories], options.images) + "\n"
    with open(os.path.join(OUT, "sshfs.md"), "w", encoding="utf-8") as file:
        file.write(text)
    with open(os.path.join(OUT, "sshfs.json"), "w", encoding="utf-8") as file:
        json.dump(results, file, default=vars, indent=1)
    print(text)


if __name__ == "__main__":
    main()
