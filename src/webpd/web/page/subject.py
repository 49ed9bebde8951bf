"""What the page shows, as it asks for it. ``service/pageview.py`` answers."""

from collections.abc import Mapping, Sequence
from typing import Any, Literal, Protocol

Leftovers = Literal["orphans", "foreign"]


class PageSubject(Protocol):
    """A running service. All that is told is ready for JSON.

    An image is told as ``root`` (as printed), ``path`` (relative to it, as printed) and ``ref``: root and path as the
    percent-encoded query that asks for it, for names that are not UTF-8 too.
    """

    def live(self) -> Mapping[str, Any]:
        """Return what is known without asking anybody, on the event loop.

        ``parts`` are told with ``reason`` and ``cure`` in English.
        """

    def remembered(self) -> Mapping[str, Any]:
        """Return what has to be looked up; blocks, and is called in a thread.

        Where it is not all that there should be, ``trouble`` says why.
        """

    def leftovers(self, kind: Leftovers, limit: int) -> Sequence[Mapping[str, str]]:
        """Return up to ``limit`` sidecars without original, or originals with a foreign .webp; called in a thread."""

    def answers(self, root: str) -> bool | None:
        """Tell whether the mount of that root (an absolute path) answers; None where there is no such root."""

    async def retry(self, paths: Sequence[str]) -> int:
        """Try failed images at and below these absolute paths again (none: all); return how many they are.

        Raises ``UnfitError`` where this host remembers no failures.
        """

    async def pause(self, seconds: float) -> bool:
        """Wait so long, or until the service is told to stop; tell whether it goes on."""
