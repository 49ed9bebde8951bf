"""docket, as this queue uses it: batches of one root are added, and delivered to those who work, again if one dies.

docket pickles what a task is called with, and a pickle can run code. Here a task is called with one text: what else
comes out of Redis is thrown away before it is unpickled. Strikes and cancellations, which docket reads from Redis
too, are not used, and not read.
"""

import asyncio
import contextlib
import io
import logging
import pickle
from collections.abc import AsyncGenerator, Collection
from datetime import datetime, timedelta
from typing import Any, Protocol, cast

import structlog
from docket import Docket, Worker
from docket.strikelist import StrikeList
from redis.asyncio import Redis
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import RedisError

from webpd.queue.cluster.claims import ended_places
from webpd.queue.cluster.wire import Batch
from webpd.redis.link import RedisDownError, RedisLink
from webpd.settings import RedisUrl

_log = structlog.get_logger(__name__)

_TASK = "convert"
_BLOCK = 250
"""Milliseconds for which a worker waits for a batch, before it looks for those of dead hosts."""
_MANY = 1000


class Station(Protocol):
    """Where batches go on a host that works."""

    async def gate(self) -> bool:
        """Wait until another batch is wanted, or for about a second; tell whether one is."""

    def expect(self, key: str) -> None:
        """The batch of this key will be received soon."""

    async def receive(self, batch: Batch, ended: Collection[int]) -> None:
        """Return when all of the batch but the places ``ended`` has been reported."""


class Engine(Docket):
    """The batches of the root whose keys begin with ``place``; an asynchronous context manager.

    They are put into it, or those of ``root`` taken to a ``station``.
    """

    def __init__(
        self, place: str, url: RedisUrl, link: RedisLink, root: str = "", station: Station | None = None
    ) -> None:
        super().__init__(
            name=place,
            url=str(url),
            heartbeat_interval=timedelta(seconds=10),
            execution_ttl=timedelta(0),  # nobody asks for results: nothing stays
        )
        _hear_docket()
        self._link = link
        self._reader: Redis | None = None
        self.root = root
        self.station = station
        self.redelivered: set[str] = set()

        async def convert(batch: str) -> None:
            assert station is not None  # noqa: S101 - no worker runs without one
            received = Batch.decode(batch, root)
            await station.receive(received, await self._ended(received))

        self.tasks.clear()
        self.register(convert, names=[_TASK])

    @property
    def strike_list(self) -> StrikeList:
        return self._strikes

    @strike_list.setter
    def strike_list(self, _: StrikeList) -> None:
        self._strikes = StrikeList()  # without a URL: it is empty, and asks nobody

    async def _ended(self, batch: Batch) -> Collection[int]:
        """Return what a host that died has done of a batch."""
        if batch.key in self.redelivered:
            self.redelivered.remove(batch.key)
            with contextlib.suppress(RedisDownError):  # then it is done twice
                return await ended_places(self._link, self.name, [item.job for item in batch.items])
        return ()

    async def put(self, key: str, batch: str) -> None:
        """Add a batch. Raises ``RedisError``; then it may have been added or not."""
        await self.add(_TASK, key=key)(batch)

    async def work(self, name: str, lease: float) -> None:
        """Take batches until cancelled; then end when those taken have ended. ``name`` is that of this worker alone.

        What a worker has that was not heard of for ``lease`` seconds goes to another one.
        """
        worker = _Worker(
            self,
            name=name,
            concurrency=_MANY,  # the gate decides how many there are
            redelivery_timeout=timedelta(seconds=lease),  # a live one is heard of four times as often
            reconnection_delay=timedelta(seconds=1),  # that only asks the link again
            scheduling_resolution=timedelta(hours=1),  # nothing is ever put off
            schedule_automatic_tasks=False,
        )
        running = None
        try:
            async with worker:
                running = asyncio.create_task(worker.run_forever())
                await asyncio.wait([running])
            # Leaving ends it, but lets it read to the end: what Redis has given away by then is not left behind.
            await running
        finally:
            if running is not None:
                running.cancel()

    @contextlib.asynccontextmanager
    async def redis(self) -> AsyncGenerator[Any, None]:
        """Give docket its client, but while the link is known to be down: then nobody else is to knock."""
        if not self._link.state.up:
            raise RedisConnectionError(self._link.state.detail)
        async with super().redis() as client:
            pool = cast("Redis", client).connection_pool
            if self._reader is None or self._reader.connection_pool is not pool:
                self._reader = _Reader(self, pool)
            yield self._reader


class _Worker(Worker):
    async def _cancellation_listener(self) -> None:
        """Nobody cancels a batch: this saves a connection, ten wake-ups a second, and the right to all channels."""
        if self._processing_session is not None:
            self._processing_session.cancellation_ready.set()


class _Reader(Redis):
    """Gives docket's worker the batches that are wanted, and only what is fit to be unpickled."""

    def __init__(self, engine: Engine, pool: Any) -> None:
        super().__init__(connection_pool=pool)
        self._engine = engine

    async def xreadgroup(self, groupname: Any, consumername: Any, streams: Any, **options: Any) -> Any:  # type: ignore[override]
        station = self._engine.station
        if station is None or not await station.gate():
            return []
        answer = await super().xreadgroup(groupname, consumername, streams, **{**options, "count": 1, "block": _BLOCK})
        streams = [(stream, await self._fit(messages)) for stream, messages in cast("Any", answer) or []]
        for _, messages in streams:
            for _, message in messages:
                station.expect(message[b"key"].decode())
        return streams

    async def xautoclaim(self, *names: Any, **options: Any) -> Any:
        cursor, messages, *rest = await super().xautoclaim(*names, **options)
        fit = await self._fit(messages)
        self._engine.redelivered.update(message[b"key"].decode() for _, message in fit if message)
        return [cursor, fit, *rest]

    async def _fit(self, messages: Any) -> list[tuple[bytes, dict[bytes, bytes]]]:
        fit = []
        for number, message in messages:
            if message and not _is_fit(message, self._engine.root):
                _log.warning(
                    "a message in the queue that webpd did not write: thrown away", key=str(message.get(b"key"))
                )
                await self._throw_away(number, message)
            else:
                fit.append((number, message))
        return fit

    async def _throw_away(self, number: bytes, message: dict[bytes, bytes]) -> None:
        stream, group = self._engine.stream_key, self._engine.worker_group_name
        async with self.pipeline(transaction=False) as pipeline:
            pipeline.xack(stream, group, number)
            pipeline.xdel(stream, number)
            pipeline.delete(self._engine.runs_key("").encode() + message.get(b"key", b""))
            await pipeline.execute()


class _Texts(pickle.Unpickler):
    """Unpickles what consists of texts, and tuples and dictionaries of these: nothing else needs a class looked up."""

    def find_class(self, module: str, name: str) -> Any:
        raise pickle.UnpicklingError(f"{module}.{name}")


def _is_fit(message: dict[bytes, bytes], root: str) -> bool:
    try:
        arguments = _Texts(io.BytesIO(message[b"args"])).load()
        more = _Texts(io.BytesIO(message[b"kwargs"])).load()
        datetime.fromisoformat(message[b"when"].decode())
        numbers = int(message[b"attempt"]), int(message.get(b"generation", b"0"))
        (text,) = arguments
        fits = isinstance(arguments, tuple) and more == {} and min(numbers) >= 0
        return (
            fits and message[b"function"] == _TASK.encode() and Batch.decode(text, root).key == message[b"key"].decode()
        )
    except Exception:  # a pickle can fail in any way
        return False


class _Heard(logging.Handler):
    """Passes on what docket says, but for what our link to the same Redis says better."""

    def emit(self, record: logging.LogRecord) -> None:
        error = record.exc_info[1] if record.exc_info else None
        if "Redis" in str(record.msg) or _of_redis(error):
            return
        exc_info = record.exc_info if record.levelno >= logging.ERROR else None
        _log.log(record.levelno, "the engine of the queue", detail=record.getMessage(), exc_info=exc_info)


def _of_redis(error: BaseException | None) -> bool:
    if isinstance(error, BaseExceptionGroup):
        return error.split(RedisError)[1] is None
    return isinstance(error, RedisError)


def _hear_docket() -> None:
    """Let docket say what matters: not a line for each task, nor a traceback for each second without Redis."""
    logger = logging.getLogger("docket")
    if not any(isinstance(handler, _Heard) for handler in logger.handlers):
        logger.setLevel(logging.WARNING)
        logger.propagate = False
        logger.addHandler(_Heard())
