"""The service as a whole: what is started, in which order, how it is told to stop, and how it stops."""

import asyncio
import contextlib
import logging
import os
import signal
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import structlog

from webpd import __version__
from webpd.convert.frames import Limits
from webpd.convert.pool import CodecPool
from webpd.errors import UsageError, WebpdError
from webpd.ledger import failures
from webpd.ledger.database import refuse_taken
from webpd.ledger.sqlite import SqliteLedger
from webpd.model import Ending, Job
from webpd.queue.port import Lane, QueueState
from webpd.redis.link import LinkState
from webpd.redis.presence import Presence
from webpd.service.commons import Commons
from webpd.service.condition import Conditions
from webpd.service.front import controlled, served
from webpd.service.gauges import StandingGauges
from webpd.service.hints import Hints
from webpd.service.keeper import Keeper
from webpd.service.notify import beat, notify
from webpd.service.pageview import PageView
from webpd.service.places import Place, discover, find, has_moved
from webpd.service.queues import Queues
from webpd.service.shared import Finding, Shared, Working, fingerprint, host_name
from webpd.settings import Settings, available_cores, database_of, state_dir
from webpd.telemetry import log
from webpd.telemetry.metrics import Metrics
from webpd.web.server import listen

_log = structlog.get_logger(__name__)

_THREADS_PER_WORKER = 4
_LAST_WAIT = 3.0
"""Seconds that threads get to end once the codec processes are gone."""
_MOUNTS_INTERVAL = 10.0
_SWITCH_INTERVAL = 0.001
"""Seconds after which a thread gives the interpreter to another. An answer takes four turns of the loop's thread, and a
walk over a large tree keeps it busy meanwhile: at Python's own 0.005 that can be 20 ms for each who asks."""


def run(settings: Settings, paths: Sequence[str] | None, load: Callable[[], Settings], *, once: bool) -> Metrics:
    """Run the service on the paths, or else on the settings' roots, until it is told to stop; return its numbers.

    ``load`` returns the settings as they are now; ``once`` ends it after one pass. Raises ``WebpdError``.
    """
    if once and settings.role != "all":
        raise UsageError(f"--once: a pass of one host alone is of the role all, not {settings.role}")
    sys.setswitchinterval(_SWITCH_INTERVAL)
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
        self.metrics = metrics
        self._reload = reload
        self._once = once
        self._started = time.time()
        self._keepers: list[Keeper] = []
        self._queues: Queues | None = None
        self._pool: CodecPool | None = None
        self._commons = Commons(settings)
        self._codecs_ready = settings.role == "watch"
        self._stop = asyncio.Event()
        self._hurry = asyncio.Event()
        self._next: Settings | None = None
        self._ending = False
        self._ledger: SqliteLedger | None = None
        self.conditions = Conditions(self, settings)
        self._page = PageView(self, settings)
        self.hints = Hints(settings, metrics)
        self._errands: set[asyncio.Task[None]] = set()
        self.stuck = False
        """Whether threads were left behind in a hung mount, that would keep the process from ending by itself."""

    async def run(self) -> Settings | None:
        """Run until told to stop; return the settings to go on with, None to end. Raises ``WebpdError``."""
        self._heed_signals()
        self.metrics.show(StandingGauges(self))
        try:
            Queues(self._settings, (), None, self._concluded)  # settings that can't be are refused before anything
            if self._settings.role != "work":  # before its addresses, which the other one has as well
                await asyncio.to_thread(refuse_taken, state_dir(self._settings))
            # First of all else, so that who asks hears that it starts: a mount that hangs holds up what follows.
            async with served(self, self._page, self.hints, self._settings, self.metrics, once=self._once):
                if self._settings.role != "work":
                    self._ledger = await asyncio.to_thread(SqliteLedger, database_of(self._settings))
                places = await asyncio.to_thread(discover, self._paths, self._ledger)
                self._queues = Queues(
                    self._settings, [place.path for place in places], self._commons.limit, self._concluded
                )
                async with controlled(self, self._settings):
                    await self._live(places, self._queues)
        finally:
            await self._commons.close()
            if self._ledger:
                await asyncio.to_thread(self._ledger.close)
        return self._next

    # What it answers

    @property
    def started(self) -> float:
        """When this life of it began (Unix time, seconds)."""
        return self._started

    @property
    def ready(self) -> bool:
        """Whether every root is well and watched, the codec processes start, and others can be reached."""
        return not self.hindrances

    @property
    def hindrances(self) -> Sequence[str]:
        """Why it is not ready, in words; nothing where it is."""
        return self.conditions.hindrances()

    def health(self) -> Mapping[str, Any]:
        """Return how things stand, ready for JSON."""
        return self.conditions.health()

    # What the gauges ask

    @property
    def facts(self) -> Mapping[str, str]:
        """What tells this process from others."""
        settings = self._settings
        named = {"host": host_name(settings), "role": settings.role, "fingerprint": fingerprint(settings).hex()}
        return {"version": __version__, **named}

    @property
    def keepers(self) -> Sequence[Keeper]:
        return self._keepers

    @property
    def pool(self) -> CodecPool | None:
        return self._pool

    @property
    def ledger(self) -> SqliteLedger | None:
        return self._ledger

    @property
    def queue(self) -> QueueState | None:
        return self._queues.state() if self._queues else None

    def hosts(self, root: str) -> int | None:
        """Return how many hosts do the work of the root, None where that is for this one to do."""
        return self._queues.hosts(root) if self._queues else None

    @property
    def links(self) -> Sequence[LinkState | None]:
        return [self._commons.link, self._queues.link if self._queues else None]

    @property
    def dropped(self) -> int:
        return self._commons.dropped

    # What the page asks beside

    @property
    def codecs_ready(self) -> bool:
        """Whether the codec processes have been started."""
        return self._codecs_ready

    @property
    def stopping(self) -> asyncio.Event:
        """Set once the service was told to stop, or to begin anew."""
        return self._stop

    async def retry(self, paths: Sequence[str]) -> int:
        """Try failed images at and below these absolute paths again (none: all); return how many they are."""
        ledger = self._ledger
        assert ledger is not None  # noqa: S101 - asked only by a socket in the state folder
        pollers = {keeper.root: keeper.poller for keeper in self._keepers if keeper.poller}
        for poller in pollers.values():
            await asyncio.to_thread(poller.flush)
        found = await asyncio.to_thread(failures.retry, ledger, ledger.history, paths)
        for root, poller in pollers.items():
            if directories := [directory for where, directory in found if where == root]:
                self._send(asyncio.to_thread(poller.look_at, directories))
        return sum(found.values())

    def _presence(self) -> Presence:
        state = self._queues.state() if self._queues else None
        return Presence(
            host=host_name(self._settings),
            pid=os.getpid(),
            role=self._settings.role,
            version=__version__,
            fingerprint=fingerprint(self._settings).hex(),
            started=self._started,
            queue={lane.name.lower(): state.depth[lane] if state else 0 for lane in Lane},
            in_flight=state.in_flight if state else 0,
            images_per_second=self.metrics.pace(),
            roots={keeper.label: keeper.health for keeper in self._keepers},
        )

    # What it is told

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
            self._send(self._reload_if_fit())

    def _send(self, errand: Any) -> None:
        task = asyncio.ensure_future(errand)
        self._errands.add(task)
        task.add_done_callback(self._errands.discard)

    async def _reload_if_fit(self) -> None:
        """Go on with the settings as they are now, if a service can begin with them; else with the old ones."""
        try:
            settings = await asyncio.to_thread(self._reload)
            if settings.roots != self._settings.roots:
                await asyncio.to_thread(find, settings.roots, self._ledger)
            Commons(settings)  # both refuse what the next life could not begin with, and ask nobody yet
            Queues(settings, (), None, self._concluded)
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

    def _concluded(self, ended: Sequence[tuple[Job, Ending]], *, mine: bool) -> None:
        recorders = {keeper.root: keeper.poller.recorder for keeper in self._keepers if keeper.poller}
        for job, ending in ended:
            if recorder := recorders.get(job.root):
                recorder.record(job, ending, noted=not mine)

    # From start to stop

    async def _live(self, places: Sequence[Place], queues: Queues) -> None:
        settings = self._settings
        workers = settings.workers or available_cores()
        finding = working = None
        if queues.inlet and self._ledger:
            histories = [self._ledger.history, *self._commons.histories]
            finding = Finding(queues.inlet, self._ledger, histories)
        if queues.outlet:
            limits = Limits(settings.max_pixels, settings.worker_memory, settings.job_timeout)
            self._pool = CodecPool(settings.encoding, limits, workers)
            working = Working(queues.outlet, self._pool)
        shared = Shared(settings, self.metrics, finding, working)
        aside = [asyncio.create_task(beat()), asyncio.create_task(self._look_for_mounts(places))]
        aside += [asyncio.create_task(self.conditions.run()), asyncio.create_task(self._page.run())]
        carrier = asyncio.ensure_future(queues.run())
        try:
            for place in places:
                auto = _THREADS_PER_WORKER * workers
                threads = settings.io_threads or (auto if place.mount.local else max(auto, place.mount.useful_threads))
                self._keepers.append(Keeper(place, shared, threads, once=self._once))
            self.hints.begin(self._keepers)
            self._commons.start(self._presence)
            for keeper in self._keepers:
                keeper.start()
            if self._pool:
                await asyncio.to_thread(self._pool.ready)
            self._codecs_ready = True
            notify("READY=1")
            roots = [place.path for place in places]
            told = {"workers": workers} if self._pool else {}
            _log.info("running", version=__version__, role=settings.role, roots=roots, **told)
            await self._until_told(carrier)
        finally:
            for task in aside:
                task.cancel()
            await self._wind_down()
            carrier.cancel()
            await asyncio.gather(carrier, return_exceptions=True)
            for keeper in self._keepers:  # until now, other hosts may have told what they did
                if keeper.poller:
                    await asyncio.to_thread(keeper.poller.flush)

    async def _until_told(self, carrier: asyncio.Future[None]) -> None:
        ends: list[asyncio.Future[Any]] = [asyncio.create_task(self._stop.wait()), carrier]
        if self._once:
            ends.append(asyncio.create_task(self._all_passed()))
        try:
            await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for end in ends:
                if end is not carrier:
                    end.cancel()
        if carrier.done():
            carrier.result()

    async def _all_passed(self) -> None:
        for keeper in self._keepers:
            if keeper.poller:
                await keeper.poller.passed.wait()

    async def _wind_down(self) -> None:
        """Take no more, finish what is in flight while there is time, give the rest back to the tree."""
        if self._next is None:
            notify("STOPPING=1")
        if self._queues:
            self._queues.drain()
        stops = asyncio.gather(*(keeper.stop(self._settings.shutdown_timeout) for keeper in self._keepers))
        hurry = asyncio.create_task(self._hurry.wait())
        ends: set[asyncio.Future[Any]] = {stops, hurry}
        await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED)
        hurry.cancel()
        if self._pool:
            await asyncio.to_thread(self._pool.close)
        closed = await asyncio.gather(*(keeper.close(_LAST_WAIT) for keeper in self._keepers))
        with contextlib.suppress(asyncio.CancelledError):
            await stops
        self.stuck = not all(closed)
        if not self._next:
            _log.info("stopped", **{str(result): number for result, number in self.metrics.outcomes.items() if number})
        if self.stuck:
            _log.warning("some threads hang in a mount that does not answer, and are left there")

    async def _look_for_mounts(self, places: Sequence[Place]) -> None:
        """Begin anew when something is mounted inside a root, or a root turns out to be on another mount."""
        while True:
            await asyncio.sleep(_MOUNTS_INTERVAL)
            if not all(keeper.answers for keeper in self._keepers):
                continue
            with contextlib.suppress(WebpdError, OSError):
                now = {place.path: place.mount for place in await asyncio.to_thread(find, self._paths, self._ledger)}
                before = {place.path: place.mount for place in places}
                moved = any(has_moved(mount, now.get(path, mount)) for path, mount in before.items())
                if (moved or now.keys() - before.keys()) and not self._ending:
                    _log.info("mounts have changed: beginning anew", roots=sorted(now))
                    self._next = self._settings
                    self._stop.set()
