"""What the service asks of its memory. Every implementation passes ``tests/ledger/contract.py``.

Losing it costs time, never a picture: the tree is the truth.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import NamedTuple, Protocol

from webpd.model import Known, Result


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
class Totals:
    """Sums over the directories of a root."""

    directories: int
    unsettled: int
    images: int
    orphans: int


@dataclass(frozen=True, slots=True)
class Pass:
    """The last walk over a whole root, and the numbers of the root as they were when it ended.

    ``ended`` is when that was, ``full`` when the last walk ended that listed every directory (Unix time, seconds; None:
    there was none yet). ``kept``, ``skipped`` and ``failed`` count the files that were known to have come to that.
    """

    ended: float
    full: float | None
    totals: Totals
    kept: int
    skipped: int
    failed: int


class LedgerReader(Protocol):
    """What may be asked while another process writes. Thread-safe and synchronous: never called on the event loop.

    Roots are absolute paths, directories relative to them ("" is the root), names those of files. None of them need be
    UTF-8: they come and go as ``os.fsdecode`` makes them.
    """

    def roots(self) -> list[str]:
        """Return the roots that anything was ever remembered of, in the order of their bytes."""

    def totals(self, root: str) -> Totals:
        """Return the sums over the root."""

    def results(self, root: str) -> Mapping[tuple[Result, str], int]:
        """Return how many files are known, by result and reason."""

    def files(self, root: str, result: Result, reason: str, limit: int) -> list[str]:
        """Return up to ``limit`` files that are known to have come to that, as paths relative to the root, in order.

        Where there are fewer, all that is known of the root is read: a second or so for a million files.
        """

    def passed(self, root: str) -> Pass | None:
        """Return the last walk over the whole root."""

    def kind(self, root: str) -> str | None:
        """Return the file system type that the root was last seen on."""


class Ledger(LedgerReader, Protocol):
    """Written in batches; a crash may lose the last one."""

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
        """Forget the directory, all below it, and what is known of the files in them; doubt the one that holds it.

        With the root itself ("") its last walk is forgotten as well.
        """

    def orphaned(self, root: str, before: float, limit: int) -> list[Directory]:
        """Return directories whose orphans were first seen before that moment (monotonic seconds), oldest first."""

    def emptied(self, root: str, limit: int) -> list[Directory]:
        """Return directories with ``pruned`` set, the last path first, so that a folder comes after what is in it."""

    def known(self, root: str, directory: str, name: str | None = None) -> Mapping[str, Known]:
        """Return what is known of the files of the directory, by name; with a ``name``, of that one alone."""

    def learn(self, root: str, directory: str, known: Mapping[str, Known]) -> None:
        """Remember this of files of the directory."""

    def unlearn(self, root: str, directory: str, names: Iterable[str]) -> None:
        """Forget what is known of files of the directory."""

    def outdate(self, root: str, fingerprint: bytes) -> None:
        """Doubt the directories of all files that are known under another fingerprint, but an empty one."""

    def note_pass(self, root: str, at: float, *, full: bool) -> None:
        """Remember that a walk over the whole root ended then (Unix time, seconds), and the numbers as they are now.

        ``full`` tells that it listed every directory.
        """

    def note_kind(self, root: str, kind: str) -> None:
        """Remember the file system type that the root is on."""

    def flush(self) -> None:
        """Make all that was told durable against the end of this process."""

    def close(self) -> None:
        """Flush, and let go of the file."""
