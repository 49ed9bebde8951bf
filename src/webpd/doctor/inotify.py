"""Whether the kernel has watches enough for the folders of the roots that are heard from by inotify."""

import ctypes
import os
from collections.abc import Iterator, Sequence

from webpd.doctor import tree
from webpd.doctor.finding import Finding, Topic
from webpd.errors import UnfitError
from webpd.ledger.sqlite import read_ledger
from webpd.settings import Settings, database_of
from webpd.watch.mount import mount_at

_TOPIC = Topic("inotify")
_MOST_WATCHED = 100_000
"""Of a root: FileWatcher's own bound."""
_SECONDS = 1.0
_LIMITS = ("/proc/sys/fs/inotify/max_user_{}", "/proc/sys/user/max_inotify_{}")
"""The second one is that of the user name space, such as a container's; the lower one counts."""
_WEBPD_TAKES = 0.9
"""Of all watches: editors, desktops and log shippers of the same user want some too."""


def look(paths: Sequence[str], settings: Settings) -> Iterator[Finding]:
    """Compare the limits with what the roots need."""
    if settings.watch == "poll" or settings.role == "work":
        return
    watched = [path for path in paths if _is_watched(path, settings) and os.path.isdir(path)]
    if not watched:
        yield _TOPIC.ok("inotify.watches", "not used: no root is on a file system that tells of all changes")
        return
    needed, whole = 0, True
    for path in watched:
        folders, known = _folders(path, settings)
        needed, whole = needed + min(folders, _MOST_WATCHED), whole and known
    yield _watches(needed, whole=whole)
    yield _instances(len(watched))


def _is_watched(path: str, settings: Settings) -> bool:
    return settings.watch == "inotify" or mount_at(path).reports_all_changes


def _folders(path: str, settings: Settings) -> tuple[int, bool]:
    """Return how many folders the root has, as remembered or else as a short walk counts them; and whether all."""
    try:
        if remembered := read_ledger(database_of(settings)).totals(path).directories:
            return remembered, True
    except UnfitError:
        pass  # nothing is remembered yet, or the state folder's own check says why it can't be read
    sample = tree.walk(path, settings, _SECONDS)
    return sample.directories, sample.whole


def _watches(needed: int, *, whole: bool) -> Finding:
    limit = _limit("watches")
    wanted = f"{'' if whole else 'at least '}{needed:,} folders are to be watched"
    if needed <= _WEBPD_TAKES * limit:
        return _TOPIC.ok("inotify.watches", f"{limit:,} watches allowed to a user; {wanted}")
    advised = max(1 << 19, 1 << (2 * needed).bit_length())
    return _TOPIC.warning(
        "inotify.watches",
        f"{limit:,} watches are allowed to a user, and {wanted}: changes in the others are found only by polling",
        f"`echo fs.inotify.max_user_watches={advised} >> /etc/sysctl.d/60-webpd.conf && sysctl --system`",
    )


def _instances(needed: int) -> Finding:
    libc = ctypes.CDLL(None, use_errno=True)
    opened: list[int] = []
    try:
        while len(opened) < needed and (descriptor := libc.inotify_init1(os.O_CLOEXEC)) >= 0:
            opened.append(descriptor)
        problem = os.strerror(ctypes.get_errno())
    finally:
        for descriptor in opened:
            os.close(descriptor)
    limit = _limit("instances")
    if len(opened) == needed:
        return _TOPIC.ok("inotify.instances", f"{limit:,} instances allowed to a user, and {needed:,} to be had")
    return _TOPIC.warning(
        "inotify.instances",
        f"{limit:,} instances are allowed to a user, and no more are to be had now ({problem}): such roots are only "
        "polled",
        f"`echo fs.inotify.max_user_instances={max(1024, 2 * limit)} >> /etc/sysctl.d/60-webpd.conf && "
        "sysctl --system`, or `ulimit -n`",
    )


def _limit(what: str) -> int:
    limits = []
    for pattern in _LIMITS:
        try:
            with open(pattern.format(what), encoding="ascii") as file:
                limits.append(int(file.read()))
        except FileNotFoundError:
            continue  # a kernel without user name spaces, or without inotify
    return min(limits, default=0)
