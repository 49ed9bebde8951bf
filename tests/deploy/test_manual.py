"""The manual page and the completions, which are written from the commands and kept in the repository."""

import os
import re
import subprocess
import sys
from pathlib import Path

from tools import manual


def test_the_manual_and_the_completions_tell_of_the_commands_as_they_are() -> None:
    kept = {path.name: path.read_text("utf-8") for path in manual.FOLDER.iterdir()}
    assert kept == manual.files(), "write them anew: .venv/bin/python -m tools.manual"


def test_man_shows_the_page_without_a_complaint() -> None:
    done = subprocess.run(
        ["man", "--warnings", "--local-file", str(manual.FOLDER / "webpd.1")],
        env=os.environ | {"MANPAGER": "cat", "MANWIDTH": "100", "LC_ALL": "C.UTF-8"},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stderr == ""
    assert "--dry-run" in done.stdout
    assert "WEBPD_POLL_INTERVAL" in done.stdout
    assert re.search("^ +totals  .*\n {20,}source_bytes", done.stdout, re.MULTILINE)  # a table stays one


def test_bash_completes_commands_and_their_options() -> None:
    assert _completed("webpd", "ver") == ["verify"]
    assert "--dry-run" in _completed("webpd", "convert", "--d")


def _completed(*words: str) -> list[str]:
    script = (
        f"source {manual.FOLDER / 'webpd.bash'}; COMP_WORDS=({' '.join(words)}); COMP_CWORD={len(words) - 1}; "
        '_webpd_completion webpd; printf "%s\\n" "${COMPREPLY[@]}"'
    )
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    done = subprocess.run(
        ["bash", "-c", script], env=os.environ | {"PATH": path}, capture_output=True, text=True, check=True
    )
    return done.stdout.split()
