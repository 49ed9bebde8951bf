"""How findings are shown, by all commands that have some."""

import json
import sys
from collections import Counter
from dataclasses import asdict
from typing import TYPE_CHECKING

import typer

if TYPE_CHECKING:
    from collections.abc import Iterable

    from rich.console import Console

    from webpd.doctor.finding import Finding

_STYLES = {"ok": "green", "unknown": "magenta", "warning": "yellow", "fault": "bold red"}


def tell(findings: "Iterable[Finding]", as_json: bool) -> None:
    """Print the findings as they come, and their number; as JSON, all at the end.

    Raises ``typer.Exit``: 3 where there is a fault, 130 when interrupted.
    """
    from rich.console import Console

    found: list[Finding] = []
    console = Console(highlight=False, soft_wrap=True)
    try:
        for finding in findings:
            if not as_json:
                _show(console, finding, found[-1] if found else None)
            found.append(finding)
    except KeyboardInterrupt:
        raise typer.Exit(130) from None
    counts = Counter(str(finding.verdict) for finding in found)
    if as_json:
        typer.echo(json.dumps([asdict(finding) for finding in found], ensure_ascii=False))
    else:
        told = ", ".join(f"{counts[verdict]:,} {verdict}" for verdict in ("ok", "unknown", "warning", "fault"))
        typer.echo(f"\n{told}")
    if counts["fault"]:
        raise typer.Exit(3)


def _show(console: "Console", finding: "Finding", before: "Finding | None") -> None:
    """Print the finding, under its subject: what is well in a line, what is not with its cure."""
    from rich.text import Text

    if before is None or before.subject != finding.subject:
        console.print(Text(finding.subject, "bold"), markup=False)
    verdict = str(finding.verdict)
    console.print(
        Text.assemble(
            "  ", (f"{verdict.upper() if verdict == 'fault' else verdict:<8}", _STYLES[verdict]), finding.detail
        )
    )
    if finding.cure:
        console.print(Text(f"            -> {finding.cure}"))
    sys.stdout.flush()
