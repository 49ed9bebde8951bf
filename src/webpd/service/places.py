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

_ASKED = 1000


@dataclass(frozen=True, slots=True)
class Place:
    """A root of the service: its absolute path, the mount it should be on, and mounts below it, roots of their own.

    ``bare`` is the device of its folders while the mount is not there, None where there would be no telling; ``waits``
    tells that the mount is not there, or does not answer.
    """

    path: str
    mount: Mount
    apart: tuple[str, ...] = ()
    bare: int | None = None
    waits: bool = False


def find(paths: Sequence[str], ledger: Ledger | None) -> list[Place]:
    """Return the roots: the folders named, and each mount below one of them.

    A root whose mount does not answer is one all the same: it is waited for. So is one that was on a network mount when
    it was last seen, as the ledger has it, and holds none of its folders now. Raises ``UsageError`` (nested, not a
    folder), ``UnfitError`` (not there).
    """
    if "" in paths:
        raise UsageError("PATH: an empty path: is a variable unset?")
    places: list[Place] = []
    answering = []
    for path in map(os.path.abspath, paths):
        mount = mount_at(path)
        health = MountProbe(path, mount).look()
        if health is Health.HUNG or (health is Health.DEAD and not mount.local):
            places.append(Place(path, mount, bare=_bare(mount, mount.device), waits=True))
        else:
            places += _find(path, ledger)
            answering.append(path)
    refuse_nested(tuple(answering), "PATH")
    return places


def _find(path: str, ledger: Ledger | None) -> list[Place]:
    before = _remembered(ledger, path) if ledger else None
    if not os.path.exists(path):
        if before and not before.local and before.kind != mount_at(path).kind:
            return [_waiting(path, before)]  # the root is a folder on the mount, and went with it
        raise UnfitError(f"{path}: no such folder (is it mounted?)")
    if not os.path.isdir(path):
        raise UsageError(f"{path}: not a folder: `webpd convert` takes single images")
    mount = mount_of(path)
    if ledger and before and not before.local and before.kind != mount.kind and not _is_the_tree(path, ledger):
        return [_waiting(path, before)]
    real = os.path.realpath(path)
    inner = [one for one in mounts_below(path) if _is_folder(one)]
    apart = tuple(os.path.join(path, os.path.relpath(one.point, real)) for one in inner)
    device = os.stat(mount.point).st_dev
    places = [Place(path, mount, apart, _bare(mount, device))]
    places += [Place(point, one, apart, _bare(one, one.device)) for point, one in zip(apart, inner, strict=True)]
    return places


def _waiting(path: str, mount: Mount) -> Place:
    return Place(path, mount, bare=_bare(mount, mount.device), waits=True)


def _is_folder(mount: Mount) -> bool:
    """Tell whether a folder is mounted there; so it is taken where it does not answer."""
    return MountProbe(mount.point, mount).look() is Health.HUNG or os.path.isdir(mount.point)


def _bare(mount: Mount, device: int) -> int | None:
    if mount.point == "/":
        return None
    below = os.stat(os.path.dirname(mount.point)).st_dev
    return None if below == device else below


def _is_the_tree(path: str, ledger: Ledger) -> bool:
    """Tell whether the folder holds any of the folders that the root had, and not what got below its mount."""
    known = ledger.directories(path, "", _ASKED)
    return any(os.path.isdir(os.path.join(path, directory.path)) for directory in known)


def remember(ledger: Ledger, places: Sequence[Place]) -> None:
    """Keep what the roots are on, for the next start."""
    for place in places:
        if not place.waits:
            ledger.note_kind(place.path, f"{place.mount.kind} {place.mount.point}")


def discover(paths: Sequence[str], ledger: Ledger | None) -> list[Place]:
    """Return the roots as ``find`` does, remember what they are on, and log what may surprise."""
    places = find(paths, ledger)
    if ledger:
        remember(ledger, places)
    for place in places:
        if place.waits:
            _log.warning("mount is not there: waiting for it", root=place.path, kind=place.mount.kind)
        elif place.path not in map(os.path.abspath, paths):
            _log.info("a mount below a root is a root of its own", root=place.path, kind=place.mount.kind)
    return places


def has_moved(before: Mount, now: Mount) -> bool:
    """Tell whether a root is on another mount now and may be used there: what else differs is a mount that is gone."""
    if before.kind == "autofs":  # what it was to mount was not to be had yet
        return now.kind != "autofs"
    return before.local and now.point != before.point


def _remembered(ledger: Ledger, path: str) -> Mount | None:
    kind, _, point = (ledger.kind(path) or "").partition(" ")
    return Mount(point, kind) if kind else None
