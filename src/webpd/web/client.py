"""How other processes of this machine talk to the service: HTTP over a Unix socket in its state folder."""

import contextlib
import http.client
import json
import os
import socket
from collections.abc import Iterator, Sequence
from typing import Any

from webpd.errors import UnfitError

SOCKET = "control.sock"
"""The name of the socket in the state folder."""

_LONGEST_ANSWER = 16 << 20  # bytes


@contextlib.contextmanager
def reachable(path: str) -> Iterator[str]:
    """Give a name of the file at the path that a socket takes, however long the path is (unix(7): 107 bytes)."""
    folder = os.open(os.path.dirname(path) or ".", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield f"/proc/self/fd/{folder}/{os.path.basename(path)}"
    finally:
        os.close(folder)


class _Connection(http.client.HTTPConnection):
    def __init__(self, path: str, seconds: float) -> None:
        super().__init__("localhost", timeout=seconds)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self.timeout)
        with reachable(self._path) as short:
            self.sock.connect(short)


def ask(connection: http.client.HTTPConnection, method: str, url: str, body: bytes | None = None) -> tuple[int, Any]:
    """Return the status of the answer and the JSON in it, and close the connection.

    Raises ``OSError`` where nobody answers (``TimeoutError``: in time), ``http.client.HTTPException`` or ``ValueError``
    where the answer is none.
    """
    with contextlib.closing(connection):
        connection.request(method, url, body)
        answer = connection.getresponse()
        return answer.status, json.loads(answer.read(_LONGEST_ANSWER))


def connect(path: str, seconds: float) -> http.client.HTTPConnection:
    """Return a connection to the Unix socket at the path, not open yet; each step may take so many seconds."""
    return _Connection(path, seconds)


def retry(path: str, paths: Sequence[str], seconds: float) -> int:
    """Have the service at that socket try failed images again, at and below those absolute paths; none: all.

    Return how many they are. Raises ``ConnectionRefusedError`` or ``FileNotFoundError`` where no service listens,
    ``UnfitError`` where it does not do so.
    """
    try:
        status, answer = ask(connect(path, seconds), "POST", "/retry", json.dumps({"paths": list(paths)}).encode())
        if status == 200:
            return int(answer["retried"])
        refusal = str(answer["error"])
    except (ConnectionRefusedError, FileNotFoundError):
        raise
    except PermissionError as error:
        raise UnfitError(
            f"{path}: can't be asked ({error.strerror}): run this as the user of the service, or as root"
        ) from error
    except TimeoutError as error:
        raise UnfitError(f"{path}: no answer within {seconds:g} s: see the log of the service") from error
    except (OSError, http.client.HTTPException, ValueError, LookupError, TypeError) as error:
        raise UnfitError(f"{path}: the service gave no answer ({error!r}): see its log") from error
    raise UnfitError(f"{path}: the service refused: {refusal}")
