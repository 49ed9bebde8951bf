"""The socket at which nginx gives hints: whether it is there or can be made, and how many hints may wait at it."""

import errno
import os
import shlex
import socket
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
    folder = os.path.dirname(path)
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as caller:
            caller.connect(path)
        return topic.ok("hints.socket", "somebody listens there")
    except OSError as error:
        if error.errno not in {errno.ENOENT, errno.ECONNREFUSED}:
            cure = f"`ls -l {shlex.quote(path)}`: remove what is there, or name another socket"
            return topic.warning("hints.socket", f"nginx can't give hints: {error.strerror}", cure)
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
