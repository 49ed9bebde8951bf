"""``webpd verify``: is every sidecar right?"""

import json
import threading
import time
from collections import Counter

import typer

from webpd.cli.options import Config, Exclude, Json, Paths, Workers, interrupt_on_sigterm, settings_from
from webpd.printable import printable
from webpd.tree.verifier import Finding, Problem

_PROBLEMS_LISTED = 1000


def verify(
    paths: Paths = None,
    *,
    workers: Workers = None,
    exclude: Exclude = None,
    config: Config = None,
    as_json: Json = False,
) -> None:
    """Check every sidecar below PATH: it decodes, shows its original as it is now, is smaller, and has an original.

    Sidecars that webpd did not make are only decoded. Originals without a sidecar are counted.

    Exit code: 0 all right, 1 something is wrong, 2 wrong usage or settings, 3 the environment is not fit,
    130 interrupted.

    \b
    Examples:
      webpd verify /var/www/cdn/upload/resize_cache
      webpd verify --json upload/resize_cache
    """
    settings = settings_from(config, workers=workers, exclude=exclude).settings
    interrupt_on_sigterm()

    from webpd import app

    findings = Findings()
    whole = app.verify(settings, app.roots_of(paths or settings.roots), findings.add)
    findings.print(as_json, whole)
    if not whole:
        raise typer.Exit(130)
    if findings.problems_total:
        raise typer.Exit(1)


class Findings:
    """Counts findings, from any thread, and keeps the first problems."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._begun = time.monotonic()
        self._counts: Counter[str] = Counter()
        self._problems: list[Finding] = []
        self.problems_total = 0

    def add(self, finding: Finding) -> None:
        with self._lock:
            self._counts[finding.verdict] += 1
            if isinstance(finding.verdict, Problem):
                self.problems_total += 1
                if len(self._problems) < _PROBLEMS_LISTED:
                    self._problems.append(finding)

    def print(self, as_json: bool, whole: bool) -> None:
        """Print the counts by verdict, and the problems."""
        counts = {verdict: count for verdict, count in sorted(self._counts.items()) if verdict != "gone"}
        problems = [
            {"path": printable(one.path), "problem": str(one.verdict), "detail": printable(one.detail)}
            for one in self._problems
        ]
        seconds = time.monotonic() - self._begun
        if as_json:
            totals = {"problems_total": self.problems_total, "interrupted": not whole, "seconds": round(seconds, 3)}
            typer.echo(json.dumps({**counts, "problems": problems, **totals}, ensure_ascii=False))
            return
        for verdict, count in counts.items():
            typer.echo(f"  {verdict:<16}{count:>10,}")
        for problem in problems:
            typer.echo("{path}: {problem}: {detail}".format(**problem))
        verdict = f"{self.problems_total:,} problems" if self.problems_total else "nothing is wrong"
        typer.echo(f"{verdict}, {seconds:.1f} s{'' if whole else ', interrupted'}")
