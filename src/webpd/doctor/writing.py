"""Whether sidecars can be put into a folder, tried as the publisher does it, with files that are removed again."""

import contextlib
import errno
import os
import shlex
import time
from collections.abc import Iterator

from webpd.doctor import rights
from webpd.doctor.finding import Finding, Topic
from webpd.settings import Settings
from webpd.tree.naming import TEMPORARY_PREFIX, TEMPORARY_SUFFIX
from webpd.watch.mount import Mount

_MTIME_NS = 1_600_000_001_000_000_000  # nanoseconds: long past, and odd: FAT has even seconds only
_CLOCKS_AGREE = 5.0  # seconds
_CLOCKS_TRUSTED = 86_400.0  # seconds: what the service relies on for mounts (docs/architecture.md)
_SECOND = 1_000_000_000


class _Trial:
    """Two files of ours in a folder, and what became of them."""

    def __init__(self, folder: str, mode: int) -> None:
        # The service removes such a file after an hour, should this process be killed right now.
        stem = os.path.join(folder, f"{TEMPORARY_PREFIX}doctor-{os.getpid()}-0-")
        self.first, self.second = (f"{stem}{number}{TEMPORARY_SUFFIX}" for number in (1, 2))
        self._mode = mode

    def write(self, path: str) -> int:
        """Make the file, with bytes in it; return its descriptor, to be closed by the caller."""
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW, self._mode)
        os.write(descriptor, b"webpd doctor\n")
        return descriptor

    def clear(self) -> None:
        for path in (self.first, self.second):
            with contextlib.suppress(OSError):
                os.unlink(path)


def look(topic: Topic, folder: str, root: str, mount: Mount, settings: Settings) -> Iterator[Finding]:
    """Try all that publishing into a folder below the root takes: write, owner, mode, time, sync, rename, remove."""
    trial = _Trial(folder, settings.mode)
    try:
        yield from _try(trial, topic, folder, mount, settings)
    except OSError as error:
        yield refusal(topic, error, folder, root, mount)
    finally:
        trial.clear()


def _try(trial: _Trial, topic: Topic, folder: str, mount: Mount, settings: Settings) -> Iterator[Finding]:
    begun = time.time()
    descriptor = trial.write(trial.first)
    try:
        made, ended = os.fstat(descriptor), time.time()
        yield _mode(topic, descriptor, made, settings.mode)
        os.utime(descriptor, ns=(_MTIME_NS, _MTIME_NS))
        yield _owner(topic, descriptor, made, mount, settings)
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
    yield _clock(topic, made.st_mtime, begun, ended)
    yield _time(topic, os.stat(trial.first).st_mtime_ns, mount)
    os.close(trial.write(trial.second))
    try:
        os.rename(trial.first, trial.second)
    except OSError as error:
        yield _rename(topic, error, mount)
    else:
        yield topic.ok("root.rename", "a file can take the place of another in one step (posix-rename)")
        os.unlink(trial.second)
    yield topic.ok("root.writable", f"files can be made, synced and removed in {folder}")


def _mode(topic: Topic, descriptor: int, made: os.stat_result, wanted: int) -> Finding:
    try:
        if made.st_mode & 0o7777 != wanted:
            os.fchmod(descriptor, wanted)
        got = os.fstat(descriptor).st_mode & 0o7777
    except PermissionError:
        got = made.st_mode & 0o7777
    if got == wanted:
        return topic.ok("root.mode", f"sidecars get the mode 0{wanted:o}")
    return topic.warning(
        "root.mode",
        f"sidecars get the mode 0{got:o}, and WEBPD_MODE=0{wanted:o} can't be had here",
        f"`WEBPD_MODE=0{got:o}` if the web server can read such files; else mount without umask= and fmask=",
    )


def _owner(topic: Topic, descriptor: int, made: os.stat_result, mount: Mount, settings: Settings) -> Finding:
    now, wanted = (made.st_uid, made.st_gid), settings.owner
    if wanted is None:
        return topic.ok(
            "root.owner", f"sidecars stay with who makes them (WEBPD_OWNER=keep); this is {now[0]}:{now[1]}"
        )
    try:
        if now != wanted:
            os.fchown(descriptor, *wanted)
            after = os.fstat(descriptor)
            now = (after.st_uid, after.st_gid)
    except PermissionError:
        pass
    if now == wanted:
        return topic.ok("root.owner", f"sidecars get the owner {wanted}")
    why = "the SFTP user is not root there" if mount.kind == "fuse.sshfs" else "it takes root, or CAP_CHOWN"
    if mount.local and os.geteuid():
        cure = f"run webpd as root, or `setpriv --reuid={wanted.uid} --regid={wanted.gid} --clear-groups webpd …`, or "
    else:
        cure = ""
    return topic.warning(
        "root.owner",
        f"sidecars can't be given to {wanted} (WEBPD_OWNER) and stay with {now[0]}:{now[1]}: {why}",
        f"{cure}`WEBPD_OWNER=keep`",
    )


def _time(topic: Topic, got_ns: int, mount: Mount) -> Finding:
    if got_ns // _SECOND == _MTIME_NS // _SECOND:
        return topic.ok("root.times", "files keep the time that they are given")
    return topic.fault(
        "root.times",
        f"files do not keep the time that they are given on this {mount.kind}: no sidecar would ever count as fresh",
        f"put the tree on a file system that keeps times; `findmnt -T {shlex.quote(mount.point)}` shows it",
    )


def _clock(topic: Topic, made: float, begun: float, ended: float) -> Finding:
    ahead = max(made - ended, 0.0) or min(made - begun, 0.0)
    apart = abs(ahead)
    if apart <= _CLOCKS_AGREE:
        return topic.ok("root.clock", "the clock behind the mount and ours agree")
    detail = f"the clock behind the mount is {apart:,.0f} s {'ahead of' if ahead > 0 else 'behind'} ours"
    cure = "on both hosts: `timedatectl set-ntp true`; `date` shows which one is wrong"
    if apart > _CLOCKS_TRUSTED:
        return topic.fault("root.clock", f"{detail}: what just changed on it may look as if it had long settled", cure)
    return topic.warning("root.clock", detail, cure)


def _rename(topic: Topic, error: OSError, mount: Mount) -> Finding:
    return topic.fault(
        "root.rename",
        f"a file can't take the place of another ({os.strerror(error.errno or 0)}): sidecars could never be renewed",
        "let the other host serve SFTP by OpenSSH (`Subsystem sftp internal-sftp` in its sshd_config), which knows "
        "posix-rename"
        if mount.kind == "fuse.sshfs"
        else f"`findmnt -T {shlex.quote(mount.point)}` shows the file system: use one that can",
    )


def refusal(topic: Topic, error: OSError, folder: str, root: str, mount: Mount) -> Finding:
    """Return what to say where nothing can be written in the folder."""
    number, name, point = error.errno or 0, shlex.quote(folder), shlex.quote(mount.point)
    what = os.strerror(number)
    match number:
        case errno.ENOSPC | errno.EDQUOT:
            cure = f"make room: `df -h {name}` and `df -i {name}` show how much there is, `quota` what a user may take"
        case errno.EROFS:
            cure = f"`dmesg | tail` may say why; then `mount -o remount,rw {point}`"
        case errno.EACCES | errno.EPERM if os.geteuid():
            owner = rights.owner_of(folder)
            what, cure = f"{what} (it belongs to {owner})", rights.grant(owner, root, mount)
        case errno.EACCES | errno.EPERM:
            cure = (
                f"`lsattr -d {name}` shows flags such as i, which `chattr -i` takes away; behind SSHFS, the SFTP user "
                "needs the right on the other host"
            )
        case errno.EIO if not mount.local:
            cure = "on the other host: `df -h`, `df -i` (a full disk there looks so here) and `dmesg | tail`"
        case _:
            cure = f"`dmesg | tail`, and `findmnt -T {name}`"
    return topic.fault("root.writable", f"nothing can be written in {folder}: {what}", cure)
