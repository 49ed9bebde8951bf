"""Whether the mount under a root is fit for work, asked in a thread of its own: a hung mount answers nobody."""

import errno
import os
import shlex
import threading
import time
from enum import StrEnum

from webpd.watch.mount import Mount, mount_at, mount_of


class Health(StrEnum):
    """How the mount under a root is."""

    WELL = "well"
    DEAD = "dead"
    """It answers with errors only, or the root is not there."""
    HUNG = "hung"
    """It does not answer."""
    UNMOUNTED = "unmounted"
    """Another file system is there now than when we began: mostly the bare folder below the mount."""
    READ_ONLY = "read_only"
    FULL = "full"


_RETRY = 30.0  # seconds until work tries again where writing failed for want of room and yet there seems to be some

# What only a mount that is gone or a lost connection answers, whichever file was asked for.
_DEAD = frozenset(
    {
        errno.ENOTCONN,
        errno.ECONNABORTED,
        errno.ECONNREFUSED,
        errno.ECONNRESET,
        errno.EHOSTDOWN,
        errno.EHOSTUNREACH,
        errno.ENETDOWN,
        errno.ENETUNREACH,
        errno.ENODEV,
        errno.ESHUTDOWN,
        errno.ETIMEDOUT,
    }
)
_FULL = frozenset({errno.ENOSPC, errno.EDQUOT})
# What may be the file or the mount: on SSHFS, a full disk at the origin shows as EIO or EPERM.
_DOUBTFUL = frozenset({errno.EIO, errno.EPERM, errno.ESTALE})


class MountProbe:
    """Asks the mount under a root how it is. Thread-safe.

    ``mount`` is what the root was on at the beginning; ``seconds`` is how long an answer may take. Whatever could hang
    is called in one daemon thread: as long as it hangs, no other is started for that mount. ``detail`` says of the last
    answer what is wrong, where, and what to do; it is empty when all is well.
    """

    def __init__(self, root: str, mount: Mount, seconds: float = 3.0) -> None:
        self.detail = ""
        self.room: os.statvfs_result | None = None
        """What room there was when the mount last answered."""
        self._root = root
        self._mount = mount
        self._seconds = seconds
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None
        self._asked = mount  # with its device: a thread may hang in a mount that was put away, and another be there
        self._full: tuple[float, bool] | None = None  # since when writing fails, and whether there seemed to be room

    def look(self) -> Health:
        """Ask now; it takes up to ``seconds``. Full it is only while writing has failed and there is still no room."""
        with self._lock:
            found = self._inspect()
            return found if isinstance(found, Health) else self._judge(found)

    def blame(self, error: OSError) -> Health | None:
        """Tell what ails the mount when a read or a write failed so; None where it is that file alone."""
        with self._lock:
            number = error.errno
            if number in _DEAD:
                return self._say(Health.DEAD, _dead(self._mount, error))
            if number == errno.EROFS:
                return self._say(Health.READ_ONLY, _READ_ONLY)
            if number not in _FULL | _DOUBTFUL:
                return self._compare(mount_at(self._mount.point))
            found = self._inspect()
            if isinstance(found, Health):
                return found
            lacking = self._lacking(found)
            if not lacking and number in _DOUBTFUL:
                return None
            self._full = (time.monotonic(), not lacking)
            return self._say(Health.FULL, lacking or _QUOTA)

    def _inspect(self) -> Health | os.statvfs_result:
        """Return what is wrong, or what room there is on a mount that answers and may be written."""
        now = mount_at(self._mount.point)
        if now.kind != "autofs":  # there, asking mounts it
            unmounted = self._compare(now)
            if unmounted is not None:
                return unmounted
        answer = self._ask(now)
        if answer is None:
            return self._say(
                Health.HUNG,
                f"the mount at {self._mount.point} ({self._mount.kind}) did not answer within {self._seconds:g} s: "
                f"check the link and the server; `umount -f -l {shlex.quote(self._mount.point)}` ends what hangs; then "
                "mount again, SSHFS with -o reconnect,ServerAliveInterval=15",
            )
        if isinstance(answer, OSError):
            return self._say(Health.DEAD, _dead(self._mount, answer))
        mount, room = answer
        self.room = room
        unmounted = self._compare(mount)
        if unmounted is not None:
            return unmounted
        if room.f_flag & os.ST_RDONLY:
            return self._say(Health.READ_ONLY, _READ_ONLY)
        return room

    def _ask(self, mount: Mount) -> tuple[Mount, os.statvfs_result] | OSError | None:
        """Ask the mount in a thread; None when there is no answer in time, at once where the last call still hangs."""
        if self._thread is not None and self._thread.is_alive() and mount == self._asked:
            return None
        self._asked = mount
        answers: list[tuple[Mount, os.statvfs_result] | OSError] = []
        self._thread = threading.Thread(target=_answer, args=(self._root, answers), name="mount-probe", daemon=True)
        self._thread.start()
        self._thread.join(self._seconds)
        return answers[0] if answers else None

    def _compare(self, mount: Mount) -> Health | None:
        """Tell whether this is another mount than at the beginning. The same one mounted again is none."""
        was = self._mount
        if (mount.point, mount.kind) == (was.point, was.kind):
            return None
        return self._say(
            Health.UNMOUNTED,
            f"it was on {was.kind} mounted at {was.point} and is on {mount.kind} mounted at {mount.point} now: "
            "mount it again, or restart webpd if this is meant",
        )

    def _judge(self, room: os.statvfs_result) -> Health:
        if self._full is not None:
            since, seemed_free = self._full
            lacking = self._lacking(room)
            if lacking:
                return self._say(Health.FULL, lacking)
            if seemed_free and time.monotonic() - since < _RETRY:
                return self._say(Health.FULL, _QUOTA)
            self._full = None
        return self._say(Health.WELL, "")

    def _lacking(self, room: os.statvfs_result) -> str:
        """Tell what there is none of; "" where there is some. A reserve for root is ours where root on this host is."""
        reserve = self._mount.local and os.geteuid() == 0
        if room.f_blocks and not (room.f_bfree if reserve else room.f_bavail):
            return f"the disk under {self._mount.point} is full: free some (`df -h`)"
        if room.f_files and not (room.f_ffree if reserve else room.f_favail):
            return f"the disk under {self._mount.point} has no inodes left: remove files (`df -i`)"
        return ""

    def _say(self, health: Health, detail: str) -> Health:
        self.detail = f"{self._root}: {detail}" if detail else ""
        return health


_READ_ONLY = "the file system is mounted read-only: find out why (`dmesg`), then `mount -o remount,rw`"
_QUOTA = "writing fails for want of room though the file system has some: check quotas"


def _answer(root: str, answers: list[tuple[Mount, os.statvfs_result] | OSError]) -> None:
    try:
        room = os.statvfs(root)  # of the two, sshfs answers stat from what it remembers, and only stat
        os.stat(root)
        answers.append((mount_of(root), room))
    except OSError as error:
        answers.append(error)


def _dead(mount: Mount, error: OSError) -> str:
    what = os.strerror(error.errno or 0)
    if error.errno in {errno.ENOENT, errno.ENOTDIR}:
        return f"no such folder on {mount.kind} mounted at {mount.point}: was it moved or removed?"
    if error.errno in {errno.EACCES, errno.EPERM}:
        return "no permission to enter: grant it; with SSHFS, mount with -o allow_other"
    if mount.local:
        return f"{what} ({mount.kind} mounted at {mount.point}): check the disk (`dmesg`)"
    return (
        f"the mount at {mount.point} ({mount.kind}) is dead ({what}): check the server and, unless it reconnects by "
        "itself, `umount -l` it and mount it again"
    )
