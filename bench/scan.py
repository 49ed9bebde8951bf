"""How long it takes to see that a tree needs nothing, and how much memory: ``webpd convert`` against ``find``.

    python -m bench.scan [--entries 1000000] [--pairs 3]

The tree has a directory for every 25 entries; the others are originals and their sidecars in equal number. A few small
pictures are really converted by ``webpd convert``; all others are hard links to them and to their sidecars, so names,
times and sizes are right and the tree takes little room. In every round both run once, in turns forwards and backwards.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile

from bench.pictures import jpeg, photographs, thumbnail

HERE = os.path.dirname(os.path.abspath(__file__))
OUT = os.path.join(HERE, "out")
WEBPD = os.path.join(os.path.dirname(sys.executable), "webpd")
IN_A_DIRECTORY = 25
LINKS = 10_000  # ext4 allows 65,000 of one file


def lay_out(root: str, entries: int) -> int:
    """A converted tree of ``entries`` files and directories below ``root``; how many originals it has."""
    directories = max(1, entries // IN_A_DIRECTORY)
    originals = (entries - directories) // 2
    picture = jpeg(thumbnail(photographs()["coffee"], 100))
    seeds = -(-originals // LINKS)
    for seed in range(seeds):
        place = os.path.join(root, "iblock", f"{seed:05x}", "100_100_1")
        os.makedirs(place)
        with open(os.path.join(place, "seed.jpg"), "wb") as file:
            file.write(picture)
    subprocess.run([WEBPD, "convert", "--json", root], check=True, stdout=subprocess.DEVNULL)
    made = seeds
    per_directory = -(-(originals - seeds) // max(1, directories - seeds))
    number = 0
    while made < originals:
        original = os.path.join(root, "iblock", f"{made // LINKS:05x}", "100_100_1", "seed.jpg")
        folder = os.path.join(root, "iblock", f"{number:05x}", "300_300_1")
        os.makedirs(folder)
        for index in range(min(per_directory, originals - made)):
            name = os.path.join(folder, f"picture-{index:03d}.jpg")
            os.link(original, name)
            os.link(f"{original}.webp", f"{name}.webp")
            made += 1
        number += 1
    return originals


# A child's ru_maxrss starts at what its parent had in memory, so a small process stands between.
_WAIT = """
import os, sys, time
start = time.perf_counter()
pid = os.posix_spawnp(sys.argv[1], sys.argv[1:], os.environ)
_, status, usage = os.wait4(pid, 0)
print(time.perf_counter() - start, usage.ru_maxrss * 1024, file=sys.stderr)
sys.exit(os.waitstatus_to_exitcode(status))
"""


def run(command: list[str]) -> tuple[float, int, str]:
    """Seconds, peak memory in bytes of the largest process (the kernel's ru_maxrss), and standard output."""
    wait = [sys.executable, "-I", "-S", "-c", _WAIT, *command]
    done = subprocess.run(wait, check=True, capture_output=True, text=True)
    seconds, peak = done.stderr.splitlines()[-1].split()
    return float(seconds), int(peak), done.stdout


def main() -> None:
    """Lay out the tree, measure, print the table, and leave it in bench/out."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--entries", type=int, default=1_000_000, help="files and directories (default 1,000,000)")
    parser.add_argument("--pairs", type=int, default=3, help="rounds (default 3)")
    options = parser.parse_args()
    os.makedirs(OUT, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="webpd-scan-") as root:
        print("laying out the tree", file=sys.stderr)
        originals = lay_out(root, options.entries)
        ours = [WEBPD, "convert", "--json", root]
        find = ["sh", "-c", f"find {root} -type f -printf '%s %T@\\n' >/dev/null"]
        run(find)  # the kernel's caches are warm for all
        times: dict[str, list[float]] = {"webpd": [], "find": []}
        memory: dict[str, list[int]] = {"webpd": [], "find": []}
        for turn in range(options.pairs):
            for name in ("webpd", "find") if turn % 2 == 0 else ("find", "webpd"):
                seconds, peak, output = run(ours if name == "webpd" else find)
                times[name].append(seconds)
                memory[name].append(peak)
                if name == "webpd":
                    summary = json.loads(output)
                    assert summary["found"] == summary["fresh"] == originals, summary
        ratios = [a / b for a, b in zip(times["webpd"], times["find"], strict=True)]
    lines = [
        f"{options.entries} entries, {originals} originals with fresh sidecars, local disk, warm cache.",
        "",
        "| | seconds, median | peak memory, MB |",
        "|---|--:|--:|",
        *(f"| {name} | {statistics.median(times[name]):.2f} | {max(memory[name]) / 1e6:.0f} |" for name in times),
        "",
        f"webpd ÷ find: {', '.join(f'{ratio:.2f}' for ratio in ratios)}; median {statistics.median(ratios):.2f}.",
    ]
    with open(os.path.join(OUT, "scan.md"), "w", encoding="utf-8") as file:
        file.write("\n".join(lines) + "\n")
    print("\n".join(lines))


if __name__ == "__main__":
    main()
