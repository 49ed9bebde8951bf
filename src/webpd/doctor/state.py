"""The folder in which the service keeps what it remembers, and the database in it."""

import contextlib
import glob
import os
import shlex
import tempfile
from collections.abc import Iterator

from rich.filesize import decimal

from webpd.doctor import rights
from webpd.doctor.finding import Finding, Topic
from webpd.errors import UnfitError
from webpd.ledger.sqlite import read_ledger
from webpd.settings import Settings, database_of, state_dir
from webpd.watch.mount import Mount, mount_of

_TIGHT = 256 << 20
"""Bytes: the database of a million images, and its log."""


def topic(settings: Settings) -> Topic:
    return Topic(f"state folder {state_dir(settings)}")


def look(settings: Settings) -> Iterator[Finding]:
    """Look at the folder, at the disk that it is on, and into the database."""
    if settings.role == "work":
        return
    one, folder = topic(settings), state_dir(settings)
    there = folder
    while not os.path.exists(there):  # up to the folder that it is going to be made in
        there = os.path.dirname(there)
    mount = mount_of(there)
    yield _kind(one, mount)
    yield _writable(one, folder, there)
    yield _room(one, there)
    if there == folder:
        yield from _database(one, database_of(settings))


def _kind(one: Topic, mount: Mount) -> Finding:
    if not mount.local:
        return one.fault(
            "state.local",
            f"is on {mount.kind} mounted at {mount.point}: SQLite's locks and its log do not hold there, "
            "and the service would stop with the link",
            "`WEBPD_STATE_DIR=/var/lib/webpd`, or another folder on a disk of this machine",
        )
    if mount.kind in {"tmpfs", "ramfs"}:
        return one.warning(
            "state.local",
            f"is in memory ({mount.kind} mounted at {mount.point}): all is forgotten with the next boot",
            "`WEBPD_STATE_DIR=/var/lib/webpd`, or another folder on a disk",
        )
    return one.ok("state.local", f"on {mount.kind}, a file system of this machine")


def _writable(one: Topic, folder: str, there: str) -> Finding:
    user = os.geteuid()
    name, above = (shlex.quote(path) for path in (folder, there))
    try:
        if not os.path.isdir(there):
            raise NotADirectoryError
        if there != folder:
            if not os.access(there, os.W_OK | os.X_OK):
                raise PermissionError
            return one.ok("state.writable", "is not there yet, and can be made")
        with tempfile.TemporaryFile(dir=folder) as file:
            file.write(b"webpd doctor\n")
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        what = os.strerror(error.errno) if error.errno else type(error).__name__
        return one.fault(
            "state.writable",
            f"nothing can be written in {there} ({what})",
            f"`install -d -m 700 -o {user} {name}` as root, or make room there (`df -h {above}`), or "
            "name another folder by WEBPD_STATE_DIR",
        )
    status = os.stat(folder)
    owner = status.st_uid
    if owner != user and user == 0:
        return one.ok("state.writable", f"can be written; it belongs to user {owner}, as whom the service is to run")
    if owner != user:
        return one.warning(
            "state.writable",
            f"belongs to user {owner}, and this is user {user}: what one of them makes there the other can't change",
            f"{rights.doctor_as(owner, status.st_gid, folder)} looks as that user would; run the service always as the "
            "same one",
        )
    return one.ok("state.writable", "can be written")


def _room(one: Topic, there: str) -> Finding:
    room = os.statvfs(there)
    free = (room.f_bavail if os.geteuid() else room.f_bfree) * room.f_frsize
    if free >= _TIGHT:
        return one.ok("state.room", f"{decimal(free)} free")
    return one.warning(
        "state.room",
        f"{decimal(free)} free: without room the service goes on, and forgets what it learns",
        f"make room: `df -h {shlex.quote(there)}`, or name another folder by WEBPD_STATE_DIR",
    )


def _database(one: Topic, database: str) -> Iterator[Finding]:
    name = shlex.quote(database)
    if not os.path.exists(database):
        yield one.ok("state.database", "nothing is remembered yet")
    else:
        try:
            roots = read_ledger(database).roots()
        except UnfitError as error:
            detail, _, cure = str(error).rpartition(": ")
            yield one.fault("state.database", detail, f"{cure} (`systemctl restart webpd`)")
        else:
            size = os.path.getsize(database)
            yield one.ok("state.database", f"{decimal(size)}, {len(roots):,} root{'s' * (len(roots) != 1)} remembered")
    with contextlib.suppress(OSError):
        if damaged := sorted(glob.glob(f"{glob.escape(database)}.damaged-*")):
            yield one.warning(
                "state.damaged",
                f"a damaged database was set aside: {damaged[0]}; the history before it is lost",
                f"check the disk (`dmesg`, `smartctl -a`); then `rm {name}.damaged-*`",
            )
