"""The queue of one host: in memory, on one event loop. What it forgets when the process ends, polling finds again."""

import asyncio
import random
from collections.abc import Sequence

from webpd.model import Ending, Job
from webpd.queue.backlog import Backlog, Entry
from webpd.queue.port import Lane, Limit, QueueState, Ticket

_FIRST_DELAY = 1.0
_LONGEST_DELAY = 600.0
_JITTER = 0.25


class QueueManager:
    """Implements ``Queue`` for these roots. ``capacity`` holds for each lane of each root; ``chance`` draws the jitter.

    A root that is not among them raises KeyError, a ticket that was given back before ValueError.
    """

    def __init__(
        self,
        roots: Sequence[str],
        *,
        capacity: int = 10_000,
        limit: Limit | None = None,
        chance: random.Random | None = None,
    ) -> None:
        self._roots = {root: _RootQueue(capacity, limit) for root in roots}
        self._chance = chance or random.Random()  # noqa: S311 - spreads retries; nothing is secret

    async def offer(self, jobs: Sequence[Job], lane: Lane, delay: float = 0.0) -> int:
        if not jobs:
            return 0
        queue = self._roots[jobs[0].root]
        due = _now() + delay
        for taken, job in enumerate(jobs):
            if not queue.offer(job, lane, due):
                return taken
        return len(jobs)

    async def take(self, root: str) -> Ticket:
        return await self._roots[root].take()

    def take_now(self, root: str) -> Ticket | None:
        """Take the next job of the root, if there is one that is due and the rate limit lets it pass."""
        return self._roots[root].take_now()

    async def ready(self, root: str) -> None:
        """Wait until ``take_now`` may find something; who else takes of the root may find it first."""
        await self._roots[root].wait()

    async def done(self, ticket: Ticket, ending: Ending | None = None) -> None:  # noqa: ARG002 - who offered it is here
        self._roots[ticket.job.root].done(ticket)

    async def again(self, ticket: Ticket, job: Job, delay: float | None = None) -> None:
        tries = ticket.tries + 1 if _same_file(job, ticket.job) else 0
        if delay is None:
            delay = min(_FIRST_DELAY * 2.0 ** min(max(tries - 1, 0), 10), _LONGEST_DELAY)
            delay *= self._chance.uniform(1 - _JITTER, 1 + _JITTER)
        self._roots[ticket.job.root].again(ticket, job, tries, _now() + delay)

    def state(self) -> QueueState:
        now = _now()
        queues = self._roots.values()
        oldest = dict.fromkeys(Lane, 0.0)
        for queue in queues:
            for lane, backlog in queue.backlog.lanes.items():
                if backlog.oldest is not None:
                    oldest[lane] = max(oldest[lane], now - backlog.oldest.since)
        return QueueState(
            depth={lane: sum(len(queue.backlog.lanes[lane]) for queue in queues) for lane in Lane},
            delayed=sum(len(queue.backlog) - queue.backlog.ready for queue in queues),
            in_flight=sum(len(queue.in_flight) for queue in queues),
            oldest=oldest,
            limited=sum(queue.limited for queue in queues),
        )


class _RootQueue:
    """What waits for one root, what is in hands, and who waits for either."""

    def __init__(self, capacity: int, limit: Limit | None) -> None:
        self.backlog = Backlog()
        self.in_flight: dict[str, Ticket] = {}
        self._capacity = capacity
        self._limit = limit
        self._takers = asyncio.Lock()
        # Not set: ``take_now`` found nothing, and nothing has changed since. From ``_retry_at`` on (a reading of the
        # loop's clock) the rate limit may let pass what it refused then.
        self._changed = asyncio.Event()
        self._changed.set()
        self._retry_at: float | None = None
        self.limited = 0.0

    def offer(self, job: Job, lane: Lane, due: float) -> bool:
        """Take the job in, and tell whether there was room for it."""
        entry = self.backlog.get(job.path)
        ticket = self.in_flight.get(job.path)
        if entry is None and ticket is not None and ticket.job == job:
            return True
        if (entry is None or lane < entry.lane) and len(self.backlog.lanes[lane]) >= self._capacity:
            return False
        if entry is None:
            tries = ticket.tries + 1 if ticket is not None and _same_file(ticket.job, job) else 0
            self._add(Entry(job, lane, tries, due, _now()))
            return True
        changed = not _same_file(entry.job, job)
        entry.job = job
        if lane < entry.lane:
            self._move(entry, lane)
        if changed:
            entry.tries, entry.due = 0, due
            self._schedule(entry)
        return True

    async def take(self) -> Ticket:
        # Takers stand in line, so that one entry wakes one of them. Nothing is awaited between choosing and having:
        # whoever is cancelled holds nothing yet, and what comes while the rate limit is waited for can still go first.
        async with self._takers:
            while (ticket := self.take_now()) is None:
                await self.wait()
        return ticket

    def take_now(self) -> Ticket | None:
        waits = []
        for entry in self.backlog.candidates():
            wait = self._limit.admit(entry.lane, entry.job.size) if self._limit else 0.0
            if not wait:
                self.backlog.take(entry)
                self._changed.set()
                ticket = self.in_flight[entry.job.path] = Ticket(entry.job, entry.lane, entry.tries)
                return ticket
            waits.append(wait)
        self._changed.clear()
        self._retry_at = _now() + min(waits) if waits else None
        return None

    async def wait(self) -> None:
        """Wait until ``take_now`` may find something."""
        begun, limited = _now(), self._retry_at is not None
        try:
            async with asyncio.timeout_at(self._retry_at):
                await self._changed.wait()
        except TimeoutError:
            pass  # it may go now
        finally:
            self.limited += _now() - begun if limited else 0.0

    def done(self, ticket: Ticket) -> None:
        path = ticket.job.path
        if self.in_flight.get(path) is not ticket:
            raise ValueError(f"this ticket was given back before: {path}")
        del self.in_flight[path]
        entry = self.backlog.get(path)
        if entry is not None:
            self._schedule(entry)

    def again(self, ticket: Ticket, job: Job, tries: int, due: float) -> None:
        self.done(ticket)
        entry = self.backlog.get(ticket.job.path)
        if entry is None:
            self._add(Entry(job, ticket.lane, tries, due, _now()))
        elif ticket.lane < entry.lane:
            self._move(entry, ticket.lane)

    def _add(self, entry: Entry) -> None:
        self.backlog.add(entry)
        self._schedule(entry)

    def _move(self, entry: Entry, lane: Lane) -> None:
        self.backlog.move(entry, lane, _now())
        self._changed.set()

    def _schedule(self, entry: Entry) -> None:
        """Make the entry ready when it is due, or leave that to ``done`` while its path is in flight."""
        if entry.timer is not None:
            entry.timer.cancel()
            entry.timer = None
        if entry.job.path in self.in_flight:
            return
        if entry.due <= _now():
            self._ripen(entry)
            return
        self.backlog.lanes[entry.lane].unready(entry)
        entry.timer = asyncio.get_running_loop().call_at(entry.due, self._ripen, entry)

    def _ripen(self, entry: Entry) -> None:
        entry.timer = None
        if not entry.ready:
            self.backlog.lanes[entry.lane].make_ready(entry)
        self._changed.set()


def _same_file(one: Job, other: Job) -> bool:
    return one.size == other.size and one.mtime_ns == other.mtime_ns


def _now() -> float:
    return asyncio.get_running_loop().time()
