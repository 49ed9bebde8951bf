"""``webpd doctor`` as its users run it, and what it finds."""

import json
import os
import subprocess
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tests.conftest import WEBPD
from tests.lab import free_port
from webpd.doctor.finding import Finding, Verdict


def doctor(*arguments: object, before: tuple[str, ...] = (), **environment: str) -> "subprocess.CompletedProcess[str]":
    """Run the command, behind what ``before`` names, with addresses that are free unless told otherwise."""
    clean = {name: value for name, value in os.environ.items() if not name.startswith("WEBPD_")}
    free = {
        "WEBPD_HEALTH_ADDRESS": f"127.0.0.1:{free_port()}",
        "WEBPD_METRICS_ADDRESS": f"127.0.0.1:{free_port()}",
        "WEBPD_HINT_SOCKET": "off",
        "WEBPD_CONFIG": os.devnull,
    }
    return subprocess.run(
        [*before, *WEBPD, "doctor", *map(str, arguments)],
        env=clean | free | environment,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        errors="replace",
        check=False,
        timeout=60,
    )


def found(done: "subprocess.CompletedProcess[str]") -> dict[str, dict[str, str]]:
    """Return what ``--json`` tells of all that is not well, by id; it must tell, and the exit code must agree."""
    checks: list[dict[str, Any]] = json.loads(done.stdout)
    faults = [check["id"] for check in checks if check["verdict"] == "fault"]
    assert done.returncode == (3 if faults else 0), done
    bad = {check["id"]: check for check in checks if check["verdict"] != "ok"}
    assert all(check["cure"] for check in bad.values())
    return bad


def sick(findings: Iterable[Finding]) -> dict[str, Finding]:
    """Return what is not well, by id; each must come with its cure."""
    bad = {finding.id: finding for finding in findings if finding.verdict is not Verdict.OK}
    assert all(finding.cure for finding in bad.values())
    return bad


def command_in(cure: str, program: str) -> str:
    """Return the command of that program that the cure names."""
    (command,) = (text for text in cure.split("`")[1::2] if text.startswith(f"{program} "))
    return command


@contextmanager
def open_folder(mode: int) -> Iterator[Path]:
    """Give a folder of that mode, which other users may enter, unlike pytest's."""
    with tempfile.TemporaryDirectory(prefix="webpd-doctor-") as name:
        os.chmod(name, mode)
        yield Path(name)


def left_behind(root: Path) -> list[Path]:
    return [path for path in root.rglob("*") if path.name.startswith(".webpd")]
