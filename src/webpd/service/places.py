"""Where the roots of the service are, and what each should be mounted on."""

import os
from collections.abc import Sequence
from dataclasses import dataclass

import structlog

from webpd.errors import UnfitError, UsageError
from webpd.ledger.port import Ledger
from webpd.settings import refuse_nested
from webpd.watch.health import Health, MountProbe
from webpd.watch.mount import Mount, mount_at, mount_of, mounts_below

_log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Place:
    """A root of the service: its absolute path, the mount it should be on, and mounts below it, roots of their own."""

    path: str
    mount: Mount
    apart: tuple[str, ...] = ()

    @property
    def bare(self) -> int | None:
        """The device of its folders while the mount is not there; None where there would be no telling."""
        if self.mount.point == "/":
            return None
        below = os.stat(os.path.dirname(self.mount.point)).st_dev
        return None if below == self.mount.device else below


def find(paths: Sequence[str], ledger: Ledger) -> list[Place]:
    """Return the roots: the folders named, and each mount below one of them.

    A root whose mount does not answer is one all the same: it is waited for. So is one that was on a network mount when
    it was last seen, and is an empty folder now. Raises ``UsageError`` (nested, not a folder), ``UnfitError`` (not
    there).
    """
    if "" in paths:
        raise UsageError("PATH: an empty path: is a variable unset?")
    places = []
    for path in map(os.path.abspath, paths):
        mount = mount_at(path)
        if not mount.local and MountProbe(path, mount).look() in (Health.HUNG, Health.DEAD):
            places.append(Place(path, mount))
        else:
            places += _find(path, ledger)
    answering = [place.path for place in places]
    refuse_nested(tuple(path for path in map(os.path.abspath, paths) if path in answering), "PATH")
    return places


def _find(path: str, ledger: Ledger) -> list[Place]:
    if not os.path.exists(path):
        raise UnfitError(f"{path}: no such folder (is it mounted?)")
    if not os.path.isdir(path):
        raise UsageError(f"{path}: not a folder: `webpd convert` takes single images")
    mount = mount_of(path)
    before = _remembered(ledger, path)
    if before and not before.local and before.kind != mount.kind and not os.listdir(path):
        _log.warning("not mounted: waiting for it", root=path, kind=before.kind, mount_point=before.point)
        return [Place(path, before)]
    ledger.note_kind(path, f"{mount.kind} {mount.point}")
    real = os.path.realpath(path)
    inner = [one for one in mounts_below(path) if os.path.isdir(one.point)]
    apart = tuple(os.path.join(path, os.path.relpath(one.point, real)) for one in inner)
    places = [Place(path, mount, apart)]
    for point, one in zip(apart, inner, strict=True):
        _log.info("a mount below a root is a root of its own", root=point, kind=one.kind)
        places.append(Place(point, one, apart))
    return places


def _remembered(ledger: Ledger, path: str) -> Mount | None:
    kind, _, point = (ledger.kind(path) or "").partition(" ")
    return Mount(point, kind) if kind else None
