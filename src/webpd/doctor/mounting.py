"""How a root is mounted: what the kernel and the command line of sshfs say of its options."""

import os
import re
import shlex
import subprocess
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from webpd.doctor.finding import Finding, Topic
from webpd.watch.mount import Mount, cache_time, sshfs_commands

_LONG_CACHE = 60.0  # seconds: NFS's own default, and longer than anybody waits for a picture to get smaller
_ADVISED = "reconnect,ServerAliveInterval=15,ServerAliveCountMax=3,allow_other,default_permissions"
_TABLE = "/etc/fstab"


@dataclass(frozen=True, slots=True)
class _Lack:
    """What a mount lacks: the check, what it comes to, the options that it should have, and what these take first."""

    id: str
    detail: str
    options: str
    first: str = ""


def look(topic: Topic, mount: Mount) -> Iterator[Finding]:
    """Look at the kind of the mount and at its options."""
    kept = cache_time(mount)
    watched = "inotify tells of changes" if mount.reports_all_changes else "changes are found by polling"
    yield topic.ok("mount.kind", f"{mount.kind} mounted at {mount.point}; {watched}")
    if mount.kind == "fuse.sshfs":
        yield from _sshfs(topic, mount, kept)
    elif mount.kind in {"nfs", "nfs4"}:
        yield from _nfs(topic, mount, kept)
    elif not mount.local:
        yield topic.ok("mount.cache", f"what is there may be known {kept:g} s late")


def remount(mount: Mount, options: str = "", *, hangs: bool = False) -> str:
    """Return what puts the mount away and makes it again, with these options besides what it has.

    Where it ``hangs``, whoever waits for it is freed: `umount -f` ends an NFS call, and the connection of FUSE.
    """
    point = shlex.quote(mount.point)
    away = f"umount {'-f ' if hangs else ''}-l {point}"
    if mount.kind == "fuse.sshfs" and not _is_in_table(mount.point):
        return f"`{away} && {shlex.join(['sshfs', *_arguments(mount), *(['-o', options] if options else [])])}`"
    first = f"add {options} to its options in {_TABLE}, then " if options else ""
    return f"{first}`{away} && mount {point}`"


def revive(mount: Mount, *, hangs: bool = False) -> str:
    """Return what mounts again a mount that is dead or ``hangs``, with what SSHFS needs so as not to end so again."""
    given = _joined(_commands(mount)) if mount.kind == "fuse.sshfs" else ""
    looked = [_reconnect(Topic(""), given), _server_alive(Topic(""), mount, given)] if given else []
    return remount(mount, _lacking(looked), hangs=hangs)


def first(point: str, kind: str) -> str:
    """Return what mounts what was at that point, and is not there."""
    name = shlex.quote(point)
    if kind != "fuse.sshfs" or _is_in_table(point):
        return f"`mount {name}`"
    return f"mount it as it was: `sshfs USER@HOST:FOLDER {name} -o {_ADVISED}`"


def _arguments(mount: Mount) -> Sequence[str]:
    """Return what sshfs was given, but for staying in the foreground, or else what is advised."""
    for arguments in _commands(mount):
        return [argument for argument in arguments if argument != "-f"]
    return ["-o", _ADVISED, mount.source, mount.point]


def _commands(mount: Mount) -> list[list[str]]:
    """Return the arguments of each sshfs that names the mount's folder: its source may be mounted elsewhere as well."""
    return [arguments for arguments in sshfs_commands(mount) if mount.point in map(os.path.normpath, arguments)]


def _joined(commands: Iterable[Sequence[str]]) -> str:
    return " ".join(",".join(arguments) for arguments in commands)


def _is_in_table(point: str) -> bool:
    try:
        with open(_TABLE, encoding="utf-8", errors="surrogateescape") as file:
            fields = [line.split() for line in file if not line.lstrip().startswith("#")]
    except OSError:
        return False
    return any(os.path.normpath(field[1]) == point for field in fields if len(field) > 1)


def _sshfs(topic: Topic, mount: Mount, kept: float) -> Iterator[Finding]:
    given = _joined(_commands(mount) or sshfs_commands(mount))
    if not given:
        yield topic.unknown(
            "mount.sshfs", "the command line of its sshfs can't be read", "run `webpd doctor` as root, or as who mounts"
        )
        return
    looked = [
        _reconnect(topic, given),
        _server_alive(topic, mount, given),
        _cache(topic, kept, "dcache_timeout", "dcache_timeout=20"),
        _others(topic, mount),
    ]
    yield from _told(topic, mount, looked)


def _told(topic: Topic, mount: Mount, looked: Sequence[Finding | _Lack]) -> Iterator[Finding]:
    """Tell of each, with one command for all that is lacking: of two, the second would undo the first."""
    again = remount(mount, _lacking(looked))
    for one in looked:
        if isinstance(one, Finding):
            yield one
        else:
            yield topic.warning(one.id, one.detail, f"{one.first}mount with -o {one.options}: {again}")


def _lacking(looked: Sequence[Finding | _Lack]) -> str:
    return ",".join(one.options for one in looked if isinstance(one, _Lack))


def _reconnect(topic: Topic, given: str) -> Finding | _Lack:
    if re.search(r"\breconnect\b", given):
        return topic.ok("mount.reconnect", "sshfs connects again when the link was lost")
    return _Lack(
        "mount.reconnect",
        "sshfs runs without `reconnect`: a lost connection leaves a dead mount, and all waits until somebody mounts it",
        "reconnect",
    )


def _server_alive(topic: Topic, mount: Mount, given: str) -> Finding | _Lack:
    found = re.search(r"ServerAliveInterval[= ](\d+)", given, re.IGNORECASE)
    seconds = int(found[1]) if found else _configured(mount)
    if seconds:
        return topic.ok("mount.server_alive", f"ssh asks for its server every {seconds} s")
    if seconds is None:
        return topic.unknown(
            "mount.server_alive",
            "sshfs runs without ServerAliveInterval, and whether ssh's own files have it can't be read",
            "run `webpd doctor` as root, or as who mounts",
        )
    return _Lack(
        "mount.server_alive",
        "ssh runs without ServerAliveInterval: when the link hangs, the kernel holds every process that touches the "
        "mount, even against SIGKILL, for ever",
        "ServerAliveInterval=15,ServerAliveCountMax=3",
    )


def _configured(mount: Mount) -> int | None:
    """Return the seconds that ssh's own files have for that host, as the user finds them who mounted.

    0: they have none; None: that user's files can't be read.
    """
    owner, root = int(_options(mount).get("user_id", "0")), os.geteuid() == 0
    if not root and os.geteuid() != owner:
        return None
    try:
        done = subprocess.run(  # noqa: S603 - no shell, and with the rights of who mounted: their files may run commands
            ["ssh", "-G", "--", mount.source.partition(":")[0]],  # noqa: S607 - wherever it is
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=3,
            check=True,
            user=owner if root else None,
            group=int(_options(mount).get("group_id", "0")) if root else None,
            extra_groups=[] if root else None,
        )
    except (OSError, subprocess.SubprocessError):
        return None
    found = re.search(r"^serveraliveinterval (\d+)$", done.stdout, re.MULTILINE)
    return int(found[1]) if found else 0


def _others(topic: Topic, mount: Mount) -> Finding | _Lack:
    """Look at who gets in: other users than the one who mounted, such as the web server."""
    options = _options(mount)
    shared, checked = "allow_other" in options, "default_permissions" in options
    by_root = options.get("user_id", "0") == "0"
    if not shared:
        return _Lack(
            "mount.allow_other",
            "mounted without `allow_other`: no user but the one who mounted (not even root) sees what is in it, so the "
            "web server does not either",
            "allow_other,default_permissions",
            ""
            if by_root
            else "put `user_allow_other` into /etc/fuse.conf first, since it is not root who mounts; then ",
        )
    if not checked:
        return _Lack(
            "mount.default_permissions",
            "mounted with `allow_other`, but without `default_permissions`: every user of this host may read and "
            "change all files, whatever their mode",
            "default_permissions",
        )
    return topic.ok("mount.allow_other", "other users get in as the modes of the files say")


def _nfs(topic: Topic, mount: Mount, kept: float) -> Iterator[Finding]:
    options = _options(mount)
    if "soft" in options or "softerr" in options:
        yield topic.warning(
            "mount.hard",
            "mounted `soft`: calls fail after a time, and what was written may be lost without a word",
            f"write hard in place of soft in /etc/fstab, then {remount(mount)}",
        )
    else:
        yield topic.ok("mount.hard", "calls wait for the server (hard)")
    if "noac" in options:
        yield topic.warning(
            "mount.noac",
            "mounted with `noac`: nothing is remembered of files, and each look is a round trip",
            f"take noac out of /etc/fstab, then {remount(mount)}",
        )
    yield from _told(topic, mount, [_cache(topic, kept, "acregmax, acdirmax", "actimeo=20")])


def _cache(topic: Topic, kept: float, option: str, advised: str) -> Finding | _Lack:
    if kept <= _LONG_CACHE + 1:  # libfuse's own second on top
        return topic.ok("mount.cache", f"what is there may be known {kept:g} s late")
    return _Lack(
        "mount.cache",
        f"the mount answers from memory for {kept:g} s ({option}): new pictures are found that late, and settled ones "
        "are looked at again for that long",
        advised,
    )


def _options(mount: Mount) -> Mapping[str, str]:
    return {name: value for name, _, value in (option.partition("=") for option in mount.options)}
