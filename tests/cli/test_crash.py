"""What SIGKILL, SIGTERM and Ctrl-C leave behind: nothing half-done, and nothing that the next run does not finish."""

import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.conftest import WEBPD, Ended, descendants, write

READER = """
import os, sys, threading
from PIL import Image
root, ended = sys.argv[1], threading.Event()
threading.Thread(target=lambda: (sys.stdin.read(), ended.set()), daemon=True).start()
seen, bad = 0, []
while not ended.is_set():
    for folder, _, names in os.walk(root):
        for name in names:
            if name.endswith(".webp"):
                try:
                    with open(os.path.join(folder, name), "rb") as file, Image.open(file) as picture:
                        picture.load()
                    seen += 1
                except FileNotFoundError:
                    pass
                except Exception as error:
                    bad.append(f"{name}: {error}")
print(seen)
print(*bad, sep="\\n")
"""


class Reader:
    """A process that goes on decoding every .webp of a tree."""

    def __init__(self, root: Path) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-c", READER, str(root)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )

    def end(self) -> tuple[int, list[str]]:
        """Return how many files were decoded and what was wrong with others."""
        seen, *bad = self._process.communicate()[0].splitlines()
        return int(seen), [line for line in bad if line]


@pytest.fixture
def started() -> Iterator[Callable[..., subprocess.Popen[str]]]:
    """Return a function that starts the command; whatever is still there at the end is ended."""
    processes: list[subprocess.Popen[str]] = []
    # A shell starts what it runs in the background with SIGINT ignored, and children would inherit that.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)

    def start(*arguments: object) -> subprocess.Popen[str]:
        command = [*WEBPD, *map(str, arguments)]
        processes.append(subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True))
        return processes[-1]

    yield start
    signal.signal(signal.SIGINT, before)
    for process in processes:
        process.kill()
        process.communicate()


def wait_until(condition: Callable[[], bool], process: subprocess.Popen[str] | None = None) -> None:
    """Wait for the condition, or until the process ends, or fail."""
    give_up = time.monotonic() + 60
    while not condition():
        if process is not None and process.poll() is not None:
            return
        assert time.monotonic() < give_up, "waited for a minute"
        time.sleep(0.002)


def wait_for_sidecars(tree: Path, count: int, process: subprocess.Popen[str]) -> None:
    wait_until(lambda: len(sidecars(tree)) >= count, process)


def wait_for_end(pids: set[int]) -> None:
    wait_until(lambda: not alive(pids))


def sidecars(root: Path) -> list[Path]:
    return list(root.rglob("*.webp"))


def alive(pids: set[int]) -> set[int]:
    """Return those that still run (a zombie has ended)."""
    return {pid for pid in pids if os.path.exists(f"/proc/{pid}") and _state(pid) != "Z"}


def _state(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/stat").read_text("utf-8", "replace").rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return "Z"


@pytest.fixture
def tree(tmp_path: Path, photograph: Callable[..., bytes]) -> Path:
    root = tmp_path / "tree"
    data = [photograph(width, name) for width in (120, 180, 240, 320) for name in ("coffee.png", "astronaut.png")]
    for number in range(96):
        write(root / f"{number % 8}" / f"{number}.jpg", data[number % len(data)])
    return root


def test_sigkill_at_any_moment_leaves_no_broken_picture_no_temporary_file_and_no_process(
    tree: Path, started: Callable[..., subprocess.Popen[str]], webpd: Callable[..., Ended], prove: bool
) -> None:
    seed = random.randrange(2**32)
    chance = random.Random(seed)
    print(f"seed {seed}")
    reader = Reader(tree)
    for _ in range(30 if prove else 5):
        for sidecar in sidecars(tree):
            sidecar.unlink()
        process = started("convert", tree)
        wait_for_sidecars(tree, chance.randrange(96), process)
        workers = descendants(process.pid)
        process.kill()
        process.wait()
        wait_for_end(workers)
        done = webpd("convert", "--json", tree)
        assert (done.code, done.json["found"], done.json["failed_total"]) == (0, 96, 0)
        assert len(sidecars(tree)) == 96
        assert not list(tree.rglob(".webpd*"))
    seen, bad = reader.end()
    assert not bad
    assert seen > 100
    assert webpd("verify", tree).code == 0


def test_a_temporary_file_left_by_sigkill_is_removed_by_the_next_run(
    tree: Path, started: Callable[..., subprocess.Popen[str]], webpd: Callable[..., Ended]
) -> None:
    process = started("convert", tree)
    wait_for_sidecars(tree, 4, process)
    host = Path(f"/proc/{process.pid}/stat").read_text("utf-8").rpartition(")")[2].split()[19]
    process.send_signal(signal.SIGSTOP)
    from webpd.tree.publisher import _host  # noqa: PLC0415 - the name as that very process gives it

    left = write(tree / "0" / f".webpd-{_host()}-{process.pid}-{host}-999.tmp", b"half")
    assert webpd("convert", tree).code == 0
    assert left.exists()  # its writer is stopped, not dead
    process.kill()
    process.wait()
    assert webpd("convert", tree).code == 0
    assert not list(tree.rglob(".webpd*"))


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupt_ends_cleanly_with_the_summary_so_far(
    number: signal.Signals,
    tree: Path,
    started: Callable[..., subprocess.Popen[str]],
    webpd: Callable[..., Ended],
) -> None:
    process = started("convert", "--json", tree)
    wait_for_sidecars(tree, 4, process)
    workers = descendants(process.pid)
    process.send_signal(number)
    out, err = process.communicate()
    told = json.loads(out)
    assert (process.returncode, err) == (130, "")
    assert told["interrupted"] is True
    assert told["found"] == told["converted"] == len(sidecars(tree)) < 96
    assert not list(tree.rglob(".webpd*"))
    assert not alive(workers)
    assert webpd("convert", "--json", tree).json["found"] == 96


def test_an_interrupt_of_the_whole_group_as_a_terminal_sends_it_harms_no_image(
    tree: Path, started: Callable[..., subprocess.Popen[str]]
) -> None:
    process = started("convert", "--json", tree)
    wait_for_sidecars(tree, 4, process)
    for pid in {process.pid} | descendants(process.pid):
        os.kill(pid, signal.SIGINT)
    out, _ = process.communicate()
    assert process.returncode == 130
    assert json.loads(out)["failed_total"] == 0


def test_a_stopped_codec_process_costs_nothing_but_its_time_when_the_pass_is_interrupted(
    tree: Path, started: Callable[..., subprocess.Popen[str]]
) -> None:
    process = started("convert", "--json", tree)
    wait_for_sidecars(tree, 4, process)
    workers = descendants(process.pid)
    for pid in workers:
        os.kill(pid, signal.SIGSTOP)
    process.send_signal(signal.SIGINT)
    out, _ = process.communicate()
    assert process.returncode == 130
    assert json.loads(out)["failed_total"] == 0
    assert not alive(workers)
    assert not list(tree.rglob(".webpd*"))
