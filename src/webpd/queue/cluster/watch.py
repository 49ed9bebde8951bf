"""The queue of a host that finds work: hands it out to those who want some, and hears what became of it."""

import asyncio
import contextlib
import math
import time
import uuid
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Protocol

import structlog
from redis.asyncio import Redis
from redis.exceptions import RedisError

from webpd.model import Ending, Job, Result
from webpd.queue.cluster import mailbox
from webpd.queue.cluster.claims import Claims
from webpd.queue.cluster.engine import Engine
from webpd.queue.cluster.pulse import Pulse
from webpd.queue.cluster.wire import Batch, Item, Letter, Report, place_of
from webpd.queue.manager import QueueManager
from webpd.queue.port import Lane, QueueState, Ticket
from webpd.redis.link import LinkState
from webpd.settings import RedisUrl

_log = structlog.get_logger(__name__)

_BEAT = 2.0
_HOST_KEPT = 10.0
_WITHIN = 5.0
"""Seconds that docket gets to add a batch."""
_PUTS = 5
_MOST_FAILED = 50_000
_CLAIMED = 3.0
"""Seconds after which a job that another host has handed out is tried again."""
_LAST_WORDS = 5.0


class Concluded(Protocol):
    """Is told, in a thread, of jobs that have ended, before they count as done; raises nothing.

    ``mine`` is False where another host that watches had handed them out, and was told as well.
    """

    def __call__(self, ended: Sequence[tuple[Job, Ending]], *, mine: bool) -> None: ...


@dataclass(slots=True, eq=False)
class _Root:
    """``rooms`` is how many jobs each host has room for, and when it said so; ``out`` how many are handed out.

    ``alone`` is whether it has been told that no host does its work.
    """

    name: str
    place: str
    engine: Engine
    claims: Claims
    rooms: dict[str, tuple[int, float]] = field(default_factory=dict)
    out: int = 0
    alone: bool = False
    heard: asyncio.Event = field(default_factory=asyncio.Event)


@dataclass(slots=True)
class _Sent:
    """A batch that is handed out: the tickets not given back yet, by their place in it, and when they went."""

    root: _Root
    tickets: dict[int, Ticket]
    at: float
    missed: bool = False


class WatchQueue:
    """The offering side of ``Queue``, before a ``QueueManager`` for the same roots; all belongs to one event loop.

    ``fingerprint`` stands for settings and version. ``batch`` is how many jobs go in one, at most. What Redis has lost
    is missed after ``audit`` seconds, and handed out again after as many more. An offer for a root that is not among
    ``roots`` raises ``KeyError``.
    """

    def __init__(
        self,
        queue: QueueManager,
        roots: Sequence[str],
        url: RedisUrl,
        fingerprint: bytes,
        concluded: Concluded,
        *,
        batch: int = 16,
        audit: float = 5.0,
    ) -> None:
        self._queue = queue
        self._pulse = pulse = Pulse(url)
        self._concluded = concluded
        self._batch = batch
        self._owner = uuid.uuid4().hex
        self._roots: dict[str, _Root] = {}
        for root in roots:
            place = place_of(root, fingerprint)
            claims = Claims(pulse.link, place, self._owner)
            self._roots[root] = _Root(root, place, Engine(place, url, pulse.link), claims)
        self._names = {root.place: name for name, root in self._roots.items()}
        self._sent: dict[str, _Sent] = {}
        self._offered: dict[str, float] = {}
        self._failed: OrderedDict[str, None] = OrderedDict()  # of which this host has heard, the latest
        self._started = time.time()
        self._audit_every = audit
        self._settling = asyncio.Lock()
        self._batches = 0
        self._audited = 0.0

    @property
    def link(self) -> LinkState:
        """How Redis is."""
        return self._pulse.link.state

    async def offer(self, jobs: Sequence[Job], lane: Lane, delay: float = 0.0) -> int:
        """Take in jobs as ``Queue`` has it."""
        taken = await self._queue.offer(jobs, lane, delay)
        now = time.time()
        for job in jobs[:taken]:
            self._offered.setdefault(job.path, now)
        if taken and lane is Lane.URGENT:
            self._roots[jobs[0].root].heard.set()
        return taken

    def state(self) -> QueueState:
        """Return how things stand with what this host has found; in flight is what is handed out."""
        return self._queue.state()

    def hosts(self, root: str) -> int:
        """Return how many hosts have said lately how many jobs of the root they have room for, be it none."""
        now = _now()
        return sum(now - heard <= _HOST_KEPT for _, heard in self._roots[root].rooms.values())

    async def run(self) -> None:
        """Hand out until cancelled; then hear what becomes of what is out, for a while. Raises ``UnfitError``."""
        pulse = self._pulse
        parts = (pulse.link.run(), pulse.keep(self._beat, unfit=True), pulse.keep(self._receive))
        tasks = [asyncio.create_task(part) for part in parts]
        outlets: list[asyncio.Task[None]] = []
        async with contextlib.AsyncExitStack() as engines:
            try:
                for root in self._roots.values():
                    await engines.enter_async_context(root.engine)
                    outlets.append(asyncio.create_task(pulse.keep(partial(self._hand_out, root))))
                ended, _ = await asyncio.wait([*tasks, *outlets], return_when=asyncio.FIRST_COMPLETED)
                for task in ended:
                    task.result()
            finally:
                for task in outlets:
                    task.cancel()
                await self._hear_the_last()
                for task in tasks:
                    task.cancel()
                await asyncio.gather(*tasks, *outlets, return_exceptions=True)
                await pulse.link.close()

    async def _hear_the_last(self) -> None:
        """Wait for what is out, for a while: nobody else is told what becomes of it."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_LAST_WORDS):
                while self._sent and self.link.up and any(root.rooms for root in self._roots.values()):  # noqa: ASYNC110
                    await asyncio.sleep(0.02)
                await self._settling.acquire()  # and nothing is settled any more

    # Handing out

    async def _hand_out(self, root: _Root) -> None:
        await self._queue.ready(root.name)
        while not (wanted := self._wanted(root)):
            root.heard.clear()
            await root.heard.wait()
        tickets: list[Ticket] = []
        while len(tickets) < wanted and (ticket := self._queue.take_now(root.name)) is not None:
            tickets.append(ticket)
        if tickets:
            await self._send(root, tickets)

    def _wanted(self, root: _Root) -> int:
        """Return how many jobs to hand out now: a whole batch where there is a choice, fewer while somebody waits."""
        now = _now()
        for worker in [worker for worker, (_, heard) in root.rooms.items() if now - heard > _HOST_KEPT]:
            del root.rooms[worker]
        room = sum(room for room, _ in root.rooms.values())
        free = room - root.out
        least = 1 if self._queue.state().depth[Lane.URGENT] else min(self._batch, max(1, room // 2))
        return min(free, self._batch) if free >= least else 0

    async def _send(self, root: _Root, tickets: Sequence[Ticket]) -> None:
        """Hand out what nobody else has; see to the rest."""
        try:
            answers = await root.claims.claim([ticket.job for ticket in tickets])
            pairs = list(zip(tickets, answers, strict=True))
            stale = [
                ticket.job
                for ticket, answer in pairs
                if isinstance(answer, Ending) and not self._explains(answer, ticket.job)
            ]
            await root.claims.insist(stale)
        except BaseException:
            for ticket in tickets:
                await self._queue.again(ticket, ticket.job, 0.0)
            raise
        ours: list[Ticket] = []
        ended: list[tuple[Ticket, Ending | None]] = []
        for ticket, answer in pairs:
            if answer is None:
                await self._queue.again(ticket, ticket.job, _CLAIMED)
            elif isinstance(answer, Ending) and self._explains(answer, ticket.job):
                ended.append((ticket, answer))
            else:
                ours.append(ticket)
        await self._conclude(ended, mine=False)
        if ours:
            await self._put(root, ours)

    async def _put(self, root: _Root, tickets: Sequence[Ticket]) -> None:
        self._batches += 1
        key = f"{self._owner}-{self._batches}"
        self._sent[key] = _Sent(root, dict(enumerate(tickets)), _now())
        root.out += len(tickets)
        batch = Batch(key, self._owner, [Item(ticket.job, ticket.lane, ticket.tries) for ticket in tickets])
        # Added, or not, or nobody knows: what is not heard of, the audit takes back. But connections that broke while
        # Redis was away fail once each, and a key is added once only.
        with contextlib.suppress(RedisError, TimeoutError):
            async with asyncio.timeout(_WITHIN):
                for _ in range(_PUTS - 1):
                    with contextlib.suppress(RedisError):
                        await root.engine.put(key, batch.encode())
                        return
                await root.engine.put(key, batch.encode())

    def _explains(self, ending: Ending, job: Job) -> bool:
        """Tell whether there is no need of the job any more, since it was done for another host.

        That the original is better kept is true whenever that was found out. A failure counts once, if it happened
        since this host started: whoever has heard of it and offers the image again wants it tried again. Whatever else
        came of it counts if it ended after the job was found here, for a sidecar may be gone since. Clocks that differ
        cost a second encode, or a while until the next look finds what is missing.
        """
        known = ending.known
        if known and known.sidecar is job.sidecar:
            if known.result is Result.KEPT_ORIGINAL:
                return True
            if known.result is Result.FAILED and job.path not in self._failed:
                return ending.at >= self._started
        return ending.at >= self._offered.get(job.path, math.inf)

    # Hearing what became of it

    async def _receive(self) -> None:
        letters = await mailbox.receive(self._pulse.link, self._owner)
        async with self._settling:
            ended: list[tuple[Ticket, Ending | None]] = []
            again: list[tuple[Ticket, Report]] = []
            for ticket, report in self._read(letters):
                if report.again is None:
                    ended.append((ticket, report.ending))
                else:
                    again.append((ticket, report))
            await self._conclude(ended, mine=True)
            for ticket, report in again:
                job = report.again if report.again and report.again.path == ticket.job.path else ticket.job
                await self._queue.again(ticket, job, report.delay)

    def _read(self, letters: Sequence[bytes]) -> list[tuple[Ticket, Report]]:
        """Note who has room, and return the reports on tickets that are out: others were taken back, or are known."""
        found = []
        for text in letters:
            try:
                letter = Letter.decode(text, self._names)
            except ValueError as error:
                _log.warning("a letter in the queue that webpd did not write: thrown away", detail=str(error))
                continue
            root = self._roots[self._names[letter.place]]
            root.rooms[letter.worker] = letter.room, _now()
            pairs = [(self._pop(report), report) for report in letter.reports]
            found += [(ticket, report) for ticket, report in pairs if ticket is not None]
            root.heard.set()
        return found

    def _pop(self, report: Report) -> Ticket | None:
        sent = self._sent.get(report.batch)
        ticket = sent.tickets.pop(report.place, None) if sent else None
        if sent and ticket:
            sent.root.out -= 1
            if not sent.tickets:
                del self._sent[report.batch]
        return ticket

    async def _conclude(self, ended: Sequence[tuple[Ticket, Ending | None]], *, mine: bool) -> None:
        told = [
            (ticket.job, replace(ending, outcome=replace(ending.outcome, path=ticket.job.path)))
            for ticket, ending in ended
            if ending is not None
        ]
        if told:
            try:
                await asyncio.to_thread(self._concluded, told, mine=mine)
            except Exception:  # what is not remembered will be found out again
                _log.exception("unexpected error, please report it")
        for ticket, ending in ended:
            self._offered.pop(ticket.job.path, None)
            self._failed.pop(ticket.job.path, None)
            if ending and ending.outcome.result is Result.FAILED:
                self._failed[ticket.job.path] = None
                if len(self._failed) > _MOST_FAILED:
                    self._failed.popitem(last=False)
            await self._queue.done(ticket)

    # Looking after what is handed out

    async def _beat(self) -> None:
        await self._pulse.inspect()
        await mailbox.register(self._pulse.link, list(self._names), self._owner)
        if _now() - self._audited > self._audit_every:
            self._audited = _now()
            await self._audit()
        self._look_for_hosts()
        await asyncio.sleep(min(_BEAT, self._audit_every))

    def _look_for_hosts(self) -> None:
        """Tell when a root has nobody any more who does its work, once all had the time to say that they are there."""
        if time.time() - self.link.since < _HOST_KEPT:
            return
        for root in self._roots.values():
            alone = not self.hosts(root.name)
            if alone and not root.alone:
                need = "one with the role work, the same version and settings, and the root at the same path"
                _log.warning("no host does the work of this root: it waits", root=root.name, needed=need)
            elif root.alone and not alone:
                _log.info("there is a host again that does the work of this root", root=root.name)
            root.alone = alone

    async def _audit(self) -> None:
        """Take back what docket does not know any more: Redis was emptied, or it never got there."""
        old = [(key, sent) for key, sent in self._sent.items() if _now() - sent.at > self._audit_every]

        async def ask(client: Redis) -> list[int]:
            pipeline = client.pipeline(transaction=False)
            for key, sent in old:
                pipeline.exists(sent.root.engine.runs_key(key))
            return await pipeline.execute()

        known = await self._pulse.link.ask(ask, within=_WITHIN) if old else []
        lost = 0
        for (key, sent), there in zip(old, known, strict=True):
            if not there and sent.missed and self._sent.get(key) is sent:  # else its report may still be on the way
                lost += len(sent.tickets)
                await self._take_back(key, sent)
            sent.missed = not there
        if lost:
            _log.warning("the queue has lost jobs: they are offered again", jobs=lost)

    async def _take_back(self, key: str, sent: _Sent) -> None:
        del self._sent[key]
        sent.root.out -= len(sent.tickets)
        for ticket in sent.tickets.values():
            await self._queue.again(ticket, ticket.job, 0.0)
        sent.root.heard.set()


def _now() -> float:
    return asyncio.get_running_loop().time()
