"""Log lines where nobody reads them: whoever logs goes on, and what was lost is told."""

import fcntl
import logging
import os
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.conftest import write
from tests.lab import wait_for
from tests.service.driver import sidecars
from tests.service_parts.mute import Mute
from webpd.telemetry.writer import LineWriter

MOST = 50
IMAGES = 60
"""Each logs a line of some 200 bytes."""
Pipe = tuple[int, int]


@pytest.fixture
def pipe() -> Iterator[Pipe]:
    """A pipe of one page, and nobody who reads it."""
    reading, writing = os.pipe()
    fcntl.fcntl(writing, fcntl.F_SETPIPE_SZ, 4096)
    yield reading, writing
    os.close(reading)
    os.close(writing)


def record(text: str) -> logging.LogRecord:
    return logging.LogRecord("webpd", logging.INFO, __file__, 1, text, None, None)


def read_until(reading: int, end: bytes) -> list[str]:
    """Read until a line has this in it, and return all lines."""
    found = b""
    while end not in found or not found.endswith(b"\n"):
        found += os.read(reading, 1 << 16)
    return found.decode().splitlines()


def test_lines_come_in_order_and_before_the_end(pipe: Pipe) -> None:
    reading, writing = pipe
    writer = LineWriter(writing)
    for number in range(100):
        writer.handle(record(f"{number}"))
    writer.close()
    assert read_until(reading, b"\n99\n") == [str(number) for number in range(100)]


def test_who_logs_into_a_pipe_that_nobody_reads_goes_on_and_what_was_lost_is_counted(pipe: Pipe) -> None:
    reading, writing = pipe
    writer = LineWriter(writing, MOST)
    for number in range(1000):
        writer.handle(record(f"{number} {'x' * 200}"))  # returns at all
    kept: list[int] = []
    lost = 0
    while len(kept) + lost < 1000:
        for line in read_until(reading, b"\n"):
            if "log lines were lost before this one" in line:
                lost += int(line.split()[0])
            else:
                kept.append(int(line.split()[0]))
    assert kept == sorted(kept)
    assert lost
    writer.handle(record("and on it goes"))
    assert read_until(reading, b"goes") == ["and on it goes"]
    writer.close()


def test_a_line_that_cannot_be_written_is_told_in_its_place_and_holds_up_nobody(pipe: Pipe) -> None:
    reading, writing = pipe
    writer = LineWriter(writing)
    writer.handle(logging.LogRecord("webpd.part", logging.INFO, "part.py", 7, "%d images", ("no number",), None))
    (line,) = read_until(reading, b"\n")
    assert line.startswith("a log line of webpd.part at part.py:7 can't be written: TypeError")
    writer.close()


def test_the_end_is_not_held_up_by_a_pipe_that_nobody_reads(pipe: Pipe) -> None:
    reading, writing = pipe
    writer = LineWriter(writing, MOST)
    for _ in range(1000):
        writer.handle(record("x" * 200))
    writer.close()  # returns at all
    os.set_blocking(reading, False)
    wait_for(lambda: _is_drained(reading), "the thread ends once somebody reads")


def test_a_service_whose_log_nobody_reads_goes_on_and_ends_when_it_is_told_to(
    tmp_path: Path, photograph: Callable[..., bytes]
) -> None:
    tree = tmp_path / "tree"
    for number in range(IMAGES):
        write(tree / f"{number}.jpg", photograph(40))
    one = Mute(tmp_path, tree)
    try:
        one.launch()
        one.wait_until(one.alive, "it answers")
        while len(sidecars(tree)) < IMAGES:
            assert one.alive()
            assert one.get("/health")[0] in {200, 503}
        one.wait_until(one.ready, "it is ready")
        assert one.stop() == 0
    finally:
        one.close()


def _is_drained(reading: int) -> bool:
    try:
        os.read(reading, 1 << 16)
    except BlockingIOError:
        return not any(thread.name == "log" for thread in threading.enumerate())
    return False
