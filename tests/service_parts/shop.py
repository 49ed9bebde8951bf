"""A worker of one root with real codecs, and all that it reports to."""

from pathlib import Path

from webpd.convert.pool import CodecPool
from webpd.ledger.sqlite import SqliteLedger
from webpd.model import Encoding, Job, Known
from webpd.pipeline import Pipeline
from webpd.reconcile.patience import Patience
from webpd.service.chronicle import Chronicle
from webpd.service.recorder import Recorder
from webpd.service.worker import Worker
from webpd.telemetry.metrics import Metrics
from webpd.tree.naming import Exclusion
from webpd.tree.publisher import Publisher
from webpd.tree.scanner import Scanner
from webpd.watch.health import Health, MountProbe
from webpd.watch.mount import mount_of

ENCODING = Encoding(80, 4)
FINGERPRINT = b"12345678"
LOCAL = Patience(settle=0.5, cache=0.0, local=True)
NETWORK = Patience(settle=0.5, cache=20.0, local=False)
MTIME = 1_600_000_000.5


class Clock:
    """The monotonic clock that doubts are timed by, put forward."""

    ahead = 0.0

    def monotonic(self) -> float:
        return self.ahead


class Shop:
    """A worker of one root, with real codecs, and all that it reports to."""

    def __init__(self, folder: Path, pool: CodecPool) -> None:
        self.root = folder / "tree"
        self.root.mkdir(exist_ok=True)
        self.pool = pool
        self.ledger = SqliteLedger(str(folder / "state" / "ledger.sqlite"))
        self.metrics = Metrics()
        self.blamed: list[Health | None] = []
        self.finished: list[Job] = []
        self.publisher = Publisher(None, 0o644, fsync=False)
        self.workers: dict[Patience, Worker] = {}

    def worker(self, patience: Patience = LOCAL) -> Worker:
        if patience not in self.workers:
            chronicle = Chronicle([self.ledger.history], str(self.root), FINGERPRINT)
            self.workers[patience] = Worker(
                Pipeline(self.pool, self.publisher, ENCODING, 1 << 20),
                patience,
                FINGERPRINT,
                "cdn1",
                self.metrics,
                blame=self._blame,
                concluded=Recorder(str(self.root), self.ledger, chronicle, self.finished.append).record,
            )
        return self.workers[patience]

    def _blame(self, error: OSError) -> Health | None:
        found = MountProbe(str(self.root), mount_of(str(self.root))).blame(error)
        self.blamed.append(found)
        return found

    def job(self, path: Path) -> Job:
        """Return what a look at the folder makes of the image."""
        looks = Scanner(str(self.root), Exclusion(()), every=True).look(str(path.parent))
        (job,) = [job for look in looks for job in look.jobs if job.path == str(path)]
        return job

    def known(self, directory: str = "") -> dict[str, Known]:
        return dict(self.ledger.known(str(self.root), directory))

    @property
    def retries(self) -> float:
        return float(self.metrics._retries._value.get())
