"""What is kept of an image that has come to an end, on the host that found it."""

import os
from collections.abc import Callable

from webpd.ledger.port import Ledger
from webpd.model import Ending, Job
from webpd.service.chronicle import Chronicle


class Recorder:
    """Remembers, for one root, what the tree does not show, and notes what happened. Thread-safe.

    ``finished`` is told of each image.
    """

    def __init__(self, root: str, ledger: Ledger, chronicle: Chronicle, finished: Callable[[Job], None]) -> None:
        self._root = root
        self._ledger = ledger
        self._chronicle = chronicle
        self._finished = finished

    def record(self, job: Job, ending: Ending, *, noted: bool = False) -> None:
        """Record how the job ended; ``noted`` tells that another host has it in the history already."""
        if ending.known is not None:
            directory, name = os.path.split(job.path)
            path = os.path.relpath(directory, self._root)
            self._ledger.learn(self._root, "" if path == "." else path, {name: ending.known})
        if not noted:
            self._chronicle.note(job, ending)
        self._finished(job)
