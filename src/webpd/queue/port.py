"""What the service asks of a queue. Every implementation passes ``tests/queue/contract.py``."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import IntEnum
from typing import Protocol

from webpd.model import Ending, Job


class Lane(IntEnum):
    """Who waits for a job: in this order they are served, and none starves."""

    URGENT = 0
    """A visitor asked for it."""
    FRESH = 1
    """It was just written."""
    BACKFILL = 2
    """A scan found it."""


@dataclass(frozen=True, slots=True)
class Ticket:
    """A job in somebody's hands: ``done`` or ``again`` must be told of it.

    ``tries`` counts the times it was taken before, since it last changed.
    """

    job: Job
    lane: Lane
    tries: int


@dataclass(frozen=True, slots=True)
class QueueState:
    """How things stand, over all roots.

    ``depth`` counts what is to be taken now or later, by lane; of these ``delayed`` cannot be taken yet: they are not
    due, or their path is still in flight. ``oldest`` is how long the oldest entry of a lane has been in it, in seconds,
    0.0 where there is none; what is sent back by ``again`` or moves up counts from then. ``limited`` is for how many
    seconds, since the beginning, the rate limit held something back.
    """

    depth: Mapping[Lane, int]
    delayed: int
    in_flight: int
    oldest: Mapping[Lane, float]
    limited: float = 0.0

    @property
    def idle(self) -> bool:
        return not self.in_flight and not any(self.depth.values())


class Inlet(Protocol):
    """Where work is offered that was found."""

    async def offer(self, jobs: Sequence[Job], lane: Lane, delay: float = 0.0) -> int:
        """Take in the jobs, all of one root, in order, until the lane is full; return how many were taken in.

        ``delay`` is in seconds from now. A path that waits already keeps its place and its delay, takes over the newer
        job, and moves up to the lane offered if that one is served earlier (and has room). When its file (size, mtime)
        is no longer the same, its ``tries`` begin anew and ``delay`` holds: it has to settle anew. A path in flight
        comes again after ``done``, unless the job offered is the very one in flight.
        """

    def state(self) -> QueueState:
        """Return how things stand, at once."""


class Outlet(Protocol):
    """Where work is taken to be done."""

    async def take(self, root: str) -> Ticket:
        """Wait for the next job of the root that is due, and for the rate limit. Directories take turns.

        Nothing is lost when the wait is cancelled.
        """

    async def done(self, ticket: Ticket, ending: Ending | None = None) -> None:
        """The job has come to an end, good or bad: ``ending`` is for who offered it, where that is another host."""

    async def again(self, ticket: Ticket, job: Job, delay: float | None = None) -> None:
        """The job must be done again, as ``job``: after ``delay`` seconds, or after a delay that grows with ``tries``.

        Never refused, however full the lane is. An offer that came meanwhile wins over ``job``, with its own delay.
        """

    def state(self) -> QueueState:
        """Return how things stand, at once."""


class Queue(Inlet, Outlet, Protocol):
    """One entry a path, in lanes that each root has its own of, bounded. All methods belong to one event loop."""


class Limit(Protocol):
    """How much may be taken in a time. Belongs to one event loop; asks nobody while it is called."""

    def admit(self, lane: Lane, size: int) -> float:
        """Count an image of so many bytes and return 0.0; or count nothing, and return the seconds until it may do."""
