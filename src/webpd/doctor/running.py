"""The service, if it runs: whether it is well, and the same that would start now; and the addresses that it takes."""

import contextlib
import http.client
import ipaddress
import os
import re
import resource
import socket
import struct
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from webpd import __version__
from webpd.doctor import host, rights
from webpd.doctor.finding import Finding, Topic
from webpd.errors import UnfitError
from webpd.printable import printable
from webpd.service.shared import fingerprint
from webpd.settings import Address, Settings, state_dir
from webpd.web import client

_TOPIC = Topic("the service")
_PATIENCE = 2.0  # seconds
_MOST_METRICS = 8 << 20  # bytes


@dataclass(frozen=True, slots=True)
class _Running:
    """The service that answered: its health page, and its process, None where another host's or not to be known."""

    health: Mapping[str, Any]
    pid: int | None


def look(settings: Settings, paths: Sequence[str]) -> Iterator[Finding]:
    """Look at the service and at its addresses. ``paths`` are its roots."""
    found, answers = _ask(settings)
    if found is None:
        yield answers
    else:
        yield from _service(settings, paths, found)
    for variable, address in (
        ("WEBPD_HEALTH_ADDRESS", settings.health_address),
        ("WEBPD_METRICS_ADDRESS", settings.metrics_address),
    ):
        if address is not None:
            yield from _address(variable, address, runs=found is not None)


def _ask(settings: Settings) -> tuple[_Running | None, Finding]:
    """Ask at the socket in the state folder, and else at the address."""
    path = os.path.join(state_dir(settings), client.SOCKET)
    pid: int | None = None
    with contextlib.suppress(OSError):
        pid = _peer(path) or None  # 0: it lives in another PID name space, such as a container's
    places: list[tuple[str, http.client.HTTPConnection]] = [(printable(path), client.connect(path, _PATIENCE))]
    if (address := settings.health_address) is not None and address.port:
        places.append((str(address), http.client.HTTPConnection(*address, timeout=_PATIENCE)))
    silent = ""
    for place, connection in places:
        try:
            _, health = client.ask(connection, "GET", "/health")
            if isinstance(health, dict) and {"version", "roots", "queue"} <= health.keys():
                return _Running(health, pid), _TOPIC.ok("service.runs", f"answers at {place}")
        except TimeoutError:
            silent = f"no answer from {place} within {_PATIENCE:g} s"
        except PermissionError:
            silent = silent or f"{place} may not be asked by this user"
        except (OSError, http.client.HTTPException, ValueError):
            continue  # nobody there, or another program: the addresses have checks of their own
    if silent:
        cure = "`journalctl -u webpd -n 50`, and `systemctl restart webpd`; as root if this user may not ask"
        return None, _TOPIC.fault("service.runs", f"does not answer: {silent}", cure)
    return None, _TOPIC.warning("service.runs", "does not run", "`systemctl enable --now webpd`, or `webpd run`")


def _peer(path: str) -> int:
    """Return the process that listens at the Unix socket."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as one, client.reachable(path) as short:
        one.settimeout(_PATIENCE)
        one.connect(short)
        pid, _, _ = struct.unpack("3i", one.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i")))
    return int(pid)


def _service(settings: Settings, paths: Sequence[str], found: _Running) -> Iterator[Finding]:
    health = found.health
    named = f"version {health['version']}, role {health.get('role')}"
    ailing = [part for part in health.get("parts", ()) if part["state"] in {"degraded", "down"}]
    for part in ailing:
        make = _TOPIC.fault if part["state"] == "down" else _TOPIC.warning
        what = " ".join(filter(None, (part["part"], part["subject"])))
        yield make("service.part", f"{what}: {part['reason']}", part["cure"] or "`webpd status`")
    if health.get("status") == "ok":
        yield _TOPIC.ok("service.runs", f"runs, and can do its work ({named})")
    elif not ailing:
        yield _TOPIC.fault("service.runs", f"runs, and is {health.get('status')} ({named})", "`webpd status`")
    if health["version"] != __version__:
        yield _TOPIC.warning(
            "service.version",
            f"is version {health['version']}, and this is {__version__}: it was not restarted after an update",
            "`systemctl restart webpd`",
        )
    yield from _same_settings(settings, paths, found)
    if found.pid is not None:
        yield _open_files(settings, found.pid)
        yield from _same_user(settings, found.pid)


def _same_settings(settings: Settings, paths: Sequence[str], found: _Running) -> Iterator[Finding]:
    cure = (
        "`kill -HUP {}` has it read its settings again; where it gets them from its unit, run this with the same ones, "
        "or keep all in /etc/webpd.toml".format(found.pid or "$(pgrep -f 'webpd run')")
    )
    roots = {str(root["root"]) for root in found.health["roots"]}
    missing = [printable(path) for path in paths if printable(path) not in roots]
    if missing:
        yield _TOPIC.warning("service.roots", f"does not look after {', '.join(missing)}", cure)
    if (theirs := _fingerprint(settings.metrics_address)) is None:
        return
    if theirs == fingerprint(settings).hex():
        yield _TOPIC.ok("service.settings", "runs with the settings that are set here")
    else:
        yield _TOPIC.warning(
            "service.settings", "runs with other settings, or another version, than are set here", cure
        )


def _fingerprint(address: Address | None) -> str | None:
    """Return what the metrics say of the service's settings, None where they can't be had."""
    page = _metrics(address) if address is not None and address.port else ""
    found = re.search(r'^webpd_build_info\{[^}]*\bfingerprint="([0-9a-f]*)"', page, re.MULTILINE)
    return found[1] if found else None


def _metrics(address: Address) -> str:
    connection = http.client.HTTPConnection(*address, timeout=_PATIENCE)
    try:
        with contextlib.closing(connection):
            connection.request("GET", "/metrics")
            return connection.getresponse().read(_MOST_METRICS).decode("utf-8", "replace")
    except (OSError, http.client.HTTPException):
        return ""


def _open_files(settings: Settings, pid: int) -> Finding:
    try:
        with open(f"/proc/{pid}/limits", encoding="ascii") as file:  # prlimit() would take a right to that process
            told = next(line.split() for line in file if line.startswith("Max open files"))
    except (OSError, StopIteration):
        why = f"how many files process {pid} may open is not told to this user"
        return _TOPIC.unknown("host.open_files", why, f"`cat /proc/{pid}/limits` as the user of the service")
    limit = resource.RLIM_INFINITY if told[3] == "unlimited" else int(told[3])
    return host.files(_TOPIC, settings, limit, f"process {pid}")


def _same_user(settings: Settings, pid: int) -> Iterator[Finding]:
    try:
        status = os.stat(f"/proc/{pid}")
    except OSError:
        return
    if status.st_uid != os.geteuid():
        folder = os.path.abspath(settings.state_dir or "/var/lib/webpd")
        yield _TOPIC.warning(
            "service.user",
            f"runs as user {status.st_uid}, and this is user {os.geteuid()}: what is writable to one may not be to the "
            "other",
            f"{rights.doctor_as(status.st_uid, status.st_gid, folder)} looks as it does",
        )


def _address(variable: str, address: Address, *, runs: bool) -> Iterator[Finding]:
    topic = Topic(f"{variable}={address}")
    if not _is_loopback(address.host):
        yield topic.warning(
            "address.loopback",
            "other hosts can reach it, and nothing is encrypted",
            f"`{variable}=127.0.0.1:{address.port}`, with the web server in front; or let the firewall keep others "
            f"from port {address.port}, by IPv4 and by IPv6",
        )
    from webpd.web.server import listen  # noqa: PLC0415 - it imports a web server

    try:
        listen(*address, variable).close()
    except UnfitError as error:
        if runs and _is_ours(variable, address):
            yield topic.ok("address.free", "the service has it")
            return
        port = address.port
        yield topic.fault(
            "address.free",
            f"can't be had: {error.__cause__.strerror if isinstance(error.__cause__, OSError) else error}",
            f"`ss -ltnp 'sport = :{port}'` shows who has it; end that, or set {variable} to another port",
        )
    else:
        yield topic.ok("address.free", "free, for the service to take")


def _is_loopback(name: str) -> bool:
    try:
        return ipaddress.ip_address(name).is_loopback
    except ValueError:
        return name == "localhost"


def _is_ours(variable: str, address: Address) -> bool:
    if variable == "WEBPD_METRICS_ADDRESS":
        return "webpd_build_info" in _metrics(address)
    with contextlib.suppress(OSError, http.client.HTTPException, ValueError):
        _, health = client.ask(http.client.HTTPConnection(*address, timeout=_PATIENCE), "GET", "/health")
        return isinstance(health, dict) and "queue" in health
    return False
