"""What ``webpd status`` tells: gathered from the service, from what is remembered, and from what all hosts share."""

import http.client
import os
from collections.abc import Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

from webpd.errors import UnfitError, WebpdError
from webpd.ledger.sqlite import read_ledger
from webpd.ledger.sqlite_history import read_history
from webpd.model import Result
from webpd.printable import printable
from webpd.settings import Settings, database_of
from webpd.times import utc
from webpd.web import client

if TYPE_CHECKING:
    from webpd.ledger.history import HistoryReader, Total
    from webpd.ledger.port import LedgerReader, Pass
    from webpd.redis.presence import Presence
    from webpd.settings import RedisUrl

RATE_MINUTES = 5
"""What counts as now for a rate."""
SAID = {
    "ok": "webpd runs {detail} and is well",
    "degraded": "webpd runs {detail} and is DEGRADED",
    "stopped": "webpd does not run ({detail})",
    "silent": "webpd does not answer ({detail})",
    "unknown": "whether webpd runs is not known ({detail})",
}
"""What each state of the service means."""

_TIMEOUT = 2.0  # seconds that the service has for its answer
_PERIODS = {"all": None, "day": 86_400.0, "hour": 3600.0}  # seconds
_WORKED = (Result.CONVERTED, Result.KEPT_ORIGINAL, Result.SKIPPED, Result.FAILED)
_LIVE = ("root", "kind", "mount", "detail", "watch", "directories", "unsettled", "images", "orphans", "hosts")
_ANSWERS = ("ok", "degraded")
_WRONG = ("degraded", "down")

# How the service is, why that is thought, and its health page where it answers.
_Answer = tuple[str, str, dict[str, Any] | None]


def look(settings: Settings, now: float) -> dict[str, Any]:
    """Return what ``webpd status --json`` prints; ``now`` is Unix time in seconds.

    Raises ``UnfitError`` where neither a service answers nor a database can be read.
    """
    path = database_of(settings)
    with ThreadPoolExecutor(1) as executor:
        shared = executor.submit(_shared, settings.redis_url, now) if settings.redis_url else None
        service, detail, health, notes = _service(settings)
        known = health or {}
        notes += [_wrong(part) for part in known.get("parts", ()) if part["state"] in _WRONG]
        remembered: dict[str, Any] = {"totals": None, "rate": None, "failures": None, "roots": {}}
        try:
            if known.get("role") != "work":  # which has no database
                remembered = _remembered(path, now)
        except UnfitError as error:
            if health is None:
                raise UnfitError(f"{SAID[service].format(detail=detail)}, and {error}") from error
            notes.append(f"the totals are not known: {error}")
        hosts, all_hosts = _result(shared, notes)
    return {
        "service": service,
        "detail": detail,
        "version": known.get("version"),
        "role": known.get("role"),
        "as_of": utc(now if health else _written(path)),
        "totals": remembered["totals"],
        "rate": remembered["rate"],
        "failures": remembered["failures"],
        "queue": known.get("queue"),
        "redis": known.get("redis"),
        "queue_redis": known.get("queue_redis"),
        "roots": _roots(known.get("roots"), remembered["roots"]),
        "hosts": hosts,
        "all_hosts": all_hosts,
        "notes": notes,
    }


# The service


def _service(settings: Settings) -> tuple[str, str, dict[str, Any] | None, list[str]]:
    """Return what the service answers at its socket or else at its address, and what is to be noted."""
    folder = os.path.dirname(database_of(settings))
    socket = os.path.join(folder, client.SOCKET)
    service, detail, health = _ask(client.connect(socket, _TIMEOUT), printable(socket))
    address = settings.health_address
    if service in {"ok", "degraded", "silent"}:
        return service, detail, health, []
    if address is not None and address.port:
        other = _ask(http.client.HTTPConnection(address.host, address.port, timeout=_TIMEOUT), str(address))
        if other[0] == "stopped":
            detail += f" or at {address}" if service == "stopped" else f", and {other[1]}"
        else:
            elsewhere = service == "stopped" and other[2] is not None and other[2].get("role") != "work"
            note = f"the service at {address} does not use {printable(folder)}: name its folder by WEBPD_STATE_DIR"
            return (*other, [note] if elsewhere else [])
    if service == "stopped" and _is_locked(folder):
        service, detail = "silent", f"a webpd has {printable(folder)}, but {detail}: does it start or end just now?"
    return service, detail, None, []


def _ask(connection: http.client.HTTPConnection, place: str) -> _Answer:
    try:
        _, health = client.ask(connection, "GET", "/health")
    except (ConnectionRefusedError, FileNotFoundError, NotADirectoryError):
        return "stopped", f"nobody listens at {place}", None
    except TimeoutError:
        return "silent", f"no answer from {place} within {_TIMEOUT:g} s", None
    except (ConnectionError, http.client.HTTPException, ValueError):
        health = None
    except OSError as error:
        return "unknown", f"{place} can't be asked: {error.strerror}", None
    if isinstance(health, dict) and {"version", "roots", "queue"} <= health.keys() and health.get("status") in _ANSWERS:
        return health["status"], f"at {place}", health
    return "silent", f"what listens at {place} does not answer as webpd does", None


def _wrong(part: Mapping[str, str]) -> str:
    """Return what is wrong with a part of the service, and what to do."""
    where = " ".join(filter(None, (part["part"].replace("_", " "), part["subject"])))
    return f"{where} is {part['state']}: " + ": ".join(filter(None, (part["reason"], part["cure"])))


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
    history, ledger = read_history(path), read_ledger(path)
    totals = {
        period: _period(history.totals(now - seconds if seconds else 0.0, now)) for period, seconds in _PERIODS.items()
    }
    reasons = sorted(history.reasons().items(), key=lambda item: (-item[1], item[0]))
    return {
        "totals": totals,
        "rate": {
            "now": _rate_now(history, now),
            "hour": _rate(totals["hour"], 3600),
            "day": _rate(totals["day"], 86_400),
        },
        "failures": dict(reasons),
        "roots": {printable(root): _root(ledger, root) for root in ledger.roots()},
    }


def _root(ledger: "LedgerReader", root: str) -> dict[str, Any]:
    totals, passed = ledger.totals(root), ledger.passed(root)
    return {
        "root": printable(root),
        "kind": (ledger.kind(root) or "").partition(" ")[0] or None,  # the mount point comes behind it
        "directories": totals.directories,
        "unsettled": totals.unsettled,
        "images": totals.images,
        "orphans": totals.orphans,
        "counted": _counted(passed) if passed else None,
    }


def _counted(passed: "Pass") -> dict[str, Any]:
    return {
        "at": utc(passed.ended),
        "listed_at": None if passed.full is None else utc(passed.full),
        "directories": passed.totals.directories,
        "images": passed.totals.images,
        "orphans": passed.totals.orphans,
        "kept_original": passed.kept,
        "skipped": passed.skipped,
        "failed": passed.failed,
    }


def _roots(
    live: Sequence[Mapping[str, Any]] | None, remembered: Mapping[str, Mapping[str, Any]]
) -> list[dict[str, Any]]:
    """Return the roots of the service, or else all that are remembered, each with what was counted in it."""
    nothing: Mapping[str, Any] = {}
    return [
        {key: root.get(key) for key in _LIVE} | {"counted": remembered.get(root["root"], nothing).get("counted")}
        for root in (list(remembered.values()) if live is None else live)
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


def _rate_now(history: "HistoryReader", now: float) -> float:
    since = (now // 60 - RATE_MINUTES + 1) * 60
    return _rate(_period(history.totals(since, now)), max(1.0, now - since))


def _rate(period: Mapping[str, float], seconds: float) -> float:
    return round(sum(period[result] for result in _WORKED) / seconds, 2)


# What all hosts share


def _shared(url: "RedisUrl", now: float) -> dict[str, Any]:
    from webpd.ledger.redis_history import read_shared

    shared = read_shared(url, now)
    return {
        "hosts": [_host(host) for host in shared.hosts],
        "all_hosts": {period: _period(totals) for period, totals in shared.totals.items()},
    }


def _host(host: "Presence") -> dict[str, Any]:
    return {
        "name": host.host,
        "pid": host.pid,
        "role": host.role,
        "version": host.version,
        "started": utc(host.started),
        "rate": round(host.images_per_second, 2),
        "queue": dict(host.queue),
        "in_flight": host.in_flight,
        "roots": {printable(root): mount for root, mount in host.roots.items()},
    }


def _result(shared: "Future[dict[str, Any]] | None", notes: list[str]) -> tuple[Any, Any]:
    """Return the hosts and their totals, None where Redis does not tell."""
    if shared is None:
        return None, None
    try:
        told = shared.result()
    except WebpdError as error:
        notes.append(f"the other hosts are not known: {error}")
        return None, None
    return told["hosts"], told["all_hosts"]
