"""The queue that the role of this host takes: in memory, or shared with other hosts by Redis."""

import asyncio
from collections.abc import Sequence
from typing import Any, Protocol

from webpd.errors import UsageError
from webpd.model import Ending, Job
from webpd.queue.manager import QueueManager
from webpd.queue.port import Inlet, Limit, Outlet, QueueState
from webpd.redis.link import LinkState
from webpd.service.shared import fingerprint
from webpd.settings import Settings

_PATIENCE = 60.0
"""Seconds, beside those for two codec runs, after which another host may have a job that hangs here."""


class Concluded(Protocol):
    """Told, in a thread, what came of jobs that other hosts did; ``mine``: this one had handed them out."""

    def __call__(self, ended: Sequence[tuple[Job, Ending]], *, mine: bool) -> None: ...


class Queues:
    """Where work is offered (``inlet``), and where it is taken from (``outlet``), as far as this host does either.

    Raises ``UsageError``: a role among several hosts without what that takes.
    """

    def __init__(self, settings: Settings, roots: Sequence[str], limit: Limit | None, concluded: Concluded) -> None:
        self.inlet: Inlet | None = None
        self.outlet: Outlet | None = None
        self._queue: Any = None
        role, url = settings.role, settings.queue_url
        if role == "all":
            self.inlet = self.outlet = QueueManager(roots, limit=limit)
            return
        if url is None:
            raise UsageError(f"WEBPD_ROLE={role}: name the Redis that carries the queue by WEBPD_QUEUE_URL")
        from webpd.queue import cluster  # noqa: PLC0415 - an extra, and slow to import

        cluster.require()
        if role == "watch":
            from webpd.queue.cluster.watch import WatchQueue  # noqa: PLC0415

            queue = QueueManager(roots, limit=limit)
            self.inlet = self._queue = WatchQueue(queue, roots, url, fingerprint(settings), concluded)
        else:
            from webpd.queue.cluster.work import WorkQueue  # noqa: PLC0415

            patience = 2 * settings.job_timeout + _PATIENCE
            self.outlet = self._queue = WorkQueue(roots, url, fingerprint(settings), patience=patience)

    async def run(self) -> None:
        """Carry jobs to and from other hosts, until cancelled. Raises ``UnfitError``: that Redis is of no use."""
        if self._queue is None:
            await asyncio.Event().wait()
        await self._queue.run()

    def drain(self) -> None:
        """Let other hosts have what waits here: this one is about to stop."""
        if self.inlet is None:
            self._queue.drain()

    @property
    def link(self) -> LinkState | None:
        """How the Redis of the queue is, None where there is none."""
        link: LinkState | None = self._queue.link if self._queue else None
        return link

    def hosts(self, root: str) -> int | None:
        """Return how many hosts do the work of the root, None where that is for this one to do."""
        return self._queue.hosts(root) if self.outlet is None else None

    def state(self) -> QueueState:
        """Return how things stand, at once."""
        queue = self.inlet or self.outlet
        assert queue is not None  # noqa: S101 - one of them is always there
        return queue.state()
