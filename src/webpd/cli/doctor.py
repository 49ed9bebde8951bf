"""``webpd doctor``: what is wrong, and what to do."""

import json
import os
import sys
from collections import Counter
from dataclasses import asdict
from typing import TYPE_CHECKING

import typer

from webpd.cli.options import Config, Json, Paths, StateDir, interrupt_on_sigterm
from webpd.errors import UsageError
from webpd.settings import load, refuse_nested

if TYPE_CHECKING:
    from collections.abc import Iterator

    from rich.console import Console

    from webpd.doctor.finding import Finding

_STYLES = {"ok": "green", "unknown": "magenta", "warning": "yellow", "fault": "bold red"}


def doctor(
    paths: Paths = None,
    *,
    state_dir: StateDir = None,
    config: Config = None,
    as_json: Json = False,
) -> None:
    """Look at all that the service needs, and say for each fault what to do.

    The folders PATH and how they are mounted, whether sidecars can be written there as the service writes them, the
    state folder, limits of the kernel, Redis, addresses, the codecs, other modules, and the service if it runs. It
    writes small files of its own, and removes them. Run it as the user of the service, with the service's settings.

    With --json, a list of the checks: id, subject, verdict (ok, unknown, warning, fault), detail, cure.

    Exit code: 0 no fault, 2 wrong usage, 3 a fault, 130 interrupted.

    \b
    Examples:
      webpd doctor
      webpd doctor /var/www/cdn/upload/resize_cache
      webpd doctor --json | jq '.[] | select(.verdict == "fault")'
    """
    from rich.console import Console

    interrupt_on_sigterm()
    found: list[Finding] = []
    console = Console(highlight=False, soft_wrap=True)
    try:
        for finding in _examine(paths, state_dir, config):
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


def _examine(paths: list[str] | None, state_dir: str | None, config: str | None) -> "Iterator[Finding]":
    from webpd.doctor.examination import examine
    from webpd.doctor.finding import Topic

    try:
        loaded = load({"state_dir": state_dir} if state_dir else {}, os.environ, config)
    except UsageError as error:
        cure = "correct it where it is set; `webpd config` then shows all options"
        yield Topic("settings").fault("settings.valid", str(error), cure)
        return
    if paths:
        if "" in paths:
            raise UsageError("PATH: an empty path: is a variable unset?")
        refuse_nested(tuple(paths), "PATH", os.path.abspath)  # asks no mount
    yield from examine(loaded, [os.path.abspath(path) for path in paths or loaded.settings.roots])


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
