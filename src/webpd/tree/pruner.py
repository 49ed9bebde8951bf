"""Removing sidecars whose original is gone, and the folders that they alone kept from going.

Bitrix deletes a picture and then tries ``rmdir`` on its size folder; our sidecar makes that fail, and nobody comes
back. Only what is ours goes, only when two looks some time apart agree, and with a stat of the original just before.
"""

import errno
import os
import threading
import time
from collections.abc import Iterator
from enum import StrEnum
from typing import Protocol

from webpd.errors import RetryableError
from webpd.model import Result
from webpd.tree import naming, sidecar, source
from webpd.tree.publisher import DryPublisher, Publisher, PublishError
from webpd.tree.scanner import Look, Scanner
from webpd.tree.sidecar import Origin
from webpd.tree.source import ChangedError, Version

_MOST_OF_ALL = 10
"""Sidecars that may go, unasked, where not one original is left: which is how a lost mount looks."""

_FOLDER_STAYS = {errno.ENOTEMPTY, errno.EEXIST, errno.ENOENT, errno.ENOTDIR, errno.EBUSY}


class PruneError(RetryableError):
    """A sidecar could not be looked at, or a folder not removed. It is left as it was."""


class Verdict(StrEnum):
    """What a file with a sidecar's name, but without an original in its listing, is."""

    OURS = "ours"
    """We made it for this place, and its original is gone: it may go."""
    FOREIGN = "foreign"
    """No regular file, or without a chunk of ours, or with one that tells of another time, or of a newer webpd."""
    BACK = "back"
    """Something has its original's name after all, or somebody is at work on it."""
    GONE = "gone"


def examine(path: str) -> tuple[Verdict, Version | None]:
    """Tell what the file at ``path``, a sidecar's, is, and which version of it that was said of.

    Raises ``PruneError``.
    """
    original = naming.original_of(path)
    try:
        origin, status = sidecar.read(path)
        version = source.version_of(status)
        if original is None or not isinstance(origin, Origin) or not sidecar.belongs(origin, status):
            return Verdict.FOREIGN, version
        return (Verdict.BACK if _is_there(original) else Verdict.OURS), version
    except sidecar.NotRegularError:
        return Verdict.FOREIGN, None
    except FileNotFoundError:
        return Verdict.GONE, None
    except OSError as error:
        raise _explained(error, path, "looked at") from error


class Pruner:
    """Removes what is left of deleted originals below ``root``, an absolute path. Thread-safe.

    Unasked, no more than ``share`` of the sidecars of a root may go in one pass, though always ``floor`` of them, and
    only a few where not one original is left (a share of 0 lets none go): that much vanishing at once is more likely a
    fault than a wish.
    """

    def __init__(self, root: str, publisher: Publisher | DryPublisher, *, share: float = 0.2, floor: int = 100) -> None:
        self._root = root
        self._publisher = publisher
        self._share = share
        self._floor = floor

    def most(self, images: int, orphans: int) -> int:
        """Return how many orphans may go in one pass, unasked, where there are so many and so many originals."""
        if not self._share:
            return 0
        return max(self._floor, int(self._share * (images + orphans))) if images else _MOST_OF_ALL

    def remove(self, path: str) -> Verdict:
        """Judge once more, and remove what is still ``OURS``; any other verdict says why it was left.

        Raises ``PruneError``, ``PublishError``, ``StorageError``.
        """
        verdict, version = examine(path)
        if verdict is Verdict.OURS and version is not None:
            try:
                self._publisher.withdraw(path, version)
            except ChangedError:  # whoever wrote it just now wants it there
                return Verdict.BACK
        return verdict

    def idle(self, directory: str) -> float:
        """Return for how many seconds, by our clock, no name came to the folder or went. Raises ``PruneError``."""
        try:
            return time.time() - os.lstat(directory).st_mtime
        except FileNotFoundError:
            return 0.0
        except OSError as error:
            raise _explained(error, directory, "looked at") from error

    def remove_folder(self, directory: str, younger_than: float) -> bool:
        """Remove the folder if it is empty, not the root, and idle for that many seconds; tell whether it went.

        Bitrix makes the folder first: one in which nothing happened for long is not about to be filled. 0: however
        young it is. Raises ``PruneError``.
        """
        if directory == self._root or (younger_than and self.idle(directory) < younger_than):
            return False
        try:
            os.rmdir(directory)
        except OSError as error:
            if error.errno in _FOLDER_STAYS:
                return False
            raise _explained(error, directory, "removed") from error
        return True


class Report(Protocol):
    """What wants to know how a pass goes on. Called from any thread. Sizes are in bytes."""

    def orphan(self, path: str, size: int) -> None:
        """The first look found an orphan of ours."""

    def foreign(self, path: str) -> None:
        """The first look found a file without an original that is not ours."""

    def removed(self, path: str) -> None:
        """A sidecar was removed."""

    def folder_removed(self, path: str) -> None:
        """An empty folder was removed."""

    def refused(self, path: str, detail: str) -> None:
        """This could not be looked at or removed."""


class PruningPass:
    """Two looks below one root: ``first`` at everything, and after a while ``second`` at each folder of ``folders``.

    ``young`` is in seconds: a folder in which something happened since stays. Thread-safe. ``images`` counts originals
    and ``orphans`` sidecars of ours without one, as of the first look. Memory grows with the names of the orphans.
    """

    def __init__(self, scanner: Scanner, pruner: Pruner, report: Report, *, young: float) -> None:
        self._scanner = scanner
        self._pruner = pruner
        self._report = report
        self._young = young
        self._lock = threading.Lock()
        self._names: dict[str, str] = {}  # by folder, in one string: as an object each, names take thrice the memory
        self._old: dict[str, bool] = {}
        self.images = 0
        self.orphans = 0

    def first(self, look: Look) -> None:
        """Count what was found in a directory, and judge its orphans."""
        for outcome in look.settled:
            if outcome.result is Result.FAILED:
                self._report.refused(outcome.path, outcome.detail)
        names = [os.path.basename(path) for path in look.orphans if self._is_orphan(path)]
        with self._lock:
            self.images += len(look.jobs) + look.fresh  # what could not be looked at proves nothing
            self.orphans += len(names)
            if names:
                self._names[look.directory] = "/".join(names)

    def folders(self) -> Iterator[str]:
        """Yield the folders in which the first look found orphans of ours."""
        yield from self._names

    def second(self, directory: str) -> None:
        """Look at the folder again; remove the orphans that both looks found, then it, and the one above, if empty.

        Raises ``StorageError`` where nothing at all can be removed, ``UnfitError`` where the root can't be listed.
        """
        above = os.path.dirname(directory)
        before = set(self._names[directory].split("/"))
        try:
            may_go = {folder: self._was_old(folder) for folder in (directory, above)}
            removed = 0
            for look in self._scanner.look(directory):
                for outcome in look.settled:
                    if outcome.path == directory:
                        self._report.refused(directory, outcome.detail)
                removed += sum(self._remove(path) for path in look.orphans if os.path.basename(path) in before)
            if removed and may_go[directory] and self._remove_folder(directory) and may_go[above]:
                self._remove_folder(above)
        except PruneError as error:
            self._report.refused(directory, str(error))

    def _is_orphan(self, path: str) -> bool:
        try:
            verdict, version = examine(path)
        except PruneError as error:
            self._report.refused(path, str(error))
            return False
        if verdict is Verdict.FOREIGN:
            self._report.foreign(path)
        elif verdict is Verdict.OURS and version is not None:
            self._report.orphan(path, version.size)
        return verdict is Verdict.OURS

    def _remove(self, path: str) -> bool:
        try:
            if self._pruner.remove(path) is not Verdict.OURS:
                return False
        except (PruneError, PublishError) as error:
            self._report.refused(path, str(error))
            return False
        self._report.removed(path)
        return True

    def _was_old(self, directory: str) -> bool:
        """Tell whether the folder was not young before we ourselves first removed something from it."""
        if directory not in self._old:  # setdefault: of two threads the first is right, it has removed nothing yet
            self._old.setdefault(directory, self._pruner.idle(directory) >= self._young)
        return self._old[directory]

    def _remove_folder(self, directory: str) -> bool:
        gone = self._pruner.remove_folder(directory, 0)
        if gone:
            self._report.folder_removed(directory)
        return gone


def _is_there(path: str) -> bool:
    """Tell whether anything has this name. Unlike os.path.lexists, a mount in trouble is an error, not an answer."""
    try:
        os.lstat(path)
    except FileNotFoundError:
        return False
    return True


def _explained(error: OSError, path: str, what: str) -> PruneError:
    return PruneError(f"{path}: can't be {what}: {error.strerror}: check its rights and the disk or mount")
