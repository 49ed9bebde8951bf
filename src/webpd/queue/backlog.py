"""What waits for one root: lanes of entries, and whose turn it is among lanes and directories."""

import os
from asyncio import TimerHandle
from collections import OrderedDict
from collections.abc import Iterator
from dataclasses import dataclass, field

from webpd.model import Job
from webpd.queue.port import Lane

_ROUND = 16
_TURNS = {_ROUND // 2: Lane.FRESH, _ROUND: Lane.BACKFILL}


@dataclass(slots=True, eq=False)
class Entry:
    """A path that waits. ``due`` and ``since`` (when it came into its lane) are readings of the loop's clock.

    It is ``ready``, or its ``timer`` runs, or neither while the path is still in somebody's hands.
    """

    job: Job
    lane: Lane
    tries: int
    due: float
    since: float
    ready: bool = False
    timer: TimerHandle | None = None
    directory: str = field(init=False)

    def __post_init__(self) -> None:
        self.directory = os.path.dirname(self.job.path)


class LaneBacklog:
    """The entries of one lane in the order in which they came, and those that are ready, directory by directory."""

    def __init__(self) -> None:
        # A plain dict would look through all the places already emptied each time it is asked for its first entry.
        self._entries: OrderedDict[str, Entry] = OrderedDict()
        self._directories: OrderedDict[str, OrderedDict[str, Entry]] = OrderedDict()
        self.ready = 0

    def __len__(self) -> int:
        return len(self._entries)

    @property
    def oldest(self) -> Entry | None:
        return next(iter(self._entries.values()), None)

    def add(self, entry: Entry) -> None:
        self._entries[entry.job.path] = entry

    def remove(self, entry: Entry) -> None:
        self.unready(entry)
        del self._entries[entry.job.path]

    def make_ready(self, entry: Entry) -> None:
        """Let it be taken, as the last of its directory."""
        self._directories.setdefault(entry.directory, OrderedDict())[entry.job.path] = entry
        entry.ready = True
        self.ready += 1

    def unready(self, entry: Entry) -> None:
        """Let it not be taken; nothing happens if it could not be."""
        if not entry.ready:
            return
        directory = self._directories[entry.directory]
        del directory[entry.job.path]
        if not directory:
            del self._directories[entry.directory]
        entry.ready = False
        self.ready -= 1

    def peek(self) -> Entry:
        """Return the first ready entry of the directory whose turn it is. Raises StopIteration if none is."""
        return next(iter(next(iter(self._directories.values())).values()))

    def take(self, entry: Entry) -> None:
        """Remove the entry that ``peek`` returned; its directory has had its turn."""
        self.remove(entry)
        if entry.directory in self._directories:
            self._directories.move_to_end(entry.directory)


class Backlog:
    """The lanes of one root.

    The first lane that has something ready is served. So that none starves, every 16th entry comes from BACKFILL, and
    the one halfway between from FRESH, if they have something ready.
    """

    def __init__(self) -> None:
        self.lanes = {lane: LaneBacklog() for lane in Lane}
        self._entries: dict[str, Entry] = {}
        self._turns = 0

    def __len__(self) -> int:
        return len(self._entries)

    @property
    def ready(self) -> int:
        return sum(lane.ready for lane in self.lanes.values())

    def get(self, path: str) -> Entry | None:
        return self._entries.get(path)

    def add(self, entry: Entry) -> None:
        self._entries[entry.job.path] = entry
        self.lanes[entry.lane].add(entry)

    def move(self, entry: Entry, lane: Lane, now: float) -> None:
        """Put the entry into another lane, as the last of it; ready stays ready."""
        ready = entry.ready
        self.lanes[entry.lane].remove(entry)
        entry.lane, entry.since = lane, now
        self.lanes[lane].add(entry)
        if ready:
            self.lanes[lane].make_ready(entry)

    def candidates(self) -> Iterator[Entry]:
        """Yield the entry whose turn it is; if that must wait for the rate limit, an urgent one may still pass it."""
        lane = _TURNS.get(self._turns % _ROUND + 1)
        if lane is None or not self.lanes[lane].ready:
            lane = next((lane for lane in Lane if self.lanes[lane].ready), None)
        if lane is None:
            return
        yield self.lanes[lane].peek()
        if lane is not Lane.URGENT and self.lanes[Lane.URGENT].ready:
            yield self.lanes[Lane.URGENT].peek()

    def take(self, entry: Entry) -> None:
        """Remove one of the ``candidates``. Whoever was passed by an urgent one keeps the turn."""
        if entry is next(self.candidates()):
            self._turns += 1
        self.lanes[entry.lane].take(entry)
        del self._entries[entry.job.path]
