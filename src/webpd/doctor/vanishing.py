"""Sidecars that something else keeps removing: told from what was converted, and what became of it."""

import os
import shlex
import time
from collections.abc import Iterator, Sequence

from webpd.doctor.finding import Finding, Topic
from webpd.errors import UnfitError
from webpd.ledger.history import Event
from webpd.ledger.sqlite import read_ledger
from webpd.ledger.sqlite_history import read_history
from webpd.model import Result
from webpd.settings import Settings, database_of
from webpd.tree import naming, sidecar

_TOPIC = Topic("sidecars")
_LATEST = 500
_SECONDS = 2.0
_WEEK = 7 * 86_400.0  # seconds
_FEW = 5
"""So many may go without anybody being to blame: a copy put back, a picture removed and made again."""
_CURE = (
    "find what copies or cleans there (`crontab -l`, `systemctl list-timers`; on the other host too). An rsync with "
    "--delete takes what its origin does not have: add `--filter='P *.webp'` to it"
)


def look(settings: Settings, paths: Sequence[str]) -> Iterator[Finding]:
    """Look for sidecars that are gone though their originals stayed, and for originals converted again and again."""
    if settings.role == "work" or not os.path.exists(database_of(settings)):
        return
    try:
        latest = read_history(database_of(settings)).recent(_LATEST)
        findings = [*_gone([event for event in latest if event.root in paths]), *_again(database_of(settings), latest)]
    except UnfitError:
        return  # the state folder has a check of its own
    if not findings:
        yield _TOPIC.ok("sidecars.vanish", f"the last {len(latest):,} images converted have kept their sidecars")
    yield from findings


def _gone(latest: Sequence[Event]) -> Iterator[Finding]:
    give_up, looked = time.monotonic() + _SECONDS, 0
    gone: list[str] = []
    for event in latest:
        if time.monotonic() > give_up:
            break
        looked += 1
        path = os.path.join(event.root, event.path)
        if _has_lost_its_sidecar(path, event):
            gone.append(path)
    if len(gone) < _FEW:
        return
    yield _TOPIC.warning(
        "sidecars.vanish",
        f"of the last {looked:,} images converted, {len(gone):,} have no sidecar any more, though they are unchanged, "
        f"such as {gone[0]}: something else removes *.webp",
        f"{_CURE}; then `webpd convert {shlex.quote(latest[0].root)}`",
    )


def _has_lost_its_sidecar(path: str, event: Event) -> bool:
    try:
        status = os.stat(path)
    except OSError:
        return False
    same = status.st_size == event.size and sidecar.same_time(status.st_mtime_ns, event.mtime_ns)
    return same and not os.path.lexists(naming.sidecar_of(path))


def _again(database: str, latest: Sequence[Event]) -> Iterator[Finding]:
    """Compare how often images were converted with how many there are, in a time in which the originals stayed.

    Both in the time of the latest conversions, and in a week of the whole tree, whichever tells first.
    """
    history, ledger, now = read_history(database), read_ledger(database), time.time()
    week = [event for event in latest if event.at >= now - _WEEK]
    since = week[-1].at if len(week) == _LATEST else now - _WEEK
    images = sum(ledger.totals(root).images for root in ledger.roots())
    for begin, different in ((since, len(week)), (now - _WEEK, max(images, len(week)))):
        converted = history.totals(begin, now).get(Result.CONVERTED)
        times = converted.images if converted else 0
        old = [event for event in week if event.mtime_ns / 1e9 < begin]
        if times < max(2 * different, different + _FEW) or 2 * len(old) < len(week):
            continue
        yield _TOPIC.warning(
            "sidecars.again",
            f"{different:,} images were converted {times:,} times within {(now - begin) / 3600:,.1f} hours, though "
            f"most originals did not change, such as {os.path.join(old[0].root, old[0].path)}: something else removes "
            "*.webp (or as many originals were removed since)",
            _CURE,
        )
        return
