"""What kind of file system a path is on."""

import os
import re
from dataclasses import dataclass

# File systems whose every change this kernel makes itself: no round trips, and fsync means a disk of ours.
_LOCAL = frozenset(
    {"ext2", "ext3", "ext4", "xfs", "btrfs", "zfs", "f2fs", "bcachefs", "jfs", "tmpfs", "ramfs", "overlay"}
)


@dataclass(frozen=True, slots=True)
class Mount:
    """A mount as /proc/self/mountinfo tells of it: its folder and its type, such as ``ext4`` or ``fuse.sshfs``."""

    point: str
    kind: str

    @property
    def local(self) -> bool:
        return self.kind in _LOCAL


def mount_of(path: str) -> Mount:
    """Return the mount that holds the path: of all mount points above it the nearest, and of those the latest."""
    real = os.path.realpath(path)
    nearest = Mount("/", "")
    with open("/proc/self/mountinfo", encoding="utf-8", errors="surrogateescape") as file:
        for line in file:
            before, _, after = line.partition(" - ")  # proc_pid_mountinfo(5): optional fields end with a hyphen
            point = _unescape(before.split(" ")[4])
            if _holds(point, real) and len(point) >= len(nearest.point):
                nearest = Mount(point, after.split(" ")[0])
    return nearest


def _holds(point: str, path: str) -> bool:
    return path == point or path.startswith(os.path.join(point, ""))


def _unescape(text: str) -> str:
    return re.sub(r"\\([0-7]{3})", lambda found: chr(int(found[1], 8)), text)
