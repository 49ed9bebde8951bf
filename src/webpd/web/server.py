"""HTTP servers that live in the service's own event loop."""

import asyncio
import contextlib
import os
import socket
from collections.abc import AsyncIterator, Iterator

import uvicorn
from starlette.applications import Starlette

from webpd.errors import UnfitError
from webpd.web.client import reachable
from webpd.web.connection import IDLE_TIME, LONGEST_HEAD, UNREAD_TIME, LimitedConnection, bounded

_BACKLOG = 64
"""Connections that the kernel keeps in line, and that are taken in at once."""


class _Server(uvicorn.Server):
    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Leave the signals to the service."""
        yield


def listen(host: str, port: int, variable: str) -> socket.socket:
    """Return a socket that listens there. Raises ``UnfitError`` where that is not to be had."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    # The protocol is named because asyncio turns Nagle's algorithm off only where it is: with it, each answer waits for
    # the 40 ms after which the client acknowledges the first half of it.
    listener = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    # What is accepted inherits this: a client that is gone without a word is given up (tcp(7), milliseconds).
    listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, int(UNREAD_TIME * 1000))
    try:
        listener.bind((host, port))
        listener.listen(_BACKLOG)
    except OSError as error:
        listener.close()
        raise UnfitError(f"{variable}={host}:{port}: can't listen there: {error.strerror}: choose another") from error
    return listener


def listen_unix(path: str) -> socket.socket:
    """Return a Unix socket that listens at the path, for our own user alone, in place of whatever was left there.

    Raises ``UnfitError`` where that is not to be had.
    """
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(path)
        with reachable(path) as short:
            listener.bind(short)
        os.chmod(path, 0o600)  # before it listens: until then nobody is let in
        listener.listen(_BACKLOG)
    except OSError as error:
        listener.close()
        raise UnfitError(
            f"{path}: can't listen there ({error.strerror}): make room and make its folder writable, or name another "
            "folder on a local disk by WEBPD_STATE_DIR"
        ) from error
    return listener


@contextlib.asynccontextmanager
async def serving(app: Starlette, host: str, port: int, variable: str) -> AsyncIterator[tuple[str, int]]:
    """Serve the app while the body runs; yields the address. Raises ``UnfitError`` where it can't be had."""
    listener = listen(host, port, variable)
    async with _serving(app, listener):
        yield listener.getsockname()[:2]


@contextlib.asynccontextmanager
async def serving_unix(app: Starlette, path: str) -> AsyncIterator[None]:
    """Serve the app at a Unix socket of that path while the body runs; it may be longer than what a socket takes.

    Nobody else may listen there: what is there is removed, at the start and in the end. Raises ``UnfitError`` where it
    can't be had.
    """
    listener = listen_unix(path)
    try:
        async with _serving(app, listener):
            yield
    finally:
        with contextlib.suppress(OSError):  # the next start removes it
            os.unlink(path)


@contextlib.asynccontextmanager
async def _serving(app: Starlette, listener: socket.socket) -> AsyncIterator[None]:
    config = uvicorn.Config(
        bounded(app),
        http=LimitedConnection,
        ws="none",
        lifespan="off",
        interface="asgi3",
        log_config=None,
        log_level="error",  # anybody can make it warn
        access_log=False,
        server_header=False,
        backlog=_BACKLOG,
        h11_max_incomplete_event_size=LONGEST_HEAD,
        timeout_keep_alive=IDLE_TIME,
        timeout_graceful_shutdown=1,
    )
    server = _Server(config)
    task = asyncio.create_task(server.serve(sockets=[listener]))
    try:
        yield
    finally:
        server.should_exit = True
        await task
        listener.close()
