"""``webpd check`` as its users run it, and what it finds."""

import json
import os
import subprocess
from collections.abc import Iterable
from typing import Any

from tests.conftest import WEBPD
from webpd.delivery.client import Client, target_of
from webpd.delivery.examination import examine
from webpd.doctor.finding import Finding, Verdict


def check(*arguments: object, **environment: str) -> "subprocess.CompletedProcess[str]":
    """Run the command."""
    return subprocess.run(
        [*WEBPD, "check", *map(str, arguments)],
        env=os.environ | environment,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )


def found(done: "subprocess.CompletedProcess[str]") -> dict[str, dict[str, str]]:
    """Return what ``--json`` tells, by id; the exit code must agree."""
    checks: list[dict[str, Any]] = json.loads(done.stdout)
    assert done.returncode == (3 if any(check["verdict"] == "fault" for check in checks) else 0), done
    return {check["id"]: check for check in checks}


def look(url: str, *, fresh: bool = False, **client: Any) -> dict[str, Finding]:
    """Return all that is found, by id; no two findings have one id."""
    findings = list(examine(Client(**{"timeout": 10, **client}), target_of(url), fresh=fresh))
    by_id = {finding.id: finding for finding in findings}
    assert len(by_id) == len(findings), findings
    return by_id


def bad(findings: dict[str, Finding]) -> dict[str, Finding]:
    """Return what is not well; each must come with its cure."""
    sick = {id_: finding for id_, finding in findings.items() if finding.verdict is not Verdict.OK}
    assert all(finding.cure for finding in sick.values())
    return sick


def verdicts(findings: Iterable[Finding]) -> dict[str, str]:
    return {finding.id.removeprefix("delivery."): str(finding.verdict) for finding in findings}
