"""Files that may not yet be what they are going to be."""

import threading
import time
from collections import OrderedDict

from webpd.model import Job

# Two lanes of the queue may be full of doubtful files, and more in flight: none must be forgotten before it is back.
_MOST = 50_000


class Doubts:
    """Remembers since when a file is doubtful as it is, for the latest few. Thread-safe."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._since: OrderedDict[str, tuple[int, int, float]] = OrderedDict()

    def age(self, job: Job) -> float:
        """Return for how many seconds the file has been doubtful in this state; 0.0 where it has not been."""
        with self._lock:
            size, mtime_ns, since = self._since.get(job.path, (-1, 0, 0.0))
            return time.monotonic() - since if (size, mtime_ns) == (job.size, job.mtime_ns) else 0.0

    def add(self, job: Job) -> None:
        """From now on the file is doubtful, if it has not been before in this state."""
        with self._lock:
            before = self._since.pop(job.path, (-1, 0, 0.0))
            same = before[:2] == (job.size, job.mtime_ns)
            self._since[job.path] = (job.size, job.mtime_ns, before[2] if same else time.monotonic())
            if len(self._since) > _MOST:
                self._since.popitem(last=False)

    def drop(self, job: Job) -> None:
        """The file is believed, or gone."""
        with self._lock:
            self._since.pop(job.path, None)
