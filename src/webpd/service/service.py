"""The service as a whole: what is started, in which order, how it is told to stop, and how it stops."""

import asyncio
import contextlib
import hashlib
import logging
import os
import signal
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import structlog

from webpd import __version__
from webpd.convert.frames import Limits
from webpd.convert.pool import CodecPool
from webpd.convert.result import REVISION
from webpd.errors import WebpdError
from webpd.ledger.port import Ledger
from webpd.ledger.sqlite import SqliteLedger
from webpd.queue.manager import QueueManager
from webpd.queue.port import Lane
from webpd.service.keeper import Keeper, Shared
from webpd.service.notify import notify, watchdog_interval
from webpd.service.places import Place, find, remember
from webpd.settings import Settings, available_cores, database_of
from webpd.telemetry import log
from webpd.telemetry.metrics import Metrics
from webpd.tree.sidecar import fingerprint_of
from webpd.web.app import health_app, metrics_app
from webpd.web.server import listen, serving

if TYPE_CHECKING:
    from webpd.queue.rate import RateLimit

_log = structlog.get_logger(__name__)

_THREADS_PER_WORKER = 4
_LAST_WAIT = 3.0
"""Seconds that threads get to end once the codec processes are gone."""
_MOUNTS_INTERVAL = 10.0


def run(settings: Settings, paths: Sequence[str] | None, load: Callable[[], Settings], *, once: bool) -> Metrics:
    """Run the service on the paths, or else on the settings' roots, until it is told to stop; return its numbers.

    ``load`` returns the settings as they are now; ``once`` ends it after one pass. Raises ``WebpdError``.
    """
    metrics = Metrics()
    following: Settings | None = settings
    left = False
    while following is not None:
        log.configure(following.log_format)
        signal.signal(signal.SIGHUP, signal.SIG_IGN)  # until this life has a loop that heeds it
        following, stuck = asyncio.run(_live(following, paths, metrics, load, once=once))
        left |= stuck
    if left:
        logging.shutdown()
        os._exit(0)  # the interpreter would wait for threads that hang in a mount
    return metrics


async def _live(
    settings: Settings, paths: Sequence[str] | None, metrics: Metrics, load: Callable[[], Settings], *, once: bool
) -> tuple[Settings | None, bool]:
    service = Service(settings, paths or settings.roots, metrics, load, once=once)
    return await service.run(), service.stuck


class Service:
    """One life of the service, from start to stop. A change of settings begins another one.

    ``reload`` returns the settings as they are now; raises ``UsageError``. ``once`` ends it after one pass.
    """

    def __init__(
        self,
        settings: Settings,
        paths: Sequence[str],
        metrics: Metrics,
        reload: Callable[[], Settings],
        *,
        once: bool = False,
    ) -> None:
        self._settings = settings
        self._paths = paths
        self._metrics = metrics
        self._reload = reload
        self._once = once
        self._keepers: list[Keeper] = []
        self._queue: QueueManager | None = None
        self._pool: CodecPool | None = None
        self._codecs_ready = False
        self._stop = asyncio.Event()
        self._hurry = asyncio.Event()
        self._next: Settings | None = None
        self._ending = False
        self._ledger: Ledger | None = None
        self._reloading: asyncio.Task[None] | None = None
        self.stuck = False
        """Whether threads were left behind in a hung mount, that would keep the process from ending by itself."""

    async def run(self) -> Settings | None:
        """Run until told to stop; return the settings to go on with, None to end. Raises ``WebpdError``."""
        self._heed_signals()
        ledger = await asyncio.to_thread(SqliteLedger, database_of(self._settings))
        self._ledger = ledger
        try:
            places = await asyncio.to_thread(find, self._paths, ledger)
            await asyncio.to_thread(remember, ledger, places)
            for place in places:
                if place.waits:
                    _log.warning("mount is not there: waiting for it", root=place.path, kind=place.mount.kind)
                elif place.path not in map(os.path.abspath, self._paths):
                    _log.info("a mount below a root is a root of its own", root=place.path, kind=place.mount.kind)
            async with self._served():
                await self._live(ledger, places)
        finally:
            await asyncio.to_thread(ledger.close)
        return self._next

    @property
    def ready(self) -> bool:
        """Whether every root is well and watched, and the codec processes have started."""
        return self._codecs_ready and all(keeper.ready for keeper in self._keepers)

    def health(self) -> Mapping[str, Any]:
        """Return how things stand, ready for JSON."""
        assert self._queue is not None  # noqa: S101 - asked only while it runs
        state = self._queue.state()
        queue = {lane.name.lower(): state.depth[lane] for lane in Lane}
        return {
            "status": "ok" if self.ready else "degraded",
            "version": __version__,
            "roots": [keeper.state() for keeper in self._keepers],
            "queue": {**queue, "delayed": state.delayed, "in_flight": state.in_flight},
            "oldest": {lane.name.lower(): round(state.oldest[lane], 1) for lane in Lane},
            "outcomes": self._metrics.outcomes,
            "pruned": self._metrics.pruned,
        }

    def exposition(self) -> bytes:
        """Return the numbers in Prometheus' text format."""
        if self._queue is not None:
            state = self._queue.state()
            for lane in Lane:
                self._metrics.depth.labels(lane.name.lower()).set(state.depth[lane])
            self._metrics.in_flight.set(state.in_flight)
        return self._metrics.exposition()

    def _heed_signals(self) -> None:
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._told_to_stop, number)
        loop.add_signal_handler(signal.SIGHUP, self._told_to_reload)

    def _told_to_stop(self, number: int) -> None:
        if self._ending:
            self._hurry.set()
        self._ending = True
        _log.info("stopping", signal=signal.Signals(number).name, at_once=self._hurry.is_set())
        self._next = None
        self._stop.set()

    def _told_to_reload(self) -> None:
        if not self._ending:
            self._reloading = asyncio.create_task(self._reload_if_fit())

    async def _reload_if_fit(self) -> None:
        """Go on with the settings as they are now, if a service can begin with them; else with the old ones."""
        try:
            settings = self._reload()
            if self._ledger is not None and settings.roots != self._settings.roots:
                await asyncio.to_thread(find, settings.roots, self._ledger)
            for variable, address, old in (
                ("WEBPD_HEALTH_ADDRESS", settings.health_address, self._settings.health_address),
                ("WEBPD_METRICS_ADDRESS", settings.metrics_address, self._settings.metrics_address),
            ):
                if address is not None and address != old:
                    listen(*address, variable).close()
        except WebpdError as error:
            _log.error("settings not read again: the old ones stay", detail=str(error))
            return
        if not self._ending:
            _log.info("settings read again")
            notify("RELOADING=1")
            self._next = settings
            self._stop.set()

    @contextlib.asynccontextmanager
    async def _served(self) -> Any:
        if self._once:  # beside a service that runs, its addresses are taken
            yield
            return
        async with contextlib.AsyncExitStack() as servers:
            for variable, address, app in (
                ("WEBPD_HEALTH_ADDRESS", self._settings.health_address, health_app(self)),
                ("WEBPD_METRICS_ADDRESS", self._settings.metrics_address, metrics_app(self.exposition)),
            ):
                if address is not None:
                    host, port = await servers.enter_async_context(serving(app, *address, variable))
                    _log.info("listening", variable=variable, address=f"{host}:{port}")
            yield

    async def _live(self, ledger: SqliteLedger, places: Sequence[Place]) -> None:
        settings = self._settings
        workers = settings.workers or available_cores()
        limits = Limits(settings.max_pixels, settings.worker_memory, settings.job_timeout)
        self._queue = QueueManager([place.path for place in places], limit=_rate_limit(settings))
        self._pool = pool = CodecPool(settings.encoding, limits, workers)
        aside = [asyncio.create_task(self._beat()), asyncio.create_task(self._look_for_mounts(ledger, places))]
        try:
            shared = Shared(settings, fingerprint(settings), pool, self._queue, ledger, ledger.history, self._metrics)
            for place in places:
                auto = _THREADS_PER_WORKER * workers
                threads = settings.io_threads or (auto if place.mount.local else max(auto, place.mount.useful_threads))
                shared = Shared(
                    settings, fingerprint(settings), pool, self._queue, ledger, ledger.history, self._metrics
                )
                self._keepers.append(Keeper(place, shared, threads, once=self._once))
            for keeper in self._keepers:
                keeper.start()
            await asyncio.to_thread(pool.ready)
            self._codecs_ready = True
            notify("READY=1")
            _log.info("running", version=__version__, roots=[keeper.root for keeper in self._keepers], workers=workers)
            await self._until_told()
        finally:
            for task in aside:
                task.cancel()
            await self._wind_down(pool)

    async def _until_told(self) -> None:
        ends: list[asyncio.Task[Any]] = [asyncio.create_task(self._stop.wait())]
        if self._once:
            ends.append(asyncio.create_task(self._all_passed()))
        try:
            await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for end in ends:
                end.cancel()

    async def _all_passed(self) -> None:
        for keeper in self._keepers:
            await keeper.passed.wait()

    async def _wind_down(self, pool: CodecPool) -> None:
        """Take no more, finish what is in flight while there is time, give the rest back to the tree."""
        if self._next is None:
            notify("STOPPING=1")
        stops = asyncio.gather(*(keeper.stop(self._settings.shutdown_timeout) for keeper in self._keepers))
        hurry = asyncio.create_task(self._hurry.wait())
        ends: set[asyncio.Future[Any]] = {stops, hurry}
        await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED)
        hurry.cancel()
        await asyncio.to_thread(pool.close)
        closed = await asyncio.gather(*(keeper.close(_LAST_WAIT) for keeper in self._keepers))
        with contextlib.suppress(asyncio.CancelledError):
            await stops
        self.stuck = not all(closed)
        if not self._next:
            _log.info("stopped", **{str(result): number for result, number in self._metrics.outcomes.items() if number})
        if self.stuck:
            _log.warning("some threads hang in a mount that does not answer, and are left there")

    async def _look_for_mounts(self, ledger: Ledger, places: Sequence[Place]) -> None:
        """Begin anew when something is mounted inside a root, or a local root turns out to be on another mount."""
        while True:
            await asyncio.sleep(_MOUNTS_INTERVAL)
            if not all(keeper.answers for keeper in self._keepers):
                continue
            with contextlib.suppress(WebpdError, OSError):
                now = {place.path: place.mount for place in await asyncio.to_thread(find, self._paths, ledger)}
                before = {place.path: place.mount for place in places}
                moved = [
                    path for path, mount in before.items() if mount.local and now.get(path, mount).point != mount.point
                ]
                if (moved or now.keys() - before.keys()) and not self._ending:
                    _log.info("mounts have changed: beginning anew", roots=sorted(now))
                    self._next = self._settings
                    self._stop.set()

    async def _beat(self) -> None:
        """Tell systemd that the loop turns."""
        interval = watchdog_interval()
        while interval:
            notify("WATCHDOG=1")
            await asyncio.sleep(interval)


def _rate_limit(settings: Settings) -> "RateLimit | None":
    if settings.rate_limit is None:
        return None
    from webpd.queue.rate import RateLimit, parse  # noqa: PLC0415 - takes 0.1 s to import, and most need none

    item = parse(settings.rate_limit)
    return RateLimit(item) if item else None


def fingerprint(settings: Settings) -> bytes:
    """Return 8 bytes that stand for the version, and for every setting that decides what becomes of an image."""
    limits = (settings.max_pixels, int(settings.max_source), int(settings.worker_memory), settings.job_timeout)
    text = f"{__version__} {fingerprint_of(settings.encoding, REVISION).hex()} {limits}"
    return hashlib.blake2b(text.encode(), digest_size=8).digest()
