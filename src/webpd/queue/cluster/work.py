"""The queue of a host that works: takes what others found, and tells them what became of it."""

import asyncio
import contextlib
import os
import socket
import uuid
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial

from webpd.model import Ending, Job
from webpd.queue.cluster import mailbox
from webpd.queue.cluster.claims import Endings
from webpd.queue.cluster.desk import Delivery, Desk, DeskTicket
from webpd.queue.cluster.engine import Engine
from webpd.queue.cluster.pulse import Pulse
from webpd.queue.cluster.wire import Letter, Report, place_of
from webpd.queue.port import Lane, QueueState, Ticket
from webpd.redis.link import LinkState, RedisDownError
from webpd.settings import RedisUrl

_BEAT = 2.0
"""Seconds after which a host says again what room it has: Redis may have forgotten it."""
_LINGER = 0.1
"""Seconds for which a report may wait for others of its batch."""
_LAST_WORDS = 2.0


@dataclass(slots=True)
class _Root:
    desk: Desk
    engine: Engine
    place: str
    reports: list[tuple[Delivery, Report]] = field(default_factory=list)
    told: int = -1


class WorkQueue:
    """The taking side of ``Queue`` for these roots; all methods belong to one event loop.

    ``fingerprint`` stands for settings and version: only what was found under the same is taken. ``ahead`` is how many
    jobs of a root may wait here for those in hands; ``patience``, in seconds, how long nothing may move before jobs go
    to another host: longer than one job can take; ``lease``, in seconds, how long this host may be silent before all
    that it has does. A root that is not among ``roots`` raises ``KeyError``, a ticket given back before ``ValueError``.
    """

    def __init__(
        self,
        roots: Sequence[str],
        url: RedisUrl,
        fingerprint: bytes,
        *,
        ahead: int = 32,
        patience: float = 180.0,
        lease: float = 10.0,
    ) -> None:
        self._pulse = Pulse(url)
        self._worker = f"{socket.gethostname()}-{os.getpid()}-{uuid.uuid4().hex[:8]}"
        self._lease = lease
        self._due = asyncio.Event()
        self._timer: asyncio.TimerHandle | None = None
        self._roots: dict[str, _Root] = {}
        for root in roots:
            place = place_of(root, fingerprint)
            desk = Desk(root, ahead, patience, partial(self._reported, root), partial(self._changed, root))
            self._roots[root] = _Root(desk, Engine(place, url, self._pulse.link, root, desk), place)

    @property
    def link(self) -> LinkState:
        """How Redis is."""
        return self._pulse.link.state

    async def take(self, root: str) -> Ticket:
        """Wait for the next job of the root; nothing is lost when the wait is cancelled."""
        return await self._roots[root].desk.take()

    async def done(self, ticket: Ticket, ending: Ending | None = None) -> None:
        """The job has come to an end; whoever found it will hear of ``ending``."""
        self._roots[ticket.job.root].desk.done(_own(ticket), ending)

    async def again(self, ticket: Ticket, job: Job, delay: float | None = None) -> None:
        """The job must be done again, as ``job``, by this host or another, after ``delay`` as ``Queue`` has it."""
        self._roots[ticket.job.root].desk.again(_own(ticket), job, delay)

    def drain(self) -> None:
        """Want no more, and give back at once what nobody has in hands: this host is about to stop."""
        for root in self._roots.values():
            root.desk.drain()

    def state(self) -> QueueState:
        """Return what is here: what waits for those in hands, and these."""
        desks = [root.desk for root in self._roots.values()]
        return QueueState(
            depth={lane: sum(desk.depth(lane) for desk in desks) for lane in Lane},
            delayed=0,
            in_flight=sum(desk.in_hands for desk in desks),
            oldest=dict.fromkeys(Lane, 0.0),
        )

    async def run(self) -> None:
        """Take until cancelled; then give back all that is here. Raises ``UnfitError``: Redis evicts."""
        pulse = self._pulse
        writer = asyncio.create_task(pulse.keep(self._write))
        others = [asyncio.create_task(pulse.link.run()), asyncio.create_task(pulse.keep(self._beat, unfit=True))]
        engines = [asyncio.create_task(pulse.keep(partial(self._work, root))) for root in self._roots.values()]
        try:
            ended, _ = await asyncio.wait([writer, *others, *engines], return_when=asyncio.FIRST_COMPLETED)
            for task in ended:
                task.result()
        finally:
            await self._give_all_back(writer, engines)
            for task in (writer, *others, *engines):
                task.cancel()
            await asyncio.gather(writer, *others, return_exceptions=True)
            await pulse.link.close()

    async def _give_all_back(self, writer: "asyncio.Task[None]", engines: Sequence["asyncio.Task[None]"]) -> None:
        for root in self._roots.values():
            root.desk.close()
        for task in (writer, *engines):
            task.cancel()
        await asyncio.wait([writer])
        with contextlib.suppress(RedisDownError, TimeoutError):
            async with asyncio.timeout(_LAST_WORDS):
                while not all(engine.done() for engine in engines):
                    for root in self._roots.values():
                        await self._post(root)
                    await asyncio.wait(engines, timeout=0.02)
        for root in self._roots.values():
            root.desk.abandon()
        await asyncio.wait(engines, timeout=_LAST_WORDS)

    async def _work(self, root: _Root) -> None:
        async with root.engine:
            await root.engine.work(self._worker, self._lease)

    async def _beat(self) -> None:
        await self._pulse.inspect()
        for root in self._roots.values():
            root.desk.expire()
            root.told = -1
        self._due.set()
        await asyncio.sleep(_BEAT)

    def _changed(self, name: str) -> None:
        root = self._roots.get(name)
        if root is not None and root.desk.room != root.told:
            self._due.set()

    def _reported(self, name: str, delivery: Delivery, report: Report) -> None:
        """Write when the batch is through, or soon: a letter for each job would cost as much again as the job's way."""
        self._roots[name].reports.append((delivery, report))
        if not delivery.open:
            self._due.set()
        else:
            self._write_soon()

    def _write_soon(self) -> None:
        if self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(_LINGER, self._due.set)

    async def _write(self) -> None:
        await self._due.wait()
        self._due.clear()
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        for root in self._roots.values():
            await self._post(root)

    async def _post(self, root: _Root) -> None:
        reports, root.reports = root.reports, []
        room = root.desk.room
        if not reports and room == root.told:
            return
        root.told = room
        endings = Endings()
        letters: dict[str, list[Report]] = {}
        for delivery, report in reports:
            letters.setdefault(delivery.batch.owner, []).append(report)
            if report.again is None:
                job = delivery.batch.items[report.place].job
                endings.note(root.place, job, delivery.batch.owner, report.ending)
        word = Letter(root.place, self._worker, room, ()).encode()
        texts = {owner: Letter(root.place, self._worker, room, some).encode() for owner, some in letters.items()}
        try:
            heard = await mailbox.tell(self._pulse.link, root.place, word, texts, endings)
        except BaseException:
            root.reports[:0] = reports
            root.told = -1
            self._due.set()
            raise
        for delivery, count in Counter(delivery for delivery, _ in reports).items():
            root.desk.sent(delivery, count)
        if not heard:  # who finds work will be there soon: a few hosts that ask often cost it nothing
            root.told = -1
            self._write_soon()


def _own(ticket: Ticket) -> DeskTicket:
    if not isinstance(ticket, DeskTicket):
        raise ValueError(f"this ticket is of another queue: {ticket.job.path}")  # noqa: TRY004 - a wrong value it is
    return ticket
