"""Every option of webpd: its type, unit, default and environment variable, and where its value came from.

A value is looked for in the flags, then in the environment (``WEBPD_`` and the option's name in capitals), then in a
TOML file (``--config``, ``WEBPD_CONFIG``, else ``/etc/webpd.toml`` if it is there), then in the defaults below.
"""

import json
import os
import re
import tomllib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from grp import getgrnam
from pathlib import Path
from pwd import getpwnam
from typing import Annotated, Any, Literal, NamedTuple

from pydantic import BaseModel, BeforeValidator, ByteSize, ConfigDict, Field, ValidationError

from webpd.errors import UsageError
from webpd.model import Encoding

PREFIX = "WEBPD_"
DEFAULT_FILE = "/etc/webpd.toml"


class Owner(NamedTuple):
    """User and group that a sidecar is given, as numbers."""

    uid: int
    gid: int

    def __str__(self) -> str:
        return f"{self.uid}:{self.gid}"


_NOBODY_AT_ALL = 2**32 - 1  # as chown(2) takes it: "leave as it is"


def available_cores() -> int:
    """Cores this process may use: its CPU affinity, cut by a cgroup v2 quota (as ``docker run --cpus`` sets one)."""
    cores = len(os.sched_getaffinity(0))
    try:
        quota, period = Path("/sys/fs/cgroup/cpu.max").read_text("ascii").split()
        if quota != "max":
            cores = min(cores, max(1, int(quota) // int(period)))
    except (OSError, ValueError):
        pass  # no cgroup v2 here: the affinity is all there is to know
    return cores


def _list(value: object) -> object:
    if not isinstance(value, str):
        return value
    if value.lstrip().startswith("["):
        return json.loads(value)
    return [part.strip() for part in value.split(",") if part.strip()]


def _owner(value: object) -> object:
    if not isinstance(value, str):
        return value
    if value == "keep":
        return None
    user, _, group = value.partition(":")
    try:
        uid = int(user) if user.isdecimal() else getpwnam(user).pw_uid
        gid = int(group) if group.isdecimal() else getgrnam(group).gr_gid
    except KeyError as error:
        raise ValueError(str(error)) from error
    if max(uid, gid) >= _NOBODY_AT_ALL:
        raise ValueError(value)
    return Owner(uid, gid)


def _mode(value: object) -> object:
    if not isinstance(value, str):  # 644 in a TOML file is a decimal number, and no mode that anybody means
        raise ValueError(value)  # noqa: TRY004 - pydantic wants this one
    return int(value, 8)


_SECONDS = {"": 1, "s": 1, "m": 60, "h": 3600, "d": 86400}


def _duration(value: object) -> object:
    if not isinstance(value, str):
        return value
    found = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([smhd]?)", value.strip())
    if not found:
        raise ValueError(value)
    return float(found[1]) * _SECONDS[found[2]]


def _auto(value: object) -> object:
    return None if value == "auto" else value


def _auto_duration(value: object) -> object:
    return None if value == "auto" else _duration(value)


class Address(NamedTuple):
    """Where to listen: a host's name or address, and a TCP port (0: any that is free)."""

    host: str
    port: int

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


def _address(value: object) -> object:
    if not isinstance(value, str):
        return value
    if value == "off":
        return None
    host, colon, port = value.rpartition(":")
    if not colon or not port.isdecimal() or int(port) > 65_535:
        raise ValueError(value)
    return Address(host.strip("[]") or "127.0.0.1", int(port))


_RATE = r"[1-9]\d{0,4}/(second|minute|hour|day)"


def _rate(value: object) -> object:
    return None if value == "none" else value


def _option(default: Any, help_: str, allowed: str, **bounds: Any) -> Any:
    return Field(default, description=help_, json_schema_extra={"allowed": allowed}, **bounds)


class Settings(BaseModel):
    """The options, validated. The description of each is what ``webpd config`` and the documents print."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    roots: Annotated[tuple[str, ...], BeforeValidator(_list)] = _option(
        ("/var/www/cdn/upload/resize_cache",),
        "Folders to convert when the command names none.",
        "folders, comma-separated or a JSON list",
        min_length=1,
    )
    quality: int = _option(
        80,
        "libwebp's quality; a JPEG of lower quality is encoded lower still.",
        "a whole number, 0 to 100",
        ge=0,
        le=100,
    )
    method: int = _option(4, "libwebp's effort: 0 is fast, 6 is small.", "a whole number, 0 to 6", ge=0, le=6)
    workers: Annotated[int | None, BeforeValidator(_auto)] = _option(
        None, "Codec processes; auto: one for each core.", "auto, or a whole number, 1 to 256", ge=1, le=256
    )
    io_threads: Annotated[int | None, BeforeValidator(_auto)] = _option(
        None,
        "Images being read, converted or written at once; auto: 4 for each worker, at least 32 on SSHFS and 64 on NFS.",
        "auto, or a whole number, 1 to 1024",
        ge=1,
        le=1024,
    )
    owner: Annotated[Owner | None, BeforeValidator(_owner)] = _option(
        Owner(33, 33), "Owner of the sidecars (33:33 is www-data); keep: whoever runs webpd.", "USER:GROUP, or keep"
    )
    mode: Annotated[int, BeforeValidator(_mode)] = _option(
        0o644, "Mode of the sidecars, octal.", "an octal mode, 0400 to 0777", ge=0o400, le=0o777
    )
    fsync: Literal["auto", "always", "never"] = _option(
        "auto",
        "Whether a sidecar is on the disk before it gets its name; auto: on local disks.",
        "auto, always or never",
    )
    exclude: Annotated[tuple[str, ...], BeforeValidator(_list)] = _option(
        ("resize_cache/webp", "upload/delight.webpconverter", "upload/dev2fun.imagecompress"),
        "Folders left alone, in place of the default ones, by the end of their path; * and ? as in a shell.",
        "patterns, comma-separated or a JSON list",
    )
    max_pixels: int = _option(
        50_000_000, "Largest picture converted, in pixels of the canvas × frames.", "a whole number from 1", ge=1
    )
    max_source: ByteSize = _option(
        ByteSize(128 << 20),
        "Largest source file read.",
        "a size from 1KiB to 2GiB, such as 128MiB",
        ge=1 << 10,
        le=2 << 30,
    )
    worker_memory: ByteSize = _option(
        ByteSize(3 << 29), "Address space of one codec process.", "a size from 256MiB, such as 1.5GiB", ge=256 << 20
    )
    job_timeout: Annotated[float, BeforeValidator(_duration)] = _option(
        60.0, "Longest time for one picture, in seconds.", "a time from 1 to 3600 s, such as 60 or 2m", ge=1, le=3600
    )

    state_dir: Annotated[str | None, BeforeValidator(_auto)] = _option(
        None,
        "Folder for what `webpd run` remembers; auto: systemd's STATE_DIRECTORY, else /var/lib/webpd for root and "
        "~/.local/state/webpd for others.",
        "auto, or a folder",
        min_length=1,
    )
    watch: Literal["auto", "inotify", "poll"] = _option(
        "auto",
        "How to hear of changes beside polling; auto: inotify where the file system reports all changes.",
        "auto, inotify or poll",
    )
    poll_interval: Annotated[float, BeforeValidator(_duration)] = _option(
        5.0,
        "Seconds between two looks at the mtimes of all folders; stretched so that they take at most 2 % of a core.",
        "a time from 0.1 s to 1d, such as 5 or 1m",
        ge=0.1,
        le=86_400,
    )
    full_interval: Annotated[float, BeforeValidator(_duration)] = _option(
        3600.0,
        "Seconds between two passes that list every folder, for files overwritten in place; stretched likewise.",
        "a time from 1 s to 30d, such as 1h",
        ge=1,
        le=30 * 86_400,
    )
    settle: Annotated[float, BeforeValidator(_duration)] = _option(
        1.0,
        "Seconds that a file must stay as it is before it is read; at least 1 where mtimes have whole seconds.",
        "a time from 0 to 1h, such as 1 or 0.5s",
        ge=0,
        le=3600,
    )
    cache_time: Annotated[float | None, BeforeValidator(_auto_duration)] = _option(
        None,
        "Seconds for which a network mount may answer from its cache; auto: what the mount says, else its default.",
        "auto, or a time from 0 to 1h",
        ge=0,
        le=3600,
    )
    rate_limit: Annotated[str | None, BeforeValidator(_rate)] = _option(
        None,
        "Most images that `webpd run` converts in a time.",
        "none, or a number from 1 to 99999 /second, /minute, /hour or /day, such as 600/minute",
        pattern=f"^{_RATE}$",
    )
    prune_after: Annotated[float, BeforeValidator(_duration)] = _option(
        60.0,
        "Seconds for which an original must have been gone before its sidecar is removed.",
        "a time from 1 s to 30d, such as 60 or 1h",
        ge=1,
        le=30 * 86_400,
    )
    prune_folders_after: Annotated[float, BeforeValidator(_duration)] = _option(
        600.0,
        "Seconds of quiet after which an empty folder goes that sidecars were removed from.",
        "a time from 1 s to 30d, such as 10m",
        ge=1,
        le=30 * 86_400,
    )
    prune_share: int = _option(
        20,
        "Most sidecars of a root, in percent (100 sidecars in any case), that may be removed at once; 0: never any.",
        "a whole number, 0 to 100",
        ge=0,
        le=100,
    )
    health_address: Annotated[Address | None, BeforeValidator(_address)] = _option(
        Address("127.0.0.1", 8088), "Where `webpd run` answers for its health.", "HOST:PORT, or off"
    )
    metrics_address: Annotated[Address | None, BeforeValidator(_address)] = _option(
        Address("127.0.0.1", 9101), "Where `webpd run` answers Prometheus.", "HOST:PORT, or off"
    )
    shutdown_timeout: Annotated[float, BeforeValidator(_duration)] = _option(
        20.0,
        "Seconds that `webpd run` waits for the images in flight when it is told to stop.",
        "a time from 0 to 1h, such as 20",
        ge=0,
        le=3600,
    )
    log_format: Literal["auto", "json", "console"] = _option(
        "auto", "How `webpd run` logs; auto: for people on a terminal, else JSON.", "auto, json or console"
    )

    def syncs(self, *, local: bool) -> bool:
        """Tell whether a sidecar is synced before it gets its name, on a local disk or on a network mount."""
        return local if self.fsync == "auto" else self.fsync == "always"

    @property
    def encoding(self) -> Encoding:
        return Encoding(self.quality, self.method)


# What stands for None, where that is not "auto".
_NONE = {"owner": "keep", "rate_limit": "none", "health_address": "off", "metrics_address": "off"}


@dataclass(frozen=True, slots=True)
class Loaded:
    """The settings, for each option the place that its value came from, and what was read but is no option."""

    settings: Settings
    origin: Mapping[str, str]
    unknown: tuple[str, ...]


def shown(name: str, value: object) -> str:
    """Return the value of the option as one would write it in the environment."""
    if name == "mode":
        return f"0{value:o}"
    if value is None:
        return _NONE.get(name, "auto")
    if isinstance(value, (Owner, Address)):
        return str(value)
    if isinstance(value, ByteSize):
        return value.human_readable(separator="")
    if isinstance(value, tuple):
        return ",".join(value)
    return f"{value:.10g}" if isinstance(value, float) else str(value)


def load(flags: Mapping[str, object], environ: Mapping[str, str], file: str | None = None) -> Loaded:
    """Gather the options; ``flags`` holds only those that were given.

    Raises ``UsageError``: a file named that can't be read or is not TOML, an option that does not exist, a value that
    is not allowed, roots inside one another.
    """
    path = file or environ.get(PREFIX + "CONFIG") or None
    values: dict[str, object] = {}
    origin = dict.fromkeys(Settings.model_fields, "default")
    for name, value in _read_file(path).items():
        values[name], origin[name] = value, f"{path or DEFAULT_FILE}: {name}"
    unknown = []
    for variable, text in environ.items():
        name = variable.removeprefix(PREFIX).lower()
        if variable.startswith(PREFIX) and name in Settings.model_fields:
            values[name], origin[name] = text, variable
        elif variable.startswith(PREFIX) and name != "config":
            unknown.append(variable)
    for name, value in flags.items():
        values[name], origin[name] = value, "--" + name.replace("_", "-")
    try:
        settings = Settings.model_validate(values)
    except ValidationError as error:
        raise UsageError(_explain(error, values, origin)) from error
    refuse_nested(settings.roots, origin["roots"], os.path.abspath)  # asks no mount: the service does that
    return Loaded(settings, origin, tuple(sorted(unknown)))


def refuse_nested(roots: tuple[str, ...], where: str, resolve: Callable[[str], str] = os.path.realpath) -> None:
    """Raise ``UsageError`` when a root is named twice or lies inside another: its images would be done twice."""
    real = sorted((resolve(root), root) for root in roots)
    for place, (outer, named) in enumerate(real):
        for inner, other in real[place + 1 :]:
            if inner == outer or inner.startswith(os.path.join(outer, "")):
                raise UsageError(f"{where}: {other} lies inside {named}: name only the outer one")


def state_dir(settings: Settings) -> str:
    """Return the folder for what is remembered."""
    if settings.state_dir is not None:
        return os.path.abspath(settings.state_dir)
    if given := os.environ.get("STATE_DIRECTORY"):
        return given.split(":")[0]
    if os.geteuid() == 0:
        return "/var/lib/webpd"
    home = os.environ.get("XDG_STATE_HOME") or os.path.expanduser("~/.local/state")
    return os.path.join(home, "webpd")


def database_of(settings: Settings) -> str:
    """Return the path of the database that holds the ledger and the history."""
    return os.path.join(state_dir(settings), "ledger.sqlite")


def _read_file(path: str | None) -> dict[str, object]:
    if path is None and not os.path.exists(DEFAULT_FILE):
        return {}
    path = path or DEFAULT_FILE
    try:
        with open(path, "rb") as file:
            return tomllib.load(file)
    except OSError as error:
        raise UsageError(f"{path}: the settings file can't be read: {error.strerror}") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise UsageError(f"{path}: not valid TOML: {error}") from error


def _explain(error: ValidationError, values: Mapping[str, object], origin: Mapping[str, str]) -> str:
    first = error.errors()[0]
    name = str(first["loc"][0])
    where = origin[name]
    if first["type"] == "extra_forbidden":
        return f"{where}: there is no such option; `webpd config` lists them"
    extra = Settings.model_fields[name].json_schema_extra
    assert isinstance(extra, dict)  # noqa: S101 - _option gives every field one
    return f"{where}={values[name]}: allowed is {extra['allowed']}"
