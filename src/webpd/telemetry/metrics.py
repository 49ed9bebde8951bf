"""The numbers that Prometheus scrapes. They live as long as the process, whatever is started anew within it."""

import contextlib
import threading
import time

from prometheus_client import CollectorRegistry, Counter, Gauge, generate_latest

from webpd.model import Outcome, Result


class Metrics:
    """Counters and gauges of one process. Thread-safe."""

    def __init__(self) -> None:
        registry = self._registry = CollectorRegistry()
        self.images = Counter("webpd_images", "Images by what came of them.", ["outcome"], registry=registry)
        self.reasons = Counter(
            "webpd_refusals", "Images skipped or failed, by reason.", ["outcome", "reason"], registry=registry
        )
        self.retries = Counter("webpd_retries", "Images that will be tried again.", registry=registry)
        self._source_bytes = Counter("webpd_source_bytes", "Bytes of the originals converted.", registry=registry)
        self._webp_bytes = Counter("webpd_webp_bytes", "Bytes of the sidecars made of them.", registry=registry)
        self.seconds = Counter("webpd_work_seconds", "Time spent on images, reading to publishing.", registry=registry)
        self._pruned = Counter("webpd_pruned", "Sidecars removed because their original was gone.", registry=registry)
        self.cycles = Counter("webpd_poll_cycles", "Walks over the directory index.", ["root"], registry=registry)
        self.listed = Counter("webpd_directories_listed", "Directories listed.", ["root"], registry=registry)
        self.overflows = Counter(
            "webpd_watch_overflows", "Times that the kernel lost events.", ["root"], registry=registry
        )
        self.watches = Gauge("webpd_watches", "Directories watched by inotify.", ["root"], registry=registry)
        self.unwatched = Counter(
            "webpd_watch_failures", "Directories that could not be watched.", ["root"], registry=registry
        )
        self.depth = Gauge("webpd_queue_depth", "Jobs that wait, by lane.", ["lane"], registry=registry)
        self.in_flight = Gauge("webpd_queue_in_flight", "Jobs being worked on.", registry=registry)
        self.mount = Gauge("webpd_mount_well", "1 where the root's mount is well.", ["root"], registry=registry)
        self.redis_up = Gauge("webpd_redis_up", "1 where the Redis server answers.", ["server"], registry=registry)
        self.redis_errors = Counter(
            "webpd_redis_errors", "Calls to the Redis server that failed.", ["server"], registry=registry
        )
        self.pruned = self.source_bytes = self.webp_bytes = 0
        self._lock = threading.Lock()
        self._totals = dict.fromkeys(Result, 0)
        self._asked = (time.monotonic(), 0)
        self._redis_errors: dict[str, int] = {}
        for result in Result:
            self.images.labels(result)

    def count(self, outcome: Outcome) -> None:
        """Count what came of an image."""
        with self._lock:
            self._totals[outcome.result] += 1
            if outcome.result is Result.CONVERTED:
                self.source_bytes += outcome.source_bytes
                self.webp_bytes += outcome.webp_bytes
                self._source_bytes.inc(outcome.source_bytes)
                self._webp_bytes.inc(outcome.webp_bytes)
        self.images.labels(outcome.result).inc()
        self.seconds.inc(outcome.seconds)
        if outcome.reason is not None:
            self.reasons.labels(outcome.result, outcome.reason).inc()

    def forget(self, root: str) -> None:
        """Tell no more of a root: it is one no longer, or a new life of it begins."""
        for metric in (self.cycles, self.listed, self.overflows, self.watches, self.unwatched, self.mount):
            with contextlib.suppress(KeyError):
                metric.remove(root)

    def count_pruned(self) -> None:
        """Count a sidecar removed because its original was gone."""
        with self._lock:
            self.pruned += 1
        self._pruned.inc()

    def tell_redis(self, server: str, *, up: bool, errors: int) -> None:
        """Tell how a Redis server is; ``errors`` counts since the process's life began."""
        self.redis_up.labels(server).set(up)
        with self._lock:
            told, self._redis_errors[server] = self._redis_errors.get(server, 0), errors
        self.redis_errors.labels(server).inc(max(0, errors - told))

    def pace(self) -> float:
        """Return how many images a second came to an end since this was last asked."""
        now, done = time.monotonic(), sum(self._totals.values())
        with self._lock:
            (then, before), self._asked = self._asked, (now, done)
        return round((done - before) / max(now - then, 0.001), 2)

    @property
    def outcomes(self) -> dict[Result, int]:
        """How many images came to what since the process began."""
        return dict(self._totals)

    def exposition(self) -> bytes:
        """Return all numbers in Prometheus' text format."""
        return generate_latest(self._registry)
