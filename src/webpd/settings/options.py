"""Every option of webpd: its type, unit, default and what is allowed."""

import os
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ByteSize, ConfigDict, Field

from webpd.model import Encoding
from webpd.settings.values import (
    Address,
    Owner,
    Rate,
    RedisUrl,
    Token,
    as_address,
    as_byte_rate,
    as_hosts,
    as_list,
    as_mode,
    as_owner,
    as_rate,
    as_redis_url,
    as_seconds,
    as_seconds_or_auto,
    as_socket,
    as_token,
    none_if_auto,
)


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


def _option(default: Any, help_: str, allowed: str, **bounds: Any) -> Any:
    return Field(default, description=help_, json_schema_extra={"allowed": allowed}, **bounds)


class Settings(BaseModel):
    """The options, validated. The description of each is what ``webpd config`` and the documents print."""

    model_config = ConfigDict(extra="forbid", frozen=True, arbitrary_types_allowed=True)

    roots: Annotated[tuple[str, ...], BeforeValidator(as_list)] = _option(
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
    workers: Annotated[int | None, BeforeValidator(none_if_auto)] = _option(
        None, "Codec processes; auto: one for each core.", "auto, or a whole number, 1 to 256", ge=1, le=256
    )
    io_threads: Annotated[int | None, BeforeValidator(none_if_auto)] = _option(
        None,
        "Images being read, converted or written at once; auto: 4 for each worker, at least 32 on SSHFS and 64 on NFS.",
        "auto, or a whole number, 1 to 1024",
        ge=1,
        le=1024,
    )
    owner: Annotated[Owner | None, BeforeValidator(as_owner)] = _option(
        Owner(33, 33), "Owner of the sidecars (33:33 is www-data); keep: whoever runs webpd.", "USER:GROUP, or keep"
    )
    mode: Annotated[int, BeforeValidator(as_mode)] = _option(
        0o644, "Mode of the sidecars, octal.", "an octal mode, 0400 to 0777", ge=0o400, le=0o777
    )
    fsync: Literal["auto", "always", "never"] = _option(
        "auto",
        "Whether a sidecar is on the disk before it gets its name; auto: on local disks.",
        "auto, always or never",
    )
    exclude: Annotated[tuple[str, ...], BeforeValidator(as_list)] = _option(
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
    job_timeout: Annotated[float, BeforeValidator(as_seconds)] = _option(
        60.0, "Longest time for one picture, in seconds.", "a time from 1 to 3600 s, such as 60 or 2m", ge=1, le=3600
    )

    state_dir: Annotated[str | None, BeforeValidator(none_if_auto)] = _option(
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
    poll_interval: Annotated[float, BeforeValidator(as_seconds)] = _option(
        5.0,
        "Seconds between two looks at the mtimes of all folders; stretched so that they take at most 2 % of a core.",
        "a time from 0.1 s to 1d, such as 5 or 1m",
        ge=0.1,
        le=86_400,
    )
    full_interval: Annotated[float, BeforeValidator(as_seconds)] = _option(
        3600.0,
        "Seconds between two passes that list every folder, for files overwritten in place; stretched likewise.",
        "a time from 1 s to 30d, such as 1h",
        ge=1,
        le=30 * 86_400,
    )
    settle: Annotated[float, BeforeValidator(as_seconds)] = _option(
        1.0,
        "Seconds that a file must stay as it is before it is read; at least 1 where mtimes have whole seconds.",
        "a time from 0 to 1h, such as 1 or 0.5s",
        ge=0,
        le=3600,
    )
    cache_time: Annotated[float | None, BeforeValidator(as_seconds_or_auto)] = _option(
        None,
        "Seconds for which a network mount may answer from its cache; auto: what the mount says, else its default.",
        "auto, or a time from 0 to 1h",
        ge=0,
        le=3600,
    )
    role: Literal["all", "watch", "work"] = _option(
        "all",
        "What `webpd run` does: all, or only finding work (watch) or doing it (work) for other hosts on the same tree.",
        "all, watch or work",
    )
    host_name: Annotated[str | None, BeforeValidator(none_if_auto)] = _option(
        None, "Name of this host among several; auto: the machine's.", "auto, or a name", min_length=1, max_length=64
    )
    redis_url: Annotated[RedisUrl | None, BeforeValidator(as_redis_url)] = _option(
        None,
        "Redis that keeps what all hosts may know: image metadata, statistics, the rate limit, who is there.",
        "none, redis://[USER:PASSWORD@]HOST:PORT/DB, rediss://… or unix://[USER:PASSWORD@]/PATH",
    )
    queue_url: Annotated[RedisUrl | None, BeforeValidator(as_redis_url)] = _option(
        None,
        "Redis by which the roles watch and work share a queue; it must not evict.",
        "none, redis://[USER:PASSWORD@]HOST:PORT/DB, rediss://… or unix://[USER:PASSWORD@]/PATH",
    )
    rate_limit: Annotated[Rate | None, BeforeValidator(as_rate)] = _option(
        None,
        "Most images that `webpd run` converts in a time, on all hosts together where they share a Redis.",
        "none, or a number from 1 to 99999 /second, /minute, /hour or /day, such as 600/minute",
    )
    rate_limit_bytes: Annotated[Rate | None, BeforeValidator(as_byte_rate)] = _option(
        None,
        "Most bytes of originals that it converts in a time; a larger image passes alone.",
        "none, or a size from 1KiB /second, /minute, /hour or /day, such as 100MiB/minute",
    )
    rate_limit_urgent: int = _option(
        10,
        "Percent of the rate limit by which images that a visitor waits for may exceed it.",
        "a whole number, 0 to 100",
        ge=0,
        le=100,
    )
    prune_after: Annotated[float, BeforeValidator(as_seconds)] = _option(
        60.0,
        "Seconds for which an original must have been gone before its sidecar is removed.",
        "a time from 1 s to 30d, such as 60 or 1h",
        ge=1,
        le=30 * 86_400,
    )
    prune_folders_after: Annotated[float, BeforeValidator(as_seconds)] = _option(
        600.0,
        "Seconds of quiet after which an empty folder goes that sidecars were removed from.",
        "a time from 1 s to 30d, such as 10m",
        ge=1,
        le=30 * 86_400,
    )
    prune_share: int = _option(
        20,
        "Most sidecars of a root, in percent (100 sidecars in any case; but 10 where no original is left), that may be "
        "removed at once; 0: never any.",
        "a whole number, 0 to 100",
        ge=0,
        le=100,
    )
    health_address: Annotated[Address | None, BeforeValidator(as_address)] = _option(
        Address("127.0.0.1", 8088), "Where `webpd run` answers for its health, and has its page.", "HOST:PORT, or off"
    )
    token: Annotated[Token | None, BeforeValidator(as_token)] = _option(
        None,
        "Secret that the page asks for before it changes anything, and before it shows pictures to other hosts.",
        "none, or 16 to 256 letters, digits and . _ ~ + / -, such as `openssl rand -hex 32` prints",
    )
    allowed_hosts: Annotated[tuple[str, ...], BeforeValidator(as_hosts)] = _option(
        ("localhost", "127.0.0.1", "[::1]"),
        "Names by which browsers may call the page; with any other than these, reading it takes the token as well.",
        "names or addresses without port, comma-separated or a JSON list; IPv6 in brackets",
        min_length=1,
    )
    document_root: Annotated[str | None, BeforeValidator(none_if_auto)] = _option(
        None,
        "Folder whose files the site serves from `/`; auto: the one that holds a root's `upload`, else its parent.",
        "auto, or an absolute path of a folder above the roots",
    )
    hint_socket: Annotated[str | None, BeforeValidator(as_socket)] = _option(
        "/run/webpd/hint.sock",
        "Socket at which nginx tells `webpd run` of images that visitors ask for and that have no sidecar yet.",
        "an absolute path of at most 100 bytes, or off",
    )
    metrics_address: Annotated[Address | None, BeforeValidator(as_address)] = _option(
        Address("127.0.0.1", 9101), "Where `webpd run` answers Prometheus.", "HOST:PORT, or off"
    )
    shutdown_timeout: Annotated[float, BeforeValidator(as_seconds)] = _option(
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
_NONE = {
    "owner": "keep",
    "redis_url": "none",
    "queue_url": "none",
    "token": "none",
    "rate_limit": "none",
    "rate_limit_bytes": "none",
    "health_address": "off",
    "hint_socket": "off",
    "metrics_address": "off",
}


def shown(name: str, value: object) -> str:
    """Return the value of the option as one would write it in the environment."""
    if name == "mode":
        return f"0{value:o}"
    if value is None:
        return _NONE.get(name, "auto")
    if isinstance(value, (Owner, Address, Rate)):
        return str(value)
    if isinstance(value, (RedisUrl, Token)):
        return value.public
    if isinstance(value, ByteSize):
        return value.human_readable(separator="")
    if isinstance(value, tuple):
        return ",".join(value)
    return f"{value:.10g}" if isinstance(value, float) else str(value)


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
