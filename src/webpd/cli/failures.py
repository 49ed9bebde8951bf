"""``webpd failures``: the images that could not be converted, and another try for them."""

import itertools
import json
import os
import time
from collections.abc import Iterator, Sequence
from contextlib import closing
from typing import TYPE_CHECKING, Annotated

import typer

from webpd.cli.options import Config, Json, StateDir, settings_from
from webpd.cli.status import ago, utc
from webpd.errors import UnfitError, UsageError
from webpd.settings import database_of
from webpd.summary import printable

if TYPE_CHECKING:
    from webpd.ledger.history import Event, HistoryReader

_PAGE = 1000


def failures(
    paths: Annotated[
        list[str] | None,
        typer.Argument(metavar="[PATH]...", help="Folders or images; default: all.", show_default=False),
    ] = None,
    *,
    limit: Annotated[int, typer.Option("--limit", metavar="N", min=0, help="Most images to list.")] = 1000,
    retry: Annotated[
        bool, typer.Option("--retry", help="Have them tried again when the service starts; it must be stopped.")
    ] = False,
    state_dir: StateDir = None,
    config: Config = None,
    as_json: Json = False,
) -> None:
    """List the images that failed when they were last tried, with the reason and when that was.

    A failed image is tried again when it, the settings or the version of webpd change; --retry has all of PATH tried
    again by the next `webpd run`, however many are listed. They stay in the list until then. Of what failed within the
    last second before a SIGKILL nothing may be known.

    With --json, one object: failures (a list of path, root, reason, detail, at, host, bytes), failures_total, and
    retried (how many will be tried again).

    Exit code: 0 done, 2 wrong usage or settings, 3 there is no database, or --retry while a service runs.

    \b
    Examples:
      webpd failures
      webpd failures --json --limit 100000 /var/www/cdn/upload/resize_cache/iblock
      webpd failures --retry
    """
    from webpd.ledger.sqlite_history import read_history

    path = database_of(settings_from(config, state_dir=state_dir).settings)
    if "" in (paths or ()):
        raise UsageError("PATH: an empty path: is a variable unset?")
    below = [os.path.abspath(one) for one in paths or ()]
    history = read_history(path)
    retried = _retry(path, below) if retry else 0
    found = _failed(history, below)
    listed = list(itertools.islice(found, limit))
    total = len(listed) + sum(1 for _ in found)
    if as_json:
        counts = {"failures_total": total, "retried": retried}
        typer.echo(json.dumps({"failures": [_as_dict(event) for event in listed], **counts}, ensure_ascii=False))
        return
    _print(listed, total)
    if retry:
        typer.echo(f"{retried:,} will be tried again by the next `webpd run`")


def _failed(history: "HistoryReader", below: Sequence[str]) -> "Iterator[Event]":
    """Yield the images that failed, of all or of those at and below these absolute paths."""
    after = None
    while page := history.failures(after=after, limit=_PAGE):
        for event in page:
            path = os.path.join(event.root, event.path)
            if not below or any(path == one or path.startswith(os.path.join(one, "")) for one in below):
                yield event
        after = page[-1].root, page[-1].path


def _retry(path: str, below: Sequence[str]) -> int:
    """Have the ledger forget that these failed, and their directories looked at again; return how many they are."""
    from webpd.ledger.sqlite import SqliteLedger

    try:
        ledger = SqliteLedger(path)
    except UnfitError as error:
        raise UnfitError(
            f"{error} (--retry needs the service stopped; while it runs, touch an image to have it tried again)"
        ) from error
    count = 0
    with closing(ledger):
        failed = _failed(ledger.history, below)
        for (root, directory), events in itertools.groupby(failed, lambda one: (one.root, os.path.dirname(one.path))):
            names = [os.path.basename(event.path) for event in events]
            ledger.unlearn(root, directory, names)
            ledger.doubt(root, [directory])
            count += len(names)
    return count


def _as_dict(event: "Event") -> dict[str, object]:
    return {
        "path": printable(os.path.join(event.root, event.path)),
        "root": printable(event.root),
        "reason": event.reason,
        "detail": printable(event.detail),
        "at": utc(event.at),
        "host": event.host,
        "bytes": event.size,
    }


def _print(listed: "Sequence[Event]", total: int) -> None:
    now = time.time()
    for event in listed:
        path = printable(os.path.join(event.root, event.path))
        typer.echo(f"{path}: {event.reason}: {printable(event.detail)} ({ago(now - event.at)})")
    if total > len(listed):
        typer.echo(f"and {total - len(listed):,} more: `--limit {total}` lists all")
    if not total:
        typer.echo("nothing failed")
