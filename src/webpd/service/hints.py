"""Hints: paths of images that a visitor asked for, or that somebody has just written or removed."""

import asyncio
import os
from collections import OrderedDict
from collections.abc import Iterator, Sequence

import structlog

from webpd.errors import UnfitError, UsageError
from webpd.service.keeper import Keeper
from webpd.service.root_hints import Source
from webpd.settings import Settings, Site, site_of
from webpd.telemetry.metrics import Metrics
from webpd.tree import naming

_log = structlog.get_logger(__name__)

_LONGEST_PATH = 4095
"""Bytes (PATH_MAX of Linux, without the 0 at its end)."""
_MOST_RECENT = 10_000
_LIFE = 10.0
"""Seconds in which a path that nginx told of is not looked at again, and of how many paths that is kept in mind."""


class Hints:
    """Passes hints on to the roots that have the images. Belongs to the event loop; asks no file system.

    A path is that of a URL (decoded), or an absolute one below a root; bytes that are not UTF-8 are as ``os.fsdecode``
    has them.
    """

    def __init__(self, settings: Settings, metrics: Metrics) -> None:
        self.trouble = ""
        """Why nginx can't tell of any: what, and after a colon what to do; "" where it can, or is not to."""
        self._settings = settings
        self._metrics = metrics
        self._keepers: list[Keeper] = []  # none while the service starts
        self._sites: list[Site] = []
        self._recent: OrderedDict[int, float] = OrderedDict()  # by hash: a path may have thousands of bytes

    def begin(self, keepers: Sequence[Keeper]) -> None:
        """From now on, these are the roots."""
        self._keepers = sorted(keepers, key=lambda keeper: len(keeper.root), reverse=True)
        for keeper in keepers:
            try:
                self._sites.append(site_of(self._settings, keeper.root))
            except UsageError as error:
                _log.warning(
                    "hints are taken by paths of files alone, not by those of URLs", root=keeper.root, detail=str(error)
                )

    def hint(self, paths: Sequence[str]) -> int:
        """Take in what somebody with the token tells of; return how many will be looked at.

        Raises ``UnfitError`` where this host finds no work.
        """
        if self._settings.role == "work":
            raise UnfitError("this host has the role work, and takes no hints: tell the one that has the role watch")
        return sum([self._take(path, Source.HTTP) for path in paths])

    def hear(self, path: str | None) -> None:
        """Take in what nginx tells of; None where that is not to be understood."""
        now = asyncio.get_running_loop().time()
        key = hash(path)
        if path is None:
            self._metrics.count_hint(Source.NGINX, "refused")
        elif self._recent.get(key, 0.0) > now:
            self._metrics.count_hint(Source.NGINX, "known")
        elif self._take(path, Source.NGINX):
            self._recent[key] = now + _LIFE
            self._recent.move_to_end(key)
            if len(self._recent) > _MOST_RECENT:
                self._recent.popitem(last=False)

    def _take(self, path: str, source: Source) -> bool:
        """Have the image looked at, in each root that the path may mean; tell whether any has room for it."""
        possible = _possible(path)
        found = dict(self._files(possible)) if possible else {}
        if not found:
            self._metrics.count_hint(source, "refused" if self._keepers else "dropped")
        taken = False
        for file, keeper in found.items():
            if keeper.poller:
                taken |= keeper.poller.hints.take(file, source)
        return taken

    def _files(self, path: str) -> Iterator[tuple[str, Keeper]]:
        named = (path, *(site.file_of(path) for site in self._sites))
        for file in filter(None, named):
            # The roots with the longest paths come first: a mount below a root is a root of its own.
            keeper = next((one for one in self._keepers if file.startswith(os.path.join(one.root, ""))), None)
            if keeper is not None:
                yield file, keeper


def _possible(path: str) -> str | None:
    """Return the path as ``os.fsdecode`` has it, None where it can't be an original's, by a URL or in the file system.

    JSON can write the bytes of UTF-8 one by one: one file must not come under two names.
    """
    try:
        data = os.fsencode(path)
    except UnicodeEncodeError:  # halves of a surrogate pair, as JSON may have them
        return None
    path = os.fsdecode(data)
    head, *parts = path.split("/")
    if head or not parts or {"", ".", ".."} & {*parts} or "\0" in path or not naming.is_original(parts[-1]):
        return None
    return path if len(data) <= _LONGEST_PATH else None
