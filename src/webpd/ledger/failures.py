"""The images that failed, at and below given paths, and another try for them."""

import itertools
import os
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence

from webpd.ledger.history import Event, HistoryReader
from webpd.ledger.port import Ledger

_PAGE = 1000


def failed(history: HistoryReader, paths: Sequence[str]) -> Iterator[Event]:
    """Yield the images that failed, at and below these absolute paths; none: all."""
    after = None
    while page := history.failures(after=after, limit=_PAGE):
        for event in page:
            path = os.path.join(event.root, event.path)
            if not paths or any(path == one or path.startswith(os.path.join(one, "")) for one in paths):
                yield event
        after = page[-1].root, page[-1].path


def retry(ledger: Ledger, history: HistoryReader, paths: Sequence[str]) -> Mapping[tuple[str, str], int]:
    """Have those images tried again by the next look at their directories.

    The ledger forgets that they failed, and doubts the directories; the history keeps it until they were tried. Return
    how many they are, by root and directory.
    """
    found: Counter[tuple[str, str]] = Counter()
    events = failed(history, paths)
    for (root, directory), group in itertools.groupby(events, lambda event: (event.root, os.path.dirname(event.path))):
        names = [os.path.basename(event.path) for event in group]
        ledger.unlearn(root, directory, names)
        ledger.doubt(root, [directory])
        found[root, directory] += len(names)
    return found
