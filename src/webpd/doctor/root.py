"""One root: there, answering, readable, writable, and what is in it."""

import errno
import os
import shlex
from collections.abc import Iterator

from rich.filesize import decimal

from webpd.doctor import mounting, rights, tree, writing
from webpd.doctor.finding import Finding, Topic
from webpd.errors import UnfitError
from webpd.ledger.sqlite import read_ledger
from webpd.settings import Settings, database_of, state_dir
from webpd.watch.health import Health, MountProbe
from webpd.watch.mount import Mount, mount_at, mount_of, mounts_below

_PATIENCE = 3.0  # seconds that the mount has for its answer
_TIGHT = 0.05  # of the room, or of the inodes
_TRIED = 3  # folders that are written to


def look(path: str, settings: Settings) -> Iterator[Finding]:
    """Look at the root, and at what is mounted below it: these are roots of their own."""
    topic = Topic(path)
    findings = list(_presence(topic, path, settings))
    yield from findings
    if any(finding.verdict == "fault" for finding in findings):
        return
    yield from _inside(topic, path, settings)
    for mount in mounts_below(path):
        if os.path.isdir(mount.point):
            yield from _inside(Topic(mount.point), mount.point, settings)


def hung(path: str, detail: str) -> Finding:
    """Return what to say of a root whose mount does not answer."""
    mount = mount_at(path)
    return Topic(path).fault(
        "root.answers",
        f"the {mount.kind} mounted at {mount.point} hangs: {detail}",
        f"look at the link and the server, and at `dmesg | tail`; {mounting.revive(mount, hangs=True)} frees whoever "
        "waits, and mounts it again",
    )


def _presence(topic: Topic, path: str, settings: Settings) -> Iterator[Finding]:
    mount = mount_at(path)
    if MountProbe(path, mount, _PATIENCE).look() is Health.HUNG:
        yield hung(path, f"no answer within {_PATIENCE:g} s")
        return
    before = _mounted_before(path, settings)
    if before is not None and not before.local and before.kind != mount.kind:
        yield topic.fault(
            "root.mounted",
            f"was on {before.kind} mounted at {before.point} when webpd last saw it, and is on {mount.kind} "
            "now: not mounted",
            mounting.first(before.point, before.kind),
        )
        return
    try:
        with os.scandir(path) as listed:
            next(listed, None)
    except OSError as error:
        yield _missing(topic, error, path, mount)
    else:
        yield topic.ok("root.there", "is there, answers, and can be listed")


def _missing(topic: Topic, error: OSError, path: str, mount: Mount) -> Finding:
    what, name = os.strerror(error.errno or 0), shlex.quote(path)
    match error.errno:
        case errno.ENOENT:
            cure = (
                f"mount what should be there (`findmnt -T {name}`, `mount -a`), or name another folder by WEBPD_ROOTS"
            )
        case errno.ENOTDIR:
            cure = "name a folder by WEBPD_ROOTS; `webpd convert` takes single images"
        case errno.EACCES | errno.EPERM if mount.kind.startswith("fuse"):
            again = mounting.remount(mount, "allow_other,default_permissions")
            cure = f"mount with -o allow_other: {again}; or run webpd as the user who mounted"
        case errno.EACCES | errno.EPERM:
            cure = f"`namei -l {name}` shows where it ends; then {rights.grant(rights.owner_of(path), path, mount)}"
        case errno.ENOTCONN | errno.ESTALE | errno.EIO if not mount.local:
            cure = f"the mount is dead: {mounting.revive(mount)}"
        case _:
            cure = f"`dmesg | tail`, and `findmnt -T {name}`"
    return topic.fault("root.there", f"can't be looked at: {what} (on {mount.kind} mounted at {mount.point})", cure)


def _mounted_before(path: str, settings: Settings) -> Mount | None:
    """Return what the root was on when a service last saw it."""
    if not mount_at(state_dir(settings)).local:
        return None  # who knows whether it answers; that folder has a check of its own
    try:
        kind, _, point = (read_ledger(database_of(settings)).kind(path) or "").partition(" ")
    except UnfitError:
        return None
    return Mount(point, kind) if kind else None


def _inside(topic: Topic, path: str, settings: Settings) -> Iterator[Finding]:
    mount = mount_of(path)
    yield from mounting.look(topic, mount)
    room = os.statvfs(path)
    if room.f_flag & os.ST_RDONLY:
        yield writing.refusal(topic, OSError(errno.EROFS, ""), path, path, mount)
    sample = tree.walk(path, settings)
    yield from tree.look(topic, path, sample, settings)
    if room.f_flag & os.ST_RDONLY:
        return
    folders = sample.folders[:: max(1, len(sample.folders) // _TRIED)][:_TRIED] or [path]
    for number, folder in enumerate(folders):
        findings = list(writing.look(topic, folder, path, mount, settings))
        yield from (one for one in findings if number == 0 or one.verdict != "ok")
        if any(one.id == "root.writable" and one.verdict != "ok" for one in findings):
            break
    yield from _room(topic, path, room, mount)


def _room(topic: Topic, path: str, room: os.statvfs_result, mount: Mount) -> Iterator[Finding]:
    name = shlex.quote(path)
    reserve = mount.local and os.geteuid() == 0
    blocks, inodes = (room.f_bfree, room.f_ffree) if reserve else (room.f_bavail, room.f_favail)
    told = f"{decimal(blocks * room.f_frsize)} free"
    for id_, there, free, what, command in (
        ("root.room", room.f_blocks, blocks, told, f"`df -h {name}`"),
        ("root.inodes", room.f_files, inodes, f"{inodes:,} inodes free", f"`df -i {name}`"),
    ):
        if not there:
            continue  # a file system that does not count them
        cure = f"make room: {command} shows the disk; `webpd prune --yes {name}` removes sidecars without original"
        if not free:
            yield topic.fault(id_, f"full: {what}", cure)
        elif free < _TIGHT * there:
            yield topic.warning(id_, f"nearly full: {what}, {free / there:.0%}", cure)
        else:
            yield topic.ok(id_, f"{what}, {free / there:.0%}")
