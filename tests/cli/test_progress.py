"""What is shown while a pass runs: a live line on a terminal, and nothing that would spoil a log elsewhere."""

import os
import pty
import re
import subprocess
from collections.abc import Callable
from pathlib import Path

from tests.conftest import WEBPD, write


def on_a_terminal(*arguments: object) -> tuple[str, str]:
    """Return what the command writes to its standard output, a pipe, and to standard error, a terminal."""
    ours, theirs = pty.openpty()
    environment = os.environ | {"TERM": "xterm", "COLUMNS": "100"}
    process = subprocess.Popen(
        [*WEBPD, *map(str, arguments)], stdout=subprocess.PIPE, stderr=theirs, env=environment, text=True
    )
    os.close(theirs)
    shown = b""
    while True:
        try:
            part = os.read(ours, 65536)
        except OSError:  # how Linux tells that nobody has the other end any more
            break
        shown += part
    os.close(ours)
    out, _ = process.communicate()
    assert process.returncode == 0
    return out, shown.decode("utf-8")


def test_a_terminal_shows_how_much_is_done_of_how_much_how_fast_and_how_long_it_takes(
    tmp_path: Path, photograph: Callable[..., bytes]
) -> None:
    data = photograph(400, "coffee.png")
    for number in range(60):
        write(tmp_path / f"{number % 5}" / f"{number}.jpg", data)
    out, shown = on_a_terminal("convert", "--method", "6", tmp_path)
    assert re.search(r"\d+/60", shown)
    assert "images/s" in shown
    assert "saved" in shown
    assert re.search(r"\d:\d\d left", shown)
    assert "60 images found" in out
    assert "\x1b" not in out


def test_json_shows_no_progress_on_a_terminal_either(tmp_path: Path, photograph: Callable[..., bytes]) -> None:
    write(tmp_path / "a.jpg", photograph())
    _, shown = on_a_terminal("convert", "--json", tmp_path)
    assert shown == ""
