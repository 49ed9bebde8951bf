"""The socket at which nginx gives hints: whether it is there or can be made, and how many hints may wait at it."""

import os
import shlex
import socket
import stat
from collections.abc import Iterator

from webpd.doctor.finding import Finding, Topic
from webpd.settings import Settings

_MOST_WAITING = "/proc/sys/net/unix/max_dgram_qlen"
_ENOUGH = 256
"""Images of one page, that a browser asks for at once; the kernel's own choice is 10, systemd's is 512."""


def look(settings: Settings) -> Iterator[Finding]:
    """Look at the socket, where one is wanted."""
    path = settings.hint_socket
    if path is None or settings.role == "work":
        return
    topic = Topic(f"WEBPD_HINT_SOCKET={path}")
    yield _socket(topic, path)
    yield _waiting(topic)


def _socket(topic: Topic, path: str) -> Finding:
    try:
        if not stat.S_ISSOCK(os.lstat(path).st_mode):
            return _blocked(topic, path, "it is there and no socket")
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as caller:
            caller.connect(path)
        return topic.ok("hints.socket", "somebody listens there")
    except (FileNotFoundError, ConnectionRefusedError):
        pass  # nobody does
    except OSError as error:
        return _blocked(topic, path, error.strerror)
    folder = os.path.dirname(path)
    while not os.path.isdir(folder):
        folder = os.path.dirname(folder)
    if os.access(folder, os.W_OK | os.X_OK):
        return topic.ok("hints.socket", "can be made")
    wanted = shlex.quote(os.path.dirname(path))
    return topic.warning(
        "hints.socket",
        f"nginx can't give hints: {folder} is not writable for user {os.geteuid()}",
        f"`install -d -m 755 -o www-data {wanted}`, or whoever runs webpd in place of www-data; or "
        "`WEBPD_HINT_SOCKET=off`",
    )


def _blocked(topic: Topic, path: str, why: str | None) -> Finding:
    cure = f"`ls -l {shlex.quote(path)}`: remove what is there, or name another socket"
    return topic.warning("hints.socket", f"nginx can't give hints: {why}", cure)


def _waiting(topic: Topic) -> Finding:
    with open(_MOST_WAITING, encoding="ascii") as file:
        most = int(file.read())
    if most >= _ENOUGH:
        return topic.ok("hints.waiting", f"{most:,} hints may wait at it")
    return topic.warning(
        "hints.waiting",
        f"only {most:,} hints may wait at it: of a page with many new images some are lost, and given by a later "
        "visitor",
        "`sysctl -w net.unix.max_dgram_qlen=512`, and the same in /etc/sysctl.d; then restart webpd",
    )
