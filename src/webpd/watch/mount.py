"""What kind of file system a path is on, which others are mounted below it, and how stale its answers may be."""

import glob
import os
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

# File systems whose every change this kernel makes itself: no round trips, and fsync means a disk of ours.
_LOCAL = frozenset(
    {"ext2", "ext3", "ext4", "xfs", "btrfs", "zfs", "f2fs", "bcachefs", "jfs", "tmpfs", "ramfs", "overlay"}
)
# Of these, the ones whose every change inotify is known to tell (an overlay's lower layers change without a word).
_TELLS_ALL = frozenset({"ext4", "xfs", "btrfs", "zfs", "f2fs", "tmpfs"})

_NFS_CACHE = 60.0  # seconds: acregmax and acdirmax by default, nfs(5)
_CIFS_CACHE = 1.0  # seconds: actimeo by default, mount.cifs(8)
_SSHFS_CACHE = 20.0  # seconds: dcache_timeout by default, sshfs(1); taken for what is not known, too
_FUSE_CACHE = 1.0  # seconds: attr_timeout and entry_timeout by default, mount.fuse3(8)

# sshfs's names for how long it keeps attributes and listings; without the d in versions before 3.
_SSHFS_TIMEOUTS = re.compile(r"(d?cache(_stat|_dir)?_timeout)=(\d+)")
_FUSE_TIMEOUTS = re.compile(r"(attr_timeout|entry_timeout)=([0-9.]+)")


_FUSE_THREADS = 32
_NETWORK_THREADS = 64


@dataclass(frozen=True, slots=True)
class Mount:
    """A mount as /proc/self/mountinfo tells of it: its folder and its type, such as ``ext4`` or ``fuse.sshfs``.

    ``device`` is its number as in ``st_dev`` (btrfs gives subvolumes others), ``source`` what is mounted, such as a
    device or ``user@host:/folder``; ``options`` are those of the file system.
    """

    point: str
    kind: str
    device: int = 0
    source: str = ""
    options: tuple[str, ...] = ()

    @property
    def local(self) -> bool:
        return self.kind in _LOCAL

    @property
    def useful_threads(self) -> int:
        """How many threads that wait for a network mount are of use.

        libfuse 3.12 and later answers 10 calls at once unless the file system asks for more (fuse_common.h,
        FUSE_LOOP_MT_DEF_MAX_THREADS), and sshfs does not; earlier ones answer as many as there are. With far more in
        line than are answered, names expire before they are used.
        """
        return _FUSE_THREADS if self.kind.startswith("fuse") else _NETWORK_THREADS

    @property
    def reports_all_changes(self) -> bool:
        """Whether inotify is known to tell of every change in it."""
        return self.kind in _TELLS_ALL


@dataclass(frozen=True, slots=True)
class _Entry:
    id: int
    parent: int
    mount: Mount


def mount_of(path: str) -> Mount:
    """Return the mount that holds the path, wherever links lead. May hang where the mount hangs."""
    return mount_at(os.path.realpath(path))


def mount_at(path: str) -> Mount:
    """Return the mount that holds the path, an absolute one without links, and ask no file system."""
    return _holder(_entries(), path)


def mounts_below(path: str) -> list[Mount]:
    """Return what is mounted inside the folder, in order of the mount points. May hang where the mount hangs."""
    real = os.path.realpath(path)
    entries = _entries()
    points = sorted({entry.mount.point for entry in entries if entry.mount.point != real})
    return [_holder(entries, point) for point in points if _holds(real, point) and _is_mounted(entries, point)]


def cache_time(mount: Mount) -> float:
    """Return for how many seconds the mount may answer from what it remembers of files and folders.

    For SSHFS that is what the command line of the process behind it says; 21 s where there is none to be read. All of
    /proc is read for that: ask once.
    """
    if mount.local:
        return 0.0
    if mount.kind in {"nfs", "nfs4"}:
        return 0.0 if "noac" in mount.options else _longest(mount.options, ("acregmax", "acdirmax"), _NFS_CACHE)
    if mount.kind in {"cifs", "smb3"}:
        return _longest(mount.options, ("actimeo", "acregmax", "acdirmax"), _CIFS_CACHE)
    if mount.kind == "fuse.sshfs":
        return max(map(_sshfs_cache_time, sshfs_commands(mount)), default=_SSHFS_CACHE + _FUSE_CACHE)
    return _SSHFS_CACHE


def sshfs_commands(mount: Mount) -> Iterator[list[str]]:
    """Yield the arguments of each sshfs process that may be the one behind the mount."""
    for path in glob.iglob("/proc/[0-9]*/cmdline"):
        try:
            with open(path, "rb") as file:
                program, *arguments = os.fsdecode(file.read().removesuffix(b"\0")).split("\0")
        except OSError:
            continue  # it has ended meanwhile
        if "sshfs" in os.path.basename(program) and any(_names(argument, mount) for argument in arguments):
            yield arguments


def _entries() -> list[_Entry]:
    with open("/proc/self/mountinfo", encoding="utf-8", errors="surrogateescape") as file:
        return [_parse(line.rstrip("\n")) for line in file]


def _parse(line: str) -> _Entry:
    before, _, after = line.partition(" - ")  # proc_pid_mountinfo(5): optional fields end with a hyphen
    number, parent, device, _, point, *_ = before.split(" ")
    kind, source, options = after.split(" ", 2)
    major, _, minor = device.partition(":")
    mount = Mount(
        _unescape(point), kind, os.makedev(int(major), int(minor)), _unescape(source), tuple(options.split(","))
    )
    return _Entry(int(number), int(parent), mount)


def _holder(entries: Sequence[_Entry], path: str) -> Mount:
    """Go down from the root as the kernel does: on each mount, the first mount point on the way leads to the next."""
    known = {entry.id for entry in entries}
    here, mount = None, Mount("/", "")
    while True:
        ways = [
            entry
            for entry in entries
            if (entry.parent not in known if here is None else entry.parent == here.id)
            and entry is not here
            and _holds(entry.mount.point, path)
        ]
        if not ways:
            return mount
        here = min(ways, key=lambda entry: len(entry.mount.point))
        mount = here.mount


def _is_mounted(entries: Sequence[_Entry], point: str) -> bool:
    """Tell whether one gets to what is mounted there, and not to another mount that hides it."""
    return _holder(entries, point).point == point


def _holds(point: str, path: str) -> bool:
    return path == point or path.startswith(os.path.join(point, ""))


def _unescape(text: str) -> str:
    return re.sub(r"\\([0-7]{3})", lambda found: chr(int(found[1], 8)), text)


def _longest(options: Sequence[str], names: Sequence[str], default: float) -> float:
    """Return the longest of the times of these names; those not among the options have the default."""
    given = dict(option.split("=", 1) for option in options if "=" in option)
    if names[0] == "actimeo" and "actimeo" in given:
        return float(given["actimeo"])
    return max(float(given.get(name, default)) for name in names)


def _names(argument: str, mount: Mount) -> bool:
    """Tell whether an argument is the mount's folder, perhaps relative to where sshfs was started, or its source."""
    if not argument or argument.startswith("-"):
        return False
    folder = os.path.normpath(argument)
    if os.path.isabs(folder):
        return folder == mount.point
    return argument == mount.source or mount.point.endswith(f"/{folder}")


def _sshfs_cache_time(arguments: Sequence[str]) -> float:
    options = ",".join(arguments)
    kept = {name: float(seconds) for name, _, seconds in _SSHFS_TIMEOUTS.findall(options)}
    both = kept.get("dcache_timeout", kept.get("cache_timeout", _SSHFS_CACHE))
    stat = kept.get("dcache_stat_timeout", kept.get("cache_stat_timeout", both))
    listing = kept.get("dcache_dir_timeout", kept.get("cache_dir_timeout", both))
    kernel = max((float(seconds) for _, seconds in _FUSE_TIMEOUTS.findall(options)), default=_FUSE_CACHE)
    off = re.search(r"\b(dir_)?cache=no\b", options)
    return (0.0 if off else max(stat, listing)) + kernel
