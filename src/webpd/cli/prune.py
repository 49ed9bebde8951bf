"""``webpd prune``: sidecars whose original is gone."""

import json
import threading
import time
from typing import Annotated

import typer
from rich.filesize import decimal

from webpd.cli.options import Config, Exclude, IoThreads, Json, Paths, interrupt_on_sigterm, settings_from
from webpd.printable import printable

_LISTED = 1000
_SHOWN = 10


def prune(
    paths: Paths = None,
    *,
    yes: Annotated[bool, typer.Option("--yes", help="Remove them; without it nothing is removed.")] = False,
    everything: Annotated[
        bool, typer.Option("--all", help="Remove them even where not one original is left below PATH.")
    ] = False,
    list_: Annotated[bool, typer.Option("--list", help="Print every path, as it is found.")] = False,
    io_threads: IoThreads = None,
    exclude: Exclude = None,
    config: Config = None,
    as_json: Json = False,
) -> None:
    """Show the sidecars below PATH whose original is gone; with --yes remove them, and the folders that this empties.

    Only what webpd made for that very place is removed, and only when a second look, some seconds after the first,
    finds the original still gone. Other .webp files without an original are listed and kept. Folders in which something
    happened within WEBPD_PRUNE_FOLDERS_AFTER stay. WEBPD_PRUNE_SHARE limits `webpd run`, not this command; but where
    not one original is left, which is how a lost mount looks, nothing is removed without --all.

    Exit code: 0 done, 1 something could not be looked at or removed, 2 wrong usage or settings, 3 the environment is
    not fit, 130 interrupted.

    \b
    Examples:
      webpd prune /var/www/cdn/upload/resize_cache
      webpd prune --list upload/resize_cache
      webpd prune --yes --json upload/resize_cache
    """
    settings = settings_from(config, io_threads=io_threads, exclude=exclude).settings
    interrupt_on_sigterm()

    from webpd import app

    roots, tally = app.roots_of(paths or settings.roots), Tally(aloud=list_ and not as_json)
    try:
        tally.interrupted = not app.prune(settings, roots, tally, remove=yes, everything=everything)
    except KeyboardInterrupt:
        tally.interrupted = True
    finally:
        if as_json:
            typer.echo(json.dumps(tally.as_dict(), ensure_ascii=False))
        else:
            tally.print(removing=yes)
    if tally.interrupted:
        raise typer.Exit(130)
    if tally.refused_total:
        raise typer.Exit(1)


class Tally:
    """Counts what a pass found and removed, from any thread, and keeps the first paths. ``aloud`` prints every path."""

    def __init__(self, *, aloud: bool) -> None:
        self._aloud = aloud
        self._lock = threading.Lock()
        self._begun = time.monotonic()
        self._orphans: list[str] = []
        self._foreign: list[str] = []
        self._refused: list[dict[str, str]] = []
        self._counts = {"orphans": 0, "orphan_bytes": 0, "foreign": 0, "removed": 0, "folders_removed": 0}
        self.refused_total = 0
        self.interrupted = False

    def orphan(self, path: str, size: int) -> None:
        """Count a sidecar of ours whose original is gone; ``size`` is in bytes."""
        with self._lock:
            self._counts["orphan_bytes"] += size
            self._count("orphans", path, self._orphans)

    def foreign(self, path: str) -> None:
        """Count a file that is not ours."""
        with self._lock:
            self._count("foreign", path, self._foreign)

    def removed(self, path: str) -> None:
        """Count a sidecar that was removed."""
        with self._lock:
            self._count("removed", path)

    def folder_removed(self, path: str) -> None:
        """Count a folder that was removed."""
        with self._lock:
            self._count("folders_removed", path)

    def refused(self, path: str, detail: str) -> None:
        """Count what could not be looked at or removed."""
        with self._lock:
            self.refused_total += 1
            if len(self._refused) < _LISTED:
                detail = detail.removeprefix(f"{path}: ")
                self._refused.append({"path": printable(path), "detail": printable(detail)})

    def _count(self, what: str, path: str, listed: list[str] | None = None) -> None:
        self._counts[what] += 1
        if listed is not None and len(listed) < _LISTED:
            listed.append(printable(path))
        if self._aloud:
            typer.echo(f"{_WORDS[what]:<8}  {printable(path)}")

    def as_dict(self) -> dict[str, object]:
        """Return what ``webpd prune --json`` prints: numbers, bytes, and of each list the first 1,000."""
        with self._lock:
            return {
                **self._counts,
                "paths": self._orphans,
                "foreign_paths": self._foreign,
                "refused": self._refused,
                "refused_total": self.refused_total,
                "interrupted": self.interrupted,
                "seconds": round(time.monotonic() - self._begun, 3),
            }

    def print(self, *, removing: bool) -> None:
        """Print the numbers and the first paths, for people."""
        with self._lock:
            counts = self._counts
            typer.echo(
                f"  orphans   {counts['orphans']:>10,}  {decimal(counts['orphan_bytes'])}, their originals are gone"
            )
            self._print_first(counts["orphans"], self._orphans)
            typer.echo(f"  foreign   {counts['foreign']:>10,}  not made by webpd for that place: kept")
            self._print_first(counts["foreign"], self._foreign)
            if removing:
                typer.echo(f"  removed   {counts['removed']:>10,}  and {counts['folders_removed']:,} empty folders")
            for one in self._refused[:_SHOWN]:
                typer.echo("{path}: {detail}".format(**one), err=True)
            if (more := self.refused_total - _SHOWN) > 0:
                typer.echo(f"and {more:,} more: `--json` lists the first 1,000", err=True)
            if counts["orphans"] and not removing:
                typer.echo("nothing was removed: `--yes` removes the orphans")
            if self.interrupted:
                typer.echo("interrupted")

    def _print_first(self, count: int, paths: list[str]) -> None:
        if self._aloud:
            return
        for path in paths[:_SHOWN]:
            typer.echo(f"    {path}")
        if count > _SHOWN:
            typer.echo(f"    and {count - _SHOWN:,} more: `--list` prints every path")


_WORDS = {"orphans": "orphan", "foreign": "foreign", "removed": "removed", "folders_removed": "folder"}
