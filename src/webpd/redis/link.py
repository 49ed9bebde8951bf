"""The way to one Redis: a client that is never waited for longer than said, and says once when it is gone or back."""

import asyncio
import contextlib
import ipaddress
import random
import socket
import threading
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace
from typing import Any, TypeVar, cast

import structlog
from redis.asyncio import Redis
from redis.asyncio.connection import ConnectionPool, parse_url
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import RedisError

from webpd.errors import RetryableError, UsageError
from webpd.redis import PREFIX
from webpd.redis.faults import explain
from webpd.settings import RedisUrl

T = TypeVar("T")

_CONNECTIONS = 8
"""Calls at once; others wait for their turn."""
_PATIENCE = 1.0
"""Seconds after which a server that does not answer counts as gone."""
_LOOK_EVERY = 5.0
_FIRST_DELAY, _LAST_DELAY = 0.5, 30.0
_PROBE = f"{PREFIX}probe"
_PROBE_KEPT = 60
"""Seconds."""
_PROBE_SCRIPT = "redis.call('HSET', KEYS[1], 'there', 1) redis.call('EXPIRE', KEYS[1], ARGV[1])"

_log = structlog.get_logger(__name__)


class RedisDownError(RetryableError):
    """Redis did not do it, or nobody knows whether it did."""


@dataclass(frozen=True, slots=True)
class LinkState:
    """Whether Redis answers, since when (Unix time, seconds), and what is wrong if not.

    ``errors`` counts the calls that went wrong; those not even tried while it is down are not among them.
    """

    up: bool
    since: float
    detail: str
    errors: int


def open_client(url: RedisUrl, variable: str) -> Redis:
    """Return a client that tries everything once, without a time limit once it is connected: the caller has the clock.

    Nothing is sent yet. Raises ``UsageError``: a URL that redis-py does not understand.
    """
    try:
        options: dict[str, Any] = {
            **parse_url(url),
            "client_name": "webpd",
            "decode_responses": False,  # paths need not be UTF-8
            "driver_info": None,  # a round trip less, and Redis before 7.2 does not know the command
            "health_check_interval": 0,
            "max_connections": _CONNECTIONS + 1,  # the last one is for looking whether Redis still answers
            "protocol": 2,  # with 3, redis-py does not look whether a connection still has an answer to an earlier call
            "retry": Retry(NoBackoff(), 0),
            "socket_connect_timeout": _PATIENCE,
            "socket_timeout": None,  # a second clock would cost a task for each command
        }
        pool = ConnectionPool(**options)
        pool.make_connection()  # type: ignore[no-untyped-call]  # options that nobody knows show here
    except (RedisError, TypeError, ValueError) as error:
        raise UsageError(f"{variable}={url.public}: {error}") from error
    return Redis(connection_pool=pool)


class RedisLink:
    """One Redis for one event loop. While it is down, nobody waits for it, and it is looked for ever more rarely.

    ``changed`` is called with the new state when it changes, but for the number of errors. ``variable`` names the
    setting that the URL is from; ``meanwhile`` says what happens while it is down. Raises ``UsageError`` as
    ``open_client`` does.
    """

    def __init__(
        self,
        url: RedisUrl,
        *,
        changed: Callable[[LinkState], object] = lambda _: None,
        variable: str = "WEBPD_REDIS_URL",
        meanwhile: str = "this host goes on by itself",
    ) -> None:
        self._url = url
        self._meanwhile = meanwhile
        self._changed = changed
        self._variable = variable
        self._client = open_client(url, variable)
        host = self._client.connection_pool.connection_kwargs.get("host")
        self._lookup = _Lookup(host) if host and not _is_address(host) else None
        self._room = asyncio.Semaphore(_CONNECTIONS)
        self._state = LinkState(up=False, since=time.time(), detail="was not asked yet", errors=0)
        self._up = asyncio.Event()
        self._doubt = asyncio.Event()

    @property
    def state(self) -> LinkState:
        return self._state

    async def run(self) -> None:
        """Look after the link until cancelled."""
        delay = _FIRST_DELAY
        while True:
            self._doubt.clear()
            with contextlib.suppress(RedisDownError):
                await self._call(self._look, _PATIENCE, probing=True)
                self._went_well()
            if self._state.up:
                # Who answers a probe and soon fails again is not worth a quick look each time.
                if time.time() - self._state.since >= _LAST_DELAY:
                    delay = _FIRST_DELAY
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(_LOOK_EVERY):  # wait_for of Python 3.11 may swallow a cancellation
                        await self._doubt.wait()
            if not self._state.up:
                # Connections that were idle have nothing more to say; those in use end with their calls.
                with contextlib.suppress(RedisError):
                    await self._client.connection_pool.disconnect(inuse_connections=False)
                await asyncio.sleep(random.uniform(0.5, 1) * delay)  # noqa: S311 - hosts are not to come all at once
                delay = min(2 * delay, _LAST_DELAY)

    async def ask(self, work: Callable[[Redis], Awaitable[T]], *, within: float = 1.0) -> T:
        """Return what ``work`` returns, within so many seconds. Cancelling it is safe.

        Raises ``RedisDownError``, at once while Redis is down, and when the call fails or takes longer; then it may
        have been done or not. Redis is down when it refuses something or takes more than a second; a lost connection
        or a call that had less time only make ``run`` look at once.
        """
        if not self._state.up:
            raise RedisDownError(f"Redis at {self._url.public} {self._state.detail}")
        return await self._call(work, within)

    async def until_up(self) -> None:
        """Wait until Redis answers."""
        await self._up.wait()

    async def close(self) -> None:
        """Let go of all connections. ``run`` must have ended, and no call may follow."""
        with contextlib.suppress(RedisError):
            await self._client.connection_pool.aclose()

    async def _look(self, client: Redis) -> None:
        if self._lookup and not self._state.up:
            await self._lookup.look()
        await _probe(client)

    async def _call(self, work: Callable[[Redis], Awaitable[T]], within: float, *, probing: bool = False) -> T:
        try:
            async with asyncio.timeout(within), contextlib.nullcontext() if probing else self._room:
                return await work(self._client)
        except (RedisError, OSError) as error:
            self._state = replace(self._state, errors=self._state.errors + 1)
            detail = explain(error, min(within, _PATIENCE), self._variable)  # one text, whoever met the fault
            hasty = isinstance(error, TimeoutError) and within < _PATIENCE
            if probing or not (hasty or isinstance(error, RedisConnectionError)):
                self._went_down(detail)
            self._doubt.set()
            raise RedisDownError(f"Redis at {self._url.public} {detail}") from error

    def _went_well(self) -> None:
        if not self._state.up:
            self._up.set()
            self._become(replace(self._state, up=True, since=time.time(), detail=""))
            _log.info("redis answers", url=self._url.public)

    def _went_down(self, detail: str) -> None:
        before = self._state
        self._up.clear()
        self._become(replace(before, up=False, since=time.time() if before.up else before.since, detail=detail))
        if before.up or before.detail != detail:
            _log.warning(f"redis is down: {self._meanwhile}", url=self._url.public, detail=detail)

    def _become(self, state: LinkState) -> None:
        before, self._state = self._state, state
        if (before.up, before.detail) != (state.up, state.detail):
            self._changed(state)


def _is_address(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True


async def _probe(client: Redis) -> None:
    """Write, as the history does: a server that answers PING may be full, a replica, without a disk, or forbid it."""
    await cast("Any", client.eval(_PROBE_SCRIPT, 1, _PROBE, _PROBE_KEPT))


class _Lookup:
    """Looks whether a host's name is known, one look at a time, in a thread of its own.

    The event loop's threads are few, and its end waits for them: a name server that hangs would hold up all others.
    """

    def __init__(self, host: str) -> None:
        self._host = host
        self._thread: threading.Thread | None = None

    async def look(self) -> None:
        """Return when the name is known. Raises ``OSError``; ``TimeoutError``: the look before hangs still."""
        if self._thread is not None and self._thread.is_alive():
            raise TimeoutError
        loop = asyncio.get_running_loop()
        found: asyncio.Future[None] = loop.create_future()

        def look() -> None:
            error: OSError | None = None
            try:
                socket.getaddrinfo(self._host, None)
            except OSError as caught:
                error = caught
            except UnicodeError as caught:  # no name can be like that: the codec "idna" refuses it
                error = socket.gaierror(socket.EAI_NONAME, str(caught))
            with contextlib.suppress(RuntimeError):  # the loop has ended
                loop.call_soon_threadsafe(tell, error)

        def tell(error: OSError | None) -> None:
            if found.done():
                return
            if error is None:
                found.set_result(None)
            else:
                found.set_exception(error)

        self._thread = threading.Thread(target=look, name="redis-name", daemon=True)
        self._thread.start()
        await found
