"""What the tests of the isolation share: pictures, a pool whose processes can be poisoned, and what is left of it."""

import io
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from functools import cache

from tests.pictures import pixels
from webpd.convert.converter import ImageConverter
from webpd.convert.frames import Limits
from webpd.convert.pool import CodecPool
from webpd.convert.result import Converted
from webpd.model import Encoding

POISONED = (sys.executable, "-I", os.path.join(os.path.dirname(os.path.abspath(__file__)), "poisoned.py"))
ENCODING = Encoding(quality=80, method=2)
LIMITS = Limits(max_pixels=10_000_000, worker_memory=512 << 20, job_timeout=60.0)


@cache
def pictures() -> tuple[bytes, ...]:
    """Return a few thumbnails of a real photograph, JPEG and PNG."""
    sources = []
    for size, kind in ((120, "JPEG"), (160, "PNG"), (200, "JPEG"), (80, "PNG")):
        stream = io.BytesIO()
        pixels("astronaut.png", size, size).save(stream, kind)
        sources.append(stream.getvalue())
    return tuple(sources)


@cache
def converted(source: bytes) -> Converted:
    """Return what the converter makes of the source in this process."""
    return ImageConverter(ENCODING, LIMITS.max_pixels).convert(source)


def poisoned_pool(workers: int = 1, limits: Limits = LIMITS, switches: Sequence[str] = ()) -> CodecPool:
    """Return a pool whose processes do what a source says."""
    return CodecPool(ENCODING, limits, workers, (*POISONED, *switches))


def poison(deed: str, argument: object = "") -> bytes:
    """Return a source that does the deed."""
    return f"poison:{deed}:{argument}".encode()


def until(condition: Callable[[], object]) -> None:
    """Wait for the condition. What never comes true is ended by whoever runs the tests."""
    while not condition():
        time.sleep(0.005)


def worker_ids(pool: CodecPool) -> list[int]:
    """Return the ids of the pool's living processes."""
    return [worker.process.pid for worker in tuple(pool._workers)]


def in_line(pool: CodecPool) -> int:
    """Return how many jobs the pool's processes have."""
    return sum(worker.load for worker in tuple(pool._workers))


def run_before_neighbours(pool: CodecPool, source: bytes) -> Future[Converted]:
    """Run a source in a pool of one process, with a neighbour already waiting in its pipe and more behind.

    Return its future, done, when every neighbour has come out right.
    """
    pool.ready()
    (process,) = worker_ids(pool)
    with ThreadPoolExecutor() as threads:
        os.kill(process, signal.SIGSTOP)
        mine = threads.submit(pool.convert, source)
        until(lambda: in_line(pool) == 1)
        neighbours = {pictures()[0]: threads.submit(pool.convert, pictures()[0])}
        until(lambda: in_line(pool) == 2)
        neighbours |= {other: threads.submit(pool.convert, other) for other in pictures()[1:]}
        os.kill(process, signal.SIGCONT)
        for neighbour, future in neighbours.items():
            assert future.result() == converted(neighbour)
        mine.exception()
    return mine


def _stat(process: int) -> list[str]:
    """Return the fields of /proc/PID/stat from the state on (proc_pid_stat(5)), none without such a process."""
    try:
        with open(f"/proc/{process}/stat", encoding="utf-8") as stat:
            return stat.read().rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return []


def runs(process: int) -> bool:
    """Say whether the process exists and has not ended."""
    return _stat(process)[:1] not in ([], ["Z"])


def children() -> set[int]:
    """Return the ids of this process's children, ended ones not yet reaped included."""
    processes = [int(name) for name in os.listdir("/proc") if name.isdigit()]
    return {process for process in processes if _stat(process)[1:2] == [str(os.getpid())]}


def belongings() -> tuple[int, int, set[int]]:
    """Return how many descriptors and threads this process has, and its children."""
    return len(os.listdir("/proc/self/fd")), threading.active_count(), children()
