"""``webpd status``: how the service is, and what came of the images so far."""

import json
import os
import sys
import time
from collections import Counter
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.filesize import decimal

from webpd.cli.options import Config, Json, StateDir, interrupt_on_sigterm, settings_from
from webpd.errors import UnfitError
from webpd.model import Result
from webpd.settings import database_of
from webpd.summary import printable

if TYPE_CHECKING:
    from webpd.ledger.history import HistoryReader, Total
    from webpd.settings import Address, Settings

_INTERVAL = 2.0  # seconds between two looks of --watch
_TIMEOUT = 2.0  # seconds that the service has for its answer
_LONGEST_ANSWER = 16 << 20  # bytes
_RATE_MINUTES = 5
_PERIODS = {"all": None, "day": 86_400.0, "hour": 3600.0}  # seconds
_WORKED = (Result.CONVERTED, Result.KEPT_ORIGINAL, Result.SKIPPED, Result.FAILED)
_ROOT = ("root", "kind", "mount", "detail", "watch", "directories", "unsettled", "images", "orphans")
_PAGE = 1000
_ANSWERS = ("ok", "degraded")


def status(
    *,
    watch: Annotated[bool, typer.Option("--watch", help="Look again every 2 seconds, until Ctrl-C.")] = False,
    state_dir: StateDir = None,
    config: Config = None,
    as_json: Json = False,
) -> None:
    """Tell how the service is, what it converted and saved, what failed, what waits, and how each root is.

    The service is asked at WEBPD_HEALTH_ADDRESS; the totals come from the database in WEBPD_STATE_DIR, which is read
    whether or not a service runs. They count every time that an image was worked on, for as long as days are kept
    (400), and may miss what was done in the last second before a SIGKILL. The numbers of folders and images are those
    that the service knew last.

    With --json, one object (with --watch, one each time, a line each): service (ok, degraded, stopped, silent or
    unknown), detail, version, as_of (when the numbers of the roots were true), totals (all, day, hour: converted,
    kept_original, skipped, failed, source_bytes, webp_bytes, saved_bytes, saved_percent), rate (images per second over
    the last 5 minutes), failures (images by reason), queue, roots, notes. What can't be known is null.

    Exit code: 0 told, 1 the service is degraded or does not answer, 2 wrong usage or settings, 3 neither a service nor
    a database is there.

    \b
    Examples:
      webpd status
      webpd status --watch
      webpd status --json | jq .totals.day.saved_bytes
    """
    settings = settings_from(config, state_dir=state_dir).settings
    if watch:
        _watch(settings, as_json=as_json)
        return
    told = look(settings, time.time())
    typer.echo(json.dumps(told, ensure_ascii=False) if as_json else text(told))
    if told["service"] in {"degraded", "silent"}:
        raise typer.Exit(1)


def ago(seconds: float) -> str:
    """Return in words how long that is past."""
    if seconds < 1:
        return "just now"
    for length, word in ((86_400, "day"), (3600, "hour"), (60, "minute"), (1, "second")):
        if (count := int(seconds // length)) > 0:
            return f"{count:,} {word}{'s' if count > 1 else ''} ago"
    raise AssertionError(seconds)


def utc(moment: float) -> str:
    """Return the Unix time as RFC 3339 has it, in whole seconds of UTC."""
    return datetime.fromtimestamp(moment, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def look(settings: "Settings", now: float) -> dict[str, Any]:
    """Return what ``webpd status --json`` prints; ``now`` is Unix time in seconds.

    Raises ``UnfitError`` where neither a service answers nor a database can be read.
    """
    path = database_of(settings)
    service, detail, health = _ask(settings.health_address)
    if service == "stopped" and _is_locked(os.path.dirname(path)):
        service = "silent"
        detail = f"a webpd has {os.path.dirname(path)}, but {detail}: is it `webpd run --once`, or at another address?"
    notes = []
    remembered: dict[str, Any] = {"totals": None, "rate": None, "failures": None, "roots": []}
    try:
        remembered = _remembered(path, now)
        as_of = utc(now if health else _written(path))
    except UnfitError as error:
        if health is None:
            raise UnfitError(f"{_SAID[service].format(detail=detail)}, and {error}") from error
        as_of = utc(now)
        notes.append(f"the totals are not known: {error}")
    roots = [{key: root.get(key) for key in _ROOT} for root in (health or remembered)["roots"]]
    return {
        "service": service,
        "detail": detail,
        "version": health["version"] if health else None,
        "as_of": as_of,
        "totals": remembered["totals"],
        "rate": remembered["rate"],
        "failures": remembered["failures"],
        "queue": health["queue"] if health else None,
        "roots": roots,
        "notes": notes,
    }


# The service


def _ask(address: "Address | None") -> tuple[str, str, dict[str, Any] | None]:
    """Return how the service is, why that is thought, and its health page where it answers."""
    if address is None or not address.port:
        return "unknown", "WEBPD_HEALTH_ADDRESS names no port to ask at", None
    import http.client

    connection = http.client.HTTPConnection(address.host, address.port, timeout=_TIMEOUT)
    try:
        connection.request("GET", "/health")
        health = json.loads(connection.getresponse().read(_LONGEST_ANSWER))
    except ConnectionRefusedError:
        return "stopped", f"nobody listens at {address}", None
    except TimeoutError:
        return "silent", f"no answer from {address} within {_TIMEOUT:g} s", None
    except (ConnectionError, http.client.HTTPException, ValueError):
        health = None
    except OSError as error:
        return "unknown", f"{address} can't be asked: {error.strerror}", None
    finally:
        connection.close()
    if isinstance(health, dict) and {"version", "roots", "queue"} <= health.keys() and health.get("status") in _ANSWERS:
        return health["status"], f"at {address}", health
    return "silent", f"what listens at {address} does not answer as webpd does", None


def _is_locked(folder: str) -> bool:
    """Tell whether a process holds the folder's lock, without taking it (proc_locks(5))."""
    try:
        status = os.stat(os.path.join(folder, "lock"))
        with open("/proc/locks", encoding="ascii") as file:
            locks = file.read().splitlines()
    except OSError:
        return False
    place = f" {os.major(status.st_dev):02x}:{os.minor(status.st_dev):02x}:{status.st_ino} "
    return any(" FLOCK " in lock and place in lock for lock in locks)


# What is remembered


def _remembered(path: str, now: float) -> dict[str, Any]:
    from webpd.ledger.sqlite_history import read_history

    history = read_history(path)
    totals = {
        period: _period(history.totals(now - seconds if seconds else 0.0, now)) for period, seconds in _PERIODS.items()
    }
    return {"totals": totals, "rate": _rate(history, now), "failures": _failures(history), "roots": _roots(path)}


def _roots(path: str) -> list[dict[str, Any]]:
    from webpd.ledger.database import ReadOnly
    from webpd.ledger.schema import SCHEMA

    select = "SELECT path, kind, directories, unsettled, images, orphans FROM root ORDER BY path"
    rows = ReadOnly(path, SCHEMA.version).read(lambda connection: connection.execute(select).fetchall())
    return [
        {
            "root": printable(os.fsdecode(root)),
            "kind": os.fsdecode(kind or "").partition(" ")[0] or None,  # the mount point comes behind it
            "directories": directories,
            "unsettled": unsettled,
            "images": images,
            "orphans": orphans,
        }
        for root, kind, directories, unsettled, images, orphans in rows
    ]


def _written(path: str) -> float:
    """Return when the database was written last (Unix time, seconds)."""
    written = os.stat(path).st_mtime
    try:
        log = os.stat(f"{path}-wal")
    except OSError:
        return written
    return max(written, log.st_mtime) if log.st_size else written


def _period(totals: "Mapping[Result, Total]") -> dict[str, float]:
    images = {str(result): totals[result].images if result in totals else 0 for result in _WORKED}
    converted = totals.get(Result.CONVERTED)
    source, webp = (converted.source_bytes, converted.webp_bytes) if converted else (0, 0)
    percent = round(100 * (source - webp) / source, 1) if source else 0.0
    sizes = {"source_bytes": source, "webp_bytes": webp, "saved_bytes": source - webp, "saved_percent": percent}
    return {**images, **sizes}


def _rate(history: "HistoryReader", now: float) -> float:
    since = (now // 60 - _RATE_MINUTES + 1) * 60
    totals = history.totals(since, now)
    return round(sum(totals[result].images for result in _WORKED if result in totals) / max(1.0, now - since), 2)


def _failures(history: "HistoryReader") -> dict[str, int]:
    reasons: Counter[str] = Counter()
    after = None
    while page := history.failures(after=after, limit=_PAGE):
        reasons.update(event.reason for event in page)
        after = page[-1].root, page[-1].path
    return dict(reasons.most_common())


# For people

_SAID = {
    "ok": "webpd runs {detail} and is well",
    "degraded": "webpd runs {detail} and is DEGRADED",
    "stopped": "webpd does not run ({detail})",
    "silent": "webpd does not answer ({detail})",
    "unknown": "whether webpd runs is not known ({detail})",
}
_NAMED = {"hour": "last hour", "day": "last day", "all": "in all"}


def text(told: Mapping[str, Any]) -> str:
    """Return it as lines for people."""
    lines = [_SAID[told["service"]].format(detail=told["detail"])]
    if told["queue"] is None:
        lines[0] += f"; as it was {ago(time.time() - datetime.fromisoformat(told['as_of']).timestamp())}:"
    lines += told["notes"]
    if told["totals"] is not None:
        lines += _table(told["totals"])
        lines.append(f"rate      {told['rate']:,.1f} images/s over the last {_RATE_MINUTES} minutes")
        reasons = ", ".join(f"{count:,} {reason}" for reason, count in told["failures"].items())
        lines.append(f"failures  {f'{reasons}: `webpd failures` lists them' if reasons else 'none'}")
    if told["queue"] is not None:
        lines.append("queue     " + ", ".join(f"{n:,} {name.replace('_', ' ')}" for name, n in told["queue"].items()))
    for root in told["roots"]:
        lines += _root_lines(root)
    return "\n".join(lines)


def _table(totals: Mapping[str, Mapping[str, float]]) -> list[str]:
    lines = [
        f"{'':<10}{'converted':>10}{'kept':>8}{'skipped':>8}{'failed':>7}{'originals':>10}{'WebP':>10}{'saved':>10}"
    ]
    for period, name in _NAMED.items():
        total = totals[period]
        counts = f"{total['converted']:>10,}{total['kept_original']:>8,}{total['skipped']:>8,}{total['failed']:>7,}"
        sizes = "".join(f"{decimal(int(total[key])):>10}" for key in ("source_bytes", "webp_bytes", "saved_bytes"))
        lines.append(f"{name:<10}{counts}{sizes}{total['saved_percent']:>4.0f} %")
    return lines


def _root_lines(root: Mapping[str, Any]) -> list[str]:
    how = (
        [] if root["mount"] is None else [f"mount {root['mount']}" + (f": {root['detail']}" if root["detail"] else "")]
    )
    how += [] if root["watch"] is None else [f"watched by {root['watch']}"]
    directories = f"{root['directories']:,} directories, {root['unsettled']:,} unsettled"
    return [
        f"{root['root']} ({', '.join([root['kind'] or 'not mounted yet', *how])})",
        f"          {root['images']:,} images in {directories}; {root['orphans']:,} orphans",
    ]


def _watch(settings: "Settings", *, as_json: bool) -> None:
    from rich.live import Live
    from rich.text import Text

    interrupt_on_sigterm()
    try:
        if as_json or not sys.stdout.isatty():
            while True:
                told = look(settings, time.time())
                print(json.dumps(told, ensure_ascii=False) if as_json else f"{text(told)}\n", flush=True)
                time.sleep(_INTERVAL)
        with Live(auto_refresh=False) as live:
            while True:
                live.update(Text(text(look(settings, time.time()))), refresh=True)
                time.sleep(_INTERVAL)
    except KeyboardInterrupt:
        return
