"""What happened to each image, and how much was done when. Every implementation passes
``tests/ledger/history_contract.py``.

It is for people to read. Nothing is decided by it: losing it loses answers, never a picture.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

from webpd.model import Result

Step = Literal["minute", "day"]

SECONDS: Mapping[Step, int] = {"minute": 60, "day": 86_400}
"""The length of each step. Days are those of UTC."""

KEPT: Mapping[Step, int] = {"minute": 35 * 86_400, "day": 400 * 86_400}
"""For how many seconds the totals of each step are kept, or up to a day longer."""

MOST_IMAGES = 2_000_000
"""Of more images than that the oldest are forgotten."""

MOST_RECENT = 10_000
"""Images among which the last conversions are looked for: so many failures in a row hide them."""


@dataclass(frozen=True, slots=True)
class Event:
    """What happened to one image, the last time that it was worked on.

    ``root`` is an absolute path and ``path`` relative to it; neither need be UTF-8. ``size`` (bytes) and ``mtime_ns``
    (nanoseconds) are those of the original, ``width`` and ``height`` in pixels as shown; these two are 0 and ``format``
    is "" where the image was not understood. ``webp_bytes`` counts the sidecar, ``seconds`` the work, ``at`` is when
    it ended (Unix time, seconds), ``host`` where; ``fingerprint`` stands for the settings and the program's version.
    """

    root: str
    path: str
    size: int
    mtime_ns: int
    width: int
    height: int
    format: str
    result: Result
    reason: str
    detail: str
    webp_bytes: int
    seconds: float
    fingerprint: bytes
    at: float
    host: str


@dataclass(frozen=True, slots=True)
class Total:
    """Sums over events: how many, the bytes of their originals and of their sidecars, the seconds of work."""

    images: int
    source_bytes: int
    webp_bytes: int
    seconds: float


class HistoryReader(Protocol):
    """Thread-safe and synchronous: never called on the event loop."""

    def image(self, root: str, path: str) -> Event | None:
        """Return what happened last to the image."""

    def failures(
        self, root: str | None = None, *, after: tuple[str, str] | None = None, limit: int = 1000
    ) -> list[Event]:
        """Return up to ``limit`` images that failed, of that root or of all.

        They come in the order of the bytes of root and path; ``after`` is where the page before ended.
        """

    def reasons(self) -> Mapping[str, int]:
        """Return how many images failed, by reason."""

    def totals(self, since: float, until: float) -> Mapping[Result, Total]:
        """Return the sums over all minutes that began from ``since`` on and before ``until`` (Unix time, seconds).

        Days that lie wholly in between count for as long as days are kept, the rest for as long as minutes are.
        """

    def series(self, since: float, until: float, step: Step) -> list[tuple[int, Result, Total]]:
        """Return the sums of each minute or day that began in that time, by when it began and result, in that order.

        Where nothing happened there is none.
        """

    def close(self) -> None:
        """Flush, and let go of what is held; no other call may follow."""


class RecentReader(HistoryReader, Protocol):
    """What the history of one host tells besides."""

    def recent(self, limit: int) -> list[Event]:
        """Return up to ``limit`` of the images that were converted last, the newest first.

        They are looked for among the last ``MOST_RECENT`` that were worked on.
        """


class History(HistoryReader, Protocol):
    """Written in batches; a crash may lose the last one."""

    def note(self, events: Sequence[Event]) -> None:
        """Remember these, in place of what happened to the same images before; add them to the totals.

        Of two events of an image the later one (``at``) is kept; both count.
        """

    def forget(self, root: str, path: str) -> None:
        """Forget an original that is gone, or a directory with all below it ("" is the root). Totals stay."""

    def flush(self) -> None:
        """Make all that was told durable against the end of this process."""


def sums(events: Iterable[Event]) -> dict[tuple[Step, int, Result], Total]:
    """Return what the events add to the totals, by step, its beginning (Unix time, seconds) and result."""
    found: dict[tuple[Step, int, Result], Total] = {}
    nothing = Total(0, 0, 0, 0.0)
    for event in events:
        for step, length in SECONDS.items():
            key = (step, math.floor(event.at / length) * length, event.result)
            total = found.get(key, nothing)
            found[key] = Total(
                total.images + 1,
                total.source_bytes + event.size,
                total.webp_bytes + event.webp_bytes,
                total.seconds + event.seconds,
            )
    return found


def spans(since: float, until: float) -> list[tuple[Step, int, int]]:
    """Return which steps make up that time: of each, where the first begins, and before what the last does.

    Whole days count as such, the rest by the minute: few steps are to be added, and days outlive minutes.
    """
    begin, end = (math.ceil(at / SECONDS["minute"]) * SECONDS["minute"] for at in (since, until))
    day = SECONDS["day"]
    first, last = -(-begin // day) * day, end // day * day
    if first >= last:
        return [("minute", begin, end)]
    return [("minute", begin, first), ("day", first, last), ("minute", last, end)]
