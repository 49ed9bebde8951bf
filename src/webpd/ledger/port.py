"""What the service asks of its memory. Every implementation passes ``tests/ledger/contract.py``.

Losing it costs time, never a picture: the tree is the truth.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import NamedTuple, Protocol

from webpd.model import Result, Sidecar


class Directory(NamedTuple):
    """A directory of a root, and what the last look at it found; a tuple, since a poll cycle makes one of each.

    ``path`` is relative to the root, "" for the root itself. ``mtime_ns`` is the directory's own, read before the
    listing, or None while it has to be looked at, whatever its mtime. ``sure`` tells that no name can have appeared
    since under the same mtime; until then it is looked at again some time after ``looked``, a reading of the monotonic
    clock in seconds. ``images`` counts originals, ``orphans`` sidecars of ours without one, first seen at
    ``orphaned`` (monotonic seconds; 0.0 where there are none). ``pruned`` tells that we removed something from it, so
    that it may go when it is empty. A boot sets that clock back: then ``looked`` is 0.0 and ``orphaned`` the time of
    opening.
    """

    path: str
    mtime_ns: int | None = None
    sure: bool = False
    looked: float = 0.0
    images: int = 0
    orphans: int = 0
    orphaned: float = 0.0
    pruned: bool = False


@dataclass(frozen=True, slots=True)
class Known:
    """What is known of one file, for as long as all but ``result``, ``reason`` and ``detail`` stays as it is.

    ``size`` is in bytes, ``mtime_ns`` in nanoseconds; ``sidecar`` is what the stats said of the file beside it;
    ``fingerprint`` stands for the settings and the program's version.
    """

    size: int
    mtime_ns: int
    sidecar: Sidecar
    fingerprint: bytes
    result: Result
    reason: str = ""
    detail: str = ""


@dataclass(frozen=True, slots=True)
class Totals:
    """Sums over the directories of a root."""

    directories: int
    unsettled: int
    images: int
    orphans: int


class Ledger(Protocol):
    """Thread-safe and synchronous: never called on the event loop. Written in batches; a crash may lose the last one.

    Roots are absolute paths, directories relative to them ("" is the root), names those of files. None of them need be
    UTF-8: they come and go as ``os.fsdecode`` makes them.
    """

    def directories(self, root: str, after: str | None, limit: int) -> list[Directory]:
        """Return up to ``limit`` directories whose path sorts after ``after`` (None: from the first), in order.

        The order is that of the bytes of the path, so that a folder comes before what is in it.
        """

    def directory(self, root: str, path: str) -> Directory | None:
        """Return what is remembered of the directory."""

    def discover(self, root: str, paths: Iterable[str]) -> list[str]:
        """Remember that these directories are there and have to be looked at; return those that were not known."""

    def record(self, root: str, directory: Directory) -> None:
        """Remember this of the directory, in place of what was remembered; ``pruned``, once set, stays so."""

    def spare(self, root: str, path: str) -> None:
        """Take back that the directory was ``pruned``: it may stay."""

    def doubt(self, root: str, paths: Iterable[str]) -> None:
        """These directories must be looked at, whatever their mtime: sets ``mtime_ns`` to None.

        Those that are not known stay unknown.
        """

    def forget(self, root: str, path: str) -> None:
        """Forget the directory, all below it, and what is known of the files in them; doubt the one that holds it."""

    def orphaned(self, root: str, before: float, limit: int) -> list[Directory]:
        """Return directories whose orphans were first seen before that moment (monotonic seconds), oldest first."""

    def emptied(self, root: str, limit: int) -> list[Directory]:
        """Return directories with ``pruned`` set, the last path first, so that a folder comes after what is in it."""

    def totals(self, root: str) -> Totals:
        """Return the sums over the root."""

    def known(self, root: str, directory: str) -> Mapping[str, Known]:
        """Return what is known of the files of the directory, by name."""

    def learn(self, root: str, directory: str, known: Mapping[str, Known]) -> None:
        """Remember this of files of the directory."""

    def unlearn(self, root: str, directory: str, names: Iterable[str]) -> None:
        """Forget what is known of files of the directory."""

    def outdate(self, root: str, fingerprint: bytes) -> None:
        """Doubt the directories of all files that are known under another fingerprint, but an empty one."""

    def results(self, root: str) -> Mapping[tuple[Result, str], int]:
        """Return how many files are known, by result and reason."""

    def kind(self, root: str) -> str | None:
        """Return the file system type that the root was last seen on."""

    def note_kind(self, root: str, kind: str) -> None:
        """Remember the file system type that the root is on."""

    def flush(self) -> None:
        """Make all that was told durable against the end of this process."""

    def close(self) -> None:
        """Flush, and let go of the file."""
