"""One root of the running service: its mount's health, who finds work in it, and who does it."""

import asyncio
import os
from typing import Any

from webpd.model import Ending, Job
from webpd.pipeline import Pipeline
from webpd.printable import printable
from webpd.reconcile.patience import Patience
from webpd.service.guard import MountGuard
from webpd.service.places import Place
from webpd.service.poller import Poller
from webpd.service.shared import Shared, tell_fault
from webpd.service.takers import Takers
from webpd.service.worker import Worker
from webpd.tree.publisher import Publisher
from webpd.watch.health import Health
from webpd.watch.mount import cache_time


class Keeper:
    """Keeps one root right, with up to ``threads`` images in flight. ``once`` asks for one pass only."""

    def __init__(self, place: Place, shared: Shared, threads: int, *, once: bool) -> None:
        settings = shared.settings
        self.root, self.mount = place.path, place.mount
        self.label = printable(place.path)
        self._guard = MountGuard(place.path, place.mount)
        local = place.mount.local
        cache = settings.cache_time if settings.cache_time is not None else cache_time(place.mount)
        patience = Patience(settings.settle, 0.0 if local else cache, local)
        publisher = Publisher(
            settings.owner, settings.mode, fsync=settings.syncs(local=local), remote=not local, bare=place.bare
        )
        self.poller: Poller | None = None
        if shared.finding:
            self.poller = Poller(place, shared, shared.finding, self._guard, publisher, patience, once=once)
        self.takers: Takers | None = None
        if shared.working:
            worker = Worker(
                Pipeline(shared.working.pool, publisher, settings.encoding, settings.max_source),
                patience,
                shared.fingerprint,
                shared.host,
                shared.metrics,
                blame=self._guard.blame,
                concluded=self.poller.recorder.record if self.poller else _left_to_another_host,
            )
            give_up = self.poller.given_up.add if self.poller and once else None
            queue = shared.working.queue
            self.takers = Takers(place.path, queue, worker, self._guard, shared.metrics, threads, give_up)
        self._monitor: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Begin: the first thing is to ask the mount how it is."""
        self._monitor = asyncio.create_task(self._guard.watch())
        tasks = self.takers.start() if self.takers else []
        for task in (self._monitor, *tasks):
            task.add_done_callback(tell_fault)
        if self.poller:
            self.poller.start()

    async def stop(self, seconds: float) -> bool:
        """Find and take no more; wait that long for what is in flight; tell whether all of it ended."""
        self._guard.stop()
        if self.poller:
            await self.poller.stop()
        return await self.takers.stop(seconds) if self.takers else True

    async def close(self, seconds: float) -> bool:
        """Let go of everything; tell whether no thread is left behind. The codec processes have been ended before."""
        if self._monitor:
            self._monitor.cancel()
            await asyncio.gather(self._monitor, return_exceptions=True)
        ended = await self.takers.close(seconds) if self.takers else True
        if self.poller:
            ended &= await self.poller.close(seconds)
        return ended

    @property
    def answers(self) -> bool:
        """Whether the mount can be asked without waiting for long, as far as is known."""
        return self._guard.health not in (Health.HUNG, Health.DEAD)

    @property
    def room(self) -> os.statvfs_result | None:
        """What room the mount's file system has, None while it was not asked."""
        return self._guard.room

    @property
    def health(self) -> str:
        """How the mount is, in a word."""
        return str(self._guard.health)

    def state(self) -> dict[str, Any]:
        """Return how the root is, for the health page; asks nobody who could keep it waiting."""
        return {
            "root": self.label,
            "kind": self.mount.kind,
            "mount": self.health,
            "detail": printable(self._guard.detail),
            **(self.poller.state() if self.poller else {}),
        }


def _left_to_another_host(job: Job, ending: Ending) -> None:
    """Do nothing: who found the job is told by the queue."""
