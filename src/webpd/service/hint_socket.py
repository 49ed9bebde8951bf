"""The socket at which nginx tells of images that visitors ask for: one datagram each, which nobody waits for."""

import asyncio
import contextlib
import errno
import json
import os
import socket
import stat
from collections.abc import Callable, Iterator

import structlog

from webpd.errors import UnfitError

_log = structlog.get_logger(__name__)

_LONGEST = 32 << 10
"""Bytes of a datagram that are read: a path of 4,095 bytes, each written as ``\\u00XX``, and what is before it."""
_MOST_A_TURN = 100
_REST = 0.02
"""Seconds of rest after so many datagrams in one turn of the loop: what comes faster has no room in the kernel."""
_ELSE = "name another one by WEBPD_HINT_SOCKET, or set it to off"


@contextlib.contextmanager
def hearing(path: str, hear: Callable[[str | None], None]) -> Iterator[str]:
    """Listen at the path while the body runs; ``hear`` is told of each path, None for what is no hint.

    Yields "", or why that is not to be had, and after a colon what to do: then the body runs all the same. Belongs to
    the running event loop.
    """
    try:
        listener = open_socket(path)
    except UnfitError as error:
        _log.warning("nginx can't tell which images visitors ask for", detail=str(error))
        yield str(error)
        return
    mine = _identity(path)
    ear = _Ear(listener, hear)
    try:
        yield ""
    finally:
        ear.close()
        if mine is not None and _identity(path) == mine:
            with contextlib.suppress(OSError):  # the next start removes it
                os.unlink(path)


def open_socket(path: str) -> socket.socket:
    """Return a socket that takes datagrams at the path from any user, in place of one that nobody has any more.

    Its folder is made if there is none. Raises ``UnfitError`` where that is not to be had.
    """
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    listener.setblocking(False)
    try:
        _make_folder(os.path.dirname(path))
        _clear(path)
        listener.bind(path)
        os.chmod(path, 0o666)  # noqa: S103 - nginx's workers have a user of their own
    except OSError as error:
        listener.close()
        raise UnfitError(
            f"{path}: can't listen there ({error.strerror}): make its folder, writable for the user of webpd, "
            f"or {_ELSE}"
        ) from error
    except UnfitError:
        listener.close()
        raise
    return listener


def path_in(data: bytes) -> str | None:
    """Return the path that a datagram of nginx tells of, None where it tells of none.

    It is ``<PRI>TIMESTAMP TAG: {"path": "…"}``, with bytes of the path that are not UTF-8 as they are.
    """
    _, brace, told = data.partition(b": {")
    if not data.startswith(b"<") or not brace:
        return None
    try:
        message = json.loads(os.fsdecode(b"{" + told))
    except (ValueError, RecursionError):
        return None
    path = message.get("path")
    return path if isinstance(path, str) else None


def _identity(path: str) -> tuple[int, int] | None:
    """Return what tells the file at the path from another one, None where there is none."""
    try:
        status = os.lstat(path)
    except OSError:
        return None
    return status.st_dev, status.st_ino


def _make_folder(folder: str) -> None:
    if not os.path.isdir(folder):
        os.makedirs(folder)
        os.chmod(folder, 0o755)  # noqa: S103 - whatever the umask is


def _clear(path: str) -> None:
    """Remove a socket that nobody has. Raises ``UnfitError`` where somebody has it, or it is something else."""
    try:
        if not stat.S_ISSOCK(os.lstat(path).st_mode):
            raise UnfitError(f"{path}: is there and no socket: remove it, {_ELSE}")
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as caller:
            caller.connect(path)
    except FileNotFoundError:
        return
    except OSError as error:
        if error.errno == errno.ECONNREFUSED:
            os.unlink(path)
            return
        if error.errno != errno.EPROTOTYPE:
            raise
    raise UnfitError(f"{path}: another process listens there: end it and restart webpd, {_ELSE}")


class _Ear:
    """Reads what comes, a bounded number each turn of the event loop."""

    def __init__(self, listener: socket.socket, hear: Callable[[str | None], None]) -> None:
        self._listener = listener
        self._hear = hear
        self._loop = asyncio.get_running_loop()
        self._pause: asyncio.TimerHandle | None = None
        self._listen()

    def close(self) -> None:
        if self._pause is not None:
            self._pause.cancel()
        self._loop.remove_reader(self._listener)
        self._listener.close()

    def _listen(self) -> None:
        self._pause = None
        self._loop.add_reader(self._listener, self._read)

    def _read(self) -> None:
        for _ in range(_MOST_A_TURN):
            try:
                data = self._listener.recv(_LONGEST)
            except OSError:  # nothing more, for now
                return
            self._hear(path_in(data))
        self._loop.remove_reader(self._listener)
        self._pause = self._loop.call_later(_REST, self._listen)
