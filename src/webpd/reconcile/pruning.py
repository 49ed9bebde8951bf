"""Deletion in the running service: which orphans may go, when, and how many."""

import logging
import os
import time
from collections.abc import Callable

from webpd.errors import WebpdError
from webpd.ledger.port import Directory, Ledger
from webpd.reconcile.reconciler import Reconciler
from webpd.tree.pruner import Pruner, Verdict

_log = logging.getLogger(__name__)

_BATCH = 1000


class Pruning:
    """Removes, below one root, the sidecars that have been orphans for ``after`` seconds, and the folders they leave.

    A folder goes when it is empty and nothing happened in it for ``folders_after`` seconds; so does, once, the one
    above it. ``halted`` tells that nothing is to be concluded, ``removed`` is told of each sidecar's path.
    """

    def __init__(
        self,
        reconciler: Reconciler,
        ledger: Ledger,
        pruner: Pruner,
        halted: Callable[[], bool],
        removed: Callable[[str], None],
        *,
        after: float,
        folders_after: float,
    ) -> None:
        self._reconciler = reconciler
        self._ledger = ledger
        self._pruner = pruner
        self._halted = halted
        self._removed = removed
        self._after = after
        self._folders_after = folders_after
        self.refused = 0
        """How many sidecars without an original are kept because they are too many at once."""

    def prune(self, begun: float) -> None:
        """Remove what may go. ``begun`` is when the cycle just ended began (monotonic): all it saw has been counted."""
        root = self._reconciler.root
        totals = self._ledger.totals(root)
        if totals.orphans and self._is_likely(totals.orphans, totals.images):
            for directory in self._ledger.orphaned(root, min(begun, time.monotonic() - self._after), _BATCH):
                if self._halted():
                    return
                self._prune_directory(directory.path)
        for directory in self._ledger.emptied(root, _BATCH):
            if self._halted():
                return
            if directory.mtime_ns is None or time.time() - directory.mtime_ns / 1e9 < self._folders_after:
                continue  # no need to ask
            self._remove_folder(directory)

    def _is_likely(self, orphans: int, images: int) -> bool:
        """Tell whether so many may go at once: a share that vanishes is more likely a fault than a wish."""
        refused_before, self.refused = self.refused, 0
        if orphans <= (most := self._pruner.most(images, orphans)):
            return True
        self.refused = orphans
        if not refused_before:
            _log.warning(
                "%s: nothing pruned: %d sidecars have lost their originals, and no more than %d may go at once "
                "(WEBPD_PRUNE_SHARE%s). If that is right, run `webpd prune --yes%s` on it",
                self._reconciler.root,
                orphans,
                most,
                "" if images else "; not one original is left",
                "" if images else " --all",
                extra={"root": self._reconciler.root},
            )
        return False

    def _prune_directory(self, path: str) -> None:
        """Look once more, and remove what both looks found."""
        before = set(self._reconciler.orphans.get(path, ()))
        if not self._reconciler.look_again(path):
            return
        now = self._reconciler.orphans.get(path, {})
        due = time.monotonic() - self._after
        chosen = [orphan for orphan, since in now.items() if orphan in before and since <= due]
        if chosen:
            self._ledger.record(self._reconciler.root, Directory(path, pruned=True))  # to be looked at, too
            for orphan in chosen:
                self._remove(path, orphan)
            self._reconciler.look_again(path)

    def _remove(self, path: str, orphan: str) -> None:
        if self._halted():
            return
        try:
            verdict = self._pruner.remove(orphan)
        except WebpdError as error:
            self._reconciler.tell(orphan, f"not pruned: {error}")
            return
        if verdict is Verdict.OURS:
            self._removed(orphan)
        else:  # another file by now, or no orphan any more: the next look examines it anew
            self._reconciler.orphans.get(path, {}).pop(orphan, None)

    def _remove_folder(self, directory: Directory) -> None:
        """Remove the folder, and the one above it if it held no other, once both have been idle long enough."""
        root, path = self._reconciler.root, directory.path
        absolute, above = self._reconciler.absolute(path), self._reconciler.absolute(path.rpartition("/")[0])
        try:
            if not self._is_empty(absolute):
                self._ledger.spare(root, path)
                return
            alone = above != root and len(os.listdir(above)) == 1
            if self._pruner.idle(absolute) < self._folders_after:
                return
            if alone and self._pruner.idle(above) < self._folders_after:
                return
            if self._pruner.remove_folder(absolute, 0):
                self._ledger.forget(root, path)
                _log.info("empty folder removed", extra={"path": absolute})
                if alone and self._pruner.remove_folder(above, 0):
                    self._ledger.forget(root, path.rpartition("/")[0])
                    _log.info("empty folder removed", extra={"path": above})
        except (WebpdError, OSError) as error:
            self._reconciler.tell(absolute, f"not pruned: {error}")
            self._ledger.spare(root, path)

    @staticmethod
    def _is_empty(directory: str) -> bool:
        """Tell whether nothing is in the folder. One that went by itself is the next cycle's business."""
        try:
            return not os.listdir(directory)
        except FileNotFoundError:
            return False
