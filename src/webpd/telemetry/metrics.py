"""The numbers that Prometheus scrapes. Those here live as long as the process, whatever is started anew within it.

``docs/metrics.md`` lists all of them.
"""

import itertools
import threading
import time
from collections.abc import Iterable
from typing import Protocol

from prometheus_client import CollectorRegistry, Counter, Histogram, disable_created_metrics
from prometheus_client.core import Metric
from prometheus_client.exposition import choose_encoder
from prometheus_client.process_collector import ProcessCollector
from prometheus_client.registry import Collector

from webpd.model import Failure, Job, Outcome, Result, Skip

_STEP = (0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1, 3, 10, 30)
_WHOLE = (*_STEP, 100)
_DELIVERY = (1, 2, 5, 10, 30, 60, 120, 300, 900, 3600, 14_400, 86_400)
"""Bounds of the histograms, in seconds."""

_SCAN = (0.01, 0.03, 0.1, 0.3, 1, 3, 10, 30, 100, 300, 1000)


disable_created_metrics()  # type: ignore[no-untyped-call]  # as many samples again, that nothing here asks for

FORMATS = ("jpeg", "png", "unknown")
LANES = ("urgent", "fresh", "backfill")
HINT_SOURCES = ("http", "nginx")
HINT_RESULTS = ("taken", "known", "refused", "dropped")


class Gauges(Protocol):
    """What tells how things stand, at once, whenever it is asked."""

    def collect(self) -> Iterable[Metric]:
        """Yield families of samples."""


class _Standing(Collector):
    def __init__(self) -> None:
        self.gauges: Gauges | None = None

    def collect(self) -> Iterable[Metric]:
        return self.gauges.collect() if self.gauges else ()


class Metrics:
    """Counters and histograms of one process, and how things stand, which ``show`` names. Thread-safe."""

    def __init__(self) -> None:
        registry = self._registry = CollectorRegistry()
        self._standing = _Standing()
        registry.register(self._standing)
        ProcessCollector(registry=registry)
        self._images = Counter(
            "webpd_images", "Images by what came of them.", ["outcome", "format", "lane"], registry=registry
        )
        self._reasons = Counter(
            "webpd_refusals", "Images skipped or failed, by reason.", ["outcome", "reason"], registry=registry
        )
        for outcome, form, lane in itertools.product(Result, FORMATS, LANES):
            self._images.labels(outcome, form, lane)
        for outcome, reasons in ((Result.SKIPPED, Skip), (Result.FAILED, Failure)):
            for reason in reasons:
                self._reasons.labels(outcome, reason)
        self._retries = Counter("webpd_retries", "Images that will be tried again.", registry=registry)
        self._source_bytes = Counter(
            "webpd_source_bytes", "Bytes of the originals converted.", unit="bytes", registry=registry
        )
        self._webp_bytes = Counter(
            "webpd_webp_bytes", "Bytes of the sidecars made of them.", unit="bytes", registry=registry
        )
        self._saved_bytes = Counter(
            "webpd_saved_bytes", "By how much these are smaller.", unit="bytes", registry=registry
        )
        self._read = Histogram(
            "webpd_read_seconds", "Time to read an original.", buckets=_STEP, unit="seconds", registry=registry
        )
        self._convert = Histogram(
            "webpd_convert_seconds",
            "Time to convert one, with waiting for a codec.",
            buckets=_STEP,
            unit="seconds",
            registry=registry,
        )
        self._publish = Histogram(
            "webpd_publish_seconds", "Time to write a sidecar.", buckets=_STEP, unit="seconds", registry=registry
        )
        self._whole = Histogram(
            "webpd_image_seconds",
            "Time from taking an image up to its end.",
            buckets=_WHOLE,
            unit="seconds",
            registry=registry,
        )
        self._delivery = Histogram(
            "webpd_delivery_seconds",
            "Time from an original's mtime to its sidecar, of those found as new (lanes urgent and fresh).",
            ["lane"],
            buckets=_DELIVERY,
            unit="seconds",
            registry=registry,
        )
        self._pruned = Counter("webpd_pruned", "Sidecars removed because their original was gone.", registry=registry)
        self._hints = Counter("webpd_hints", "Hints, by what came of them.", ["source", "result"], registry=registry)
        for source, result in itertools.product(HINT_SOURCES, HINT_RESULTS):
            self._hints.labels(source, result)
        self.scan = Histogram(
            "webpd_scan_seconds",
            "Time of a walk over all directories.",
            ["pass"],
            buckets=_SCAN,
            unit="seconds",
            registry=registry,
        )
        self.pruned = self.source_bytes = self.webp_bytes = 0
        self._lock = threading.Lock()
        self._totals = dict.fromkeys(Result, 0)
        self._asked = (time.monotonic(), 0)

    def show(self, gauges: Gauges | None) -> None:
        """From now on, have these tell how things stand."""
        self._standing.gauges = gauges

    def count(self, job: Job, outcome: Outcome, lane: str) -> None:
        """Count what came of an image that was taken from that lane."""
        picture, timing = outcome.picture, outcome.timing
        with self._lock:
            self._totals[outcome.result] += 1
            if outcome.result is Result.CONVERTED:
                self.source_bytes += outcome.source_bytes
                self.webp_bytes += outcome.webp_bytes
        self._images.labels(outcome.result, picture.format if picture else "unknown", lane).inc()
        self._whole.observe(outcome.seconds)
        if outcome.reason is not None:
            self._reasons.labels(outcome.result, outcome.reason).inc()
        if timing is not None:
            self._read.observe(timing.read)
            self._convert.observe(timing.convert)
            self._publish.observe(timing.publish)
        if outcome.result is Result.CONVERTED:
            self._source_bytes.inc(outcome.source_bytes)
            self._webp_bytes.inc(outcome.webp_bytes)
            self._saved_bytes.inc(outcome.source_bytes - outcome.webp_bytes)
            if lane != "backfill":
                self._delivery.labels(lane).observe(max(0.0, time.time() - job.mtime_ns / 1e9))

    def count_retry(self) -> None:
        """Count an image that will be tried again."""
        self._retries.inc()

    def count_pruned(self) -> None:
        """Count a sidecar removed because its original was gone."""
        with self._lock:
            self.pruned += 1
        self._pruned.inc()

    def count_hint(self, source: str, result: str) -> None:
        """Count a hint: one of ``HINT_SOURCES`` and of ``HINT_RESULTS``."""
        self._hints.labels(source, result).inc()

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

    def exposition(self, accept: str = "") -> tuple[bytes, str]:
        """Return all numbers in the format that suits an ``Accept`` header, and its media type."""
        encode, media_type = choose_encoder(accept)
        return encode(self._registry), media_type
