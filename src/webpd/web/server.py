"""HTTP servers that live in the service's own event loop."""

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator, Iterator

import uvicorn
from starlette.applications import Starlette

from webpd.errors import UnfitError

_BACKLOG = 128
"""Connections that the kernel keeps in line."""


class _Server(uvicorn.Server):
    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Leave the signals to the service."""
        yield


def listen(host: str, port: int, variable: str) -> socket.socket:
    """Return a socket that listens there. Raises ``UnfitError`` where that is not to be had."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((host, port))
        listener.listen(_BACKLOG)
    except OSError as error:
        listener.close()
        raise UnfitError(f"{variable}={host}:{port}: can't listen there: {error.strerror}: choose another") from error
    return listener


@contextlib.asynccontextmanager
async def serving(app: Starlette, host: str, port: int, variable: str) -> AsyncIterator[tuple[str, int]]:
    """Serve the app while the body runs; yields the address. Raises ``UnfitError`` where it can't be had."""
    listener = listen(host, port, variable)
    config = uvicorn.Config(
        app, log_config=None, access_log=False, server_header=False, lifespan="off", timeout_graceful_shutdown=1
    )
    server = _Server(config)
    task = asyncio.create_task(server.serve(sockets=[listener]))
    try:
        yield listener.getsockname()[:2]
    finally:
        server.should_exit = True
        await task
        listener.close()
