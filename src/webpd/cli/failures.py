"""``webpd failures``: the images that could not be converted, and another try for them."""

import itertools
import json
import os
import time
from collections.abc import Sequence
from contextlib import closing
from typing import TYPE_CHECKING, Annotated

import typer

from webpd.cli.options import Config, Json, StateDir, settings_from
from webpd.errors import UnfitError, UsageError
from webpd.printable import printable
from webpd.settings import database_of
from webpd.times import ago, utc

if TYPE_CHECKING:
    from webpd.ledger.history import Event

_TIMEOUT = 60.0
"""Seconds that the service has to take in what is to be tried again: some 100,000 images."""


def failures(
    paths: Annotated[
        list[str] | None,
        typer.Argument(metavar="PATH", help="Folders or images; default: all.", show_default=False),
    ] = None,
    *,
    limit: Annotated[int, typer.Option("--limit", metavar="N", min=0, help="Most images to list.")] = 1000,
    retry: Annotated[
        bool, typer.Option("--retry", help="Have them tried again: by the service that runs, or else by the next one.")
    ] = False,
    state_dir: StateDir = None,
    config: Config = None,
    as_json: Json = False,
) -> None:
    """List the images that failed when they were last tried, with the reason and when that was.

    A failed image is tried again when it, the settings or the version of webpd change; --retry has all of PATH tried
    again, however many are listed: at once where a service runs with this state folder, else when the next one starts.
    They stay in the list until then. Of what failed within the last second before a SIGKILL nothing may be known.

    With --json, one object: failures (a list of path, root, reason, detail, at, host, bytes), failures_total, and
    retried (how many will be tried again).

    Exit code: 0 done, 2 wrong usage or settings, 3 there is no database, or the service that runs can't be asked.

    \b
    Examples:
      webpd failures
      webpd failures --json --limit 100000 /var/www/cdn/upload/resize_cache/iblock
      webpd failures --retry
    """
    from webpd.ledger.failures import failed
    from webpd.ledger.sqlite_history import read_history

    path = database_of(settings_from(config, state_dir=state_dir).settings)
    if "" in (paths or ()):
        raise UsageError("PATH: an empty path: is a variable unset?")
    below = [os.path.abspath(one) for one in paths or ()]
    history = read_history(path)
    retried, by = _retry(path, below) if retry else (0, "")
    found = failed(history, below)
    listed = list(itertools.islice(found, limit))
    total = len(listed) + sum(1 for _ in found)
    if as_json:
        counts = {"failures_total": total, "retried": retried}
        typer.echo(json.dumps({"failures": [_as_dict(event) for event in listed], **counts}, ensure_ascii=False))
        return
    if not total:
        typer.echo(f"nothing failed below {', '.join(map(printable, below))}" if below else "nothing failed")
        return
    if retry:
        typer.echo(f"{retried:,} will be tried again by {by}; as they failed before:")
    _print(listed, total)


def _retry(path: str, below: Sequence[str]) -> tuple[int, str]:
    """Have them tried again; return how many they are, and by whom."""
    from webpd.web import client

    socket = os.path.join(os.path.dirname(path), client.SOCKET)
    try:
        return client.retry(socket, below, _TIMEOUT), "the service that runs"
    except (FileNotFoundError, ConnectionRefusedError):
        return _retry_later(path, below), "the next `webpd run`"


def _retry_later(path: str, below: Sequence[str]) -> int:
    """Note in the database, which no service has, that they are to be tried again; return how many they are."""
    from webpd.ledger.failures import retry
    from webpd.ledger.sqlite import SqliteLedger

    try:
        ledger = SqliteLedger(path)
    except UnfitError as error:
        raise UnfitError(f"{error}; where a service starts or ends just now, try again in a moment") from error
    with closing(ledger):
        return sum(retry(ledger, ledger.history, below).values())


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
