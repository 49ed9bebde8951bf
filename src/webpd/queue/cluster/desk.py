"""The jobs of one root on a host that works: what is here, who waits for it, and what became of it."""

import asyncio
import contextlib
from collections import deque
from collections.abc import Callable, Collection
from dataclasses import dataclass, field

import structlog

from webpd.model import Ending, Job
from webpd.queue.cluster.wire import Batch, Report
from webpd.queue.port import Lane, Ticket

_log = structlog.get_logger(__name__)

_GRACE = 0.1
"""Seconds for which more than is wanted may lie here: a taker that has just given something back comes again."""
_GATE, _GATE_CLOSED = 1.0, 0.02


@dataclass(frozen=True, slots=True, eq=False)
class DeskTicket(Ticket):
    """A ticket that knows where it is from: the ``place``-th of ``delivery``. It is equal to none but itself."""

    delivery: "Delivery"
    place: int

    __eq__ = object.__eq__
    __hash__ = object.__hash__


@dataclass(slots=True, eq=False)
class Delivery:
    """A batch that is here: the places of what is ``open``, how many reports are not sent yet, when something moved."""

    batch: Batch
    moved: float
    open: set[int]
    unsent: int = 0
    reported: asyncio.Event = field(default_factory=asyncio.Event)


class Desk:
    """Hands out what has been delivered. ``ahead`` is how many jobs may wait here while all takers are busy.

    ``report`` is called with what became of each job, and ``sent`` is to be called when Redis has that. ``changed`` is
    called whenever there may be other room than before. What does not move for ``patience`` seconds goes back.
    """

    def __init__(
        self,
        root: str,
        ahead: int,
        patience: float,
        report: Callable[[Delivery, Report], None],
        changed: Callable[[], None],
    ) -> None:
        self.root = root
        self._ahead = ahead
        self._patience = patience
        self._report = report
        self._changed = changed
        self._stock = {lane: deque[DeskTicket]() for lane in Lane}
        self._takers: deque[asyncio.Future[DeskTicket]] = deque()
        self._held: set[DeskTicket] = set()
        self._lost: set[DeskTicket] = set()
        self._draining = self._closed = False
        self._deliveries: dict[str, Delivery] = {}
        self._coming: set[str] = set()
        self._moved = asyncio.Event()
        self._surplus: asyncio.TimerHandle | None = None

    def depth(self, lane: Lane) -> int:
        return len(self._stock[lane])

    @property
    def in_hands(self) -> int:
        return len(self._held)

    @property
    def room(self) -> int:
        """How many jobs may be here, those in hands among them. None while nobody takes: the mount may be sick."""
        takers = 0 if self._draining or self._closed else len(self._takers) + len(self._held)
        return takers + self._ahead if takers else 0

    @property
    def wanted(self) -> int:
        return self.room - len(self._held) - sum(map(len, self._stock.values()))

    async def gate(self) -> bool:
        """Wait until a batch is wanted, but not much longer than a second; tell whether one is."""
        if self._closed:
            await asyncio.sleep(_GATE_CLOSED)
            return False
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_GATE):
                while not self._closed and (self.wanted <= 0 or self._coming):
                    self._moved.clear()
                    await self._moved.wait()
        self._coming.clear()
        return self.wanted > 0

    def expect(self, key: str) -> None:
        """A batch of this key has been read, and will be received: until then no other one is wanted."""
        self._coming.add(key)

    async def receive(self, batch: Batch, ended: Collection[int]) -> None:
        """Take in the batch but for the places that have ended; return when all that is to be said has been sent.

        It may be here already.
        """
        self._coming.discard(batch.key)
        delivery = self._deliveries.get(batch.key)
        if delivery is None:
            delivery = Delivery(batch, _now(), set(range(len(batch.items))).difference(ended))
            if not delivery.open:
                return
            self._deliveries[batch.key] = delivery
            for place in sorted(delivery.open):
                item = batch.items[place]
                self._stock[item.lane].append(DeskTicket(item.job, item.lane, item.tries, delivery, place))
            self._serve()
            if self._draining or self._closed:
                self._give_back(delivery, delivery.open)
            self._move()
        await delivery.reported.wait()

    def sent(self, delivery: Delivery, reports: int) -> None:
        """So many of its reports have reached Redis."""
        delivery.unsent -= reports
        if not delivery.open and not delivery.unsent:
            delivery.reported.set()
            self._deliveries.pop(delivery.batch.key, None)

    async def take(self) -> DeskTicket:
        """Wait for a job. Nothing is lost when the wait is cancelled."""
        taker: asyncio.Future[DeskTicket] = asyncio.get_running_loop().create_future()
        self._takers.append(taker)
        self._serve()
        self._move()
        try:
            return await taker
        except asyncio.CancelledError:
            if taker in self._takers:
                self._takers.remove(taker)
            if not taker.cancelled():
                self._put_back(taker.result())
            self._move()
            raise

    def done(self, ticket: DeskTicket, ending: Ending | None) -> None:
        """Raises ``ValueError``: it was given back before."""
        self._settle(ticket, Report(ticket.delivery.batch.key, ticket.place, ending))

    def again(self, ticket: DeskTicket, job: Job, delay: float | None) -> None:
        """Raises ``ValueError``: it was given back before."""
        self._settle(ticket, Report(ticket.delivery.batch.key, ticket.place, again=job, delay=delay))

    def expire(self) -> None:
        """Give back what has not moved for too long: whoever has it in hands may hang in the mount."""
        for delivery in list(self._deliveries.values()):
            if delivery.open and _now() - delivery.moved > self._patience:
                _log.warning("jobs given back: nothing moved", root=self.root, jobs=len(delivery.open))
                self._give_back(delivery, delivery.open)
        self._move()

    def drain(self) -> None:
        """Want no more, and give back what nobody has in hands."""
        self._draining = True
        for stock in self._stock.values():
            for ticket in list(stock):
                self._give_back(ticket.delivery, [ticket.place])
        self._move()

    def close(self) -> None:
        """Give back all, now and whenever more comes."""
        self._closed = True
        for delivery in list(self._deliveries.values()):
            self._give_back(delivery, delivery.open)
        self._moved.set()

    def abandon(self) -> None:
        """Let go of what could not be reported; where docket can still say so, it goes to another host."""
        for delivery in self._deliveries.values():
            delivery.reported.set()

    def _put_back(self, ticket: DeskTicket) -> None:
        if ticket in self._lost:
            self._lost.remove(ticket)
            return
        self._held.remove(ticket)
        self._stock[ticket.lane].appendleft(ticket)
        if self._draining or self._closed:
            self._give_back(ticket.delivery, [ticket.place])
        self._serve()

    def _serve(self) -> None:
        while self._takers and (lane := next((lane for lane in Lane if self._stock[lane]), None)) is not None:
            taker = self._takers.popleft()
            if taker.done():  # cancelled, and not told yet
                continue
            ticket = self._stock[lane].popleft()
            ticket.delivery.moved = _now()
            self._held.add(ticket)
            taker.set_result(ticket)

    def _settle(self, ticket: DeskTicket, report: Report) -> None:
        if ticket in self._lost:
            self._lost.remove(ticket)
        elif ticket in self._held:
            self._held.remove(ticket)
            ticket.delivery.moved = _now()
            self._tell(ticket.delivery, report)
        else:
            raise ValueError(f"this ticket was given back before: {ticket.job.path}")
        self._move()

    def _tell(self, delivery: Delivery, report: Report) -> None:
        delivery.open.remove(report.place)
        delivery.unsent += 1
        self._report(delivery, report)

    def _give_back(self, delivery: Delivery, places: Collection[int]) -> None:
        """Report these as not done. Who has one in hands may end it in vain."""
        for stock in self._stock.values():
            for ticket in [ticket for ticket in stock if ticket.delivery is delivery and ticket.place in places]:
                stock.remove(ticket)
        for ticket in [ticket for ticket in self._held if ticket.delivery is delivery and ticket.place in places]:
            self._held.remove(ticket)
            self._lost.add(ticket)
        for place in sorted(places):
            self._tell(delivery, Report(delivery.batch.key, place, again=delivery.batch.items[place].job, delay=0.0))

    def _move(self) -> None:
        self._moved.set()
        self._changed()
        if self._surplus is None and self._too_much():
            self._surplus = asyncio.get_running_loop().call_later(_GRACE, self._give_back_surplus)

    def _too_much(self) -> int:
        """How many jobs more lie here than are wanted, beyond what came in one batch with those that are."""
        lying = sum(map(len, self._stock.values()))
        if not lying or not self.room:
            return lying
        largest = max(len(delivery.batch.items) for delivery in self._deliveries.values())
        return max(0, lying - self._ahead - (largest - 1))

    def _give_back_surplus(self) -> None:
        self._surplus = None
        for _ in range(self._too_much()):
            ticket = next(self._stock[lane][-1] for lane in reversed(Lane) if self._stock[lane])
            self._give_back(ticket.delivery, [ticket.place])
        self._move()


def _now() -> float:
    return asyncio.get_running_loop().time()
