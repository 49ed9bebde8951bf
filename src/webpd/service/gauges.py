"""How things stand in the running service, in Prometheus' words, whenever it is asked."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Protocol

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, InfoMetricFamily, Metric

from webpd.convert.pool import CodecPool
from webpd.model import Failure
from webpd.queue.port import Lane, QueueState
from webpd.redis.link import LinkState
from webpd.service.keeper import Keeper
from webpd.watch.health import Health

_ENDS = {"time": Failure.TIMED_OUT, "memory": Failure.MEMORY, "none": Failure.CRASHED}
"""Codec processes that ended under an image, by the limit that they ran into."""
_LINKS = ("cache", "queue")


class Standing(Protocol):
    """What is asked; all of it answers at once."""

    @property
    def ready(self) -> bool: ...
    @property
    def facts(self) -> Mapping[str, str]:
        """Version, role, host and fingerprint."""

    @property
    def keepers(self) -> Sequence[Keeper]: ...
    @property
    def pool(self) -> CodecPool | None: ...
    @property
    def queue(self) -> QueueState | None: ...
    @property
    def links(self) -> Sequence[LinkState | None]:
        """Those to the Redis of what is shared and to that of the queue."""

    @property
    def dropped(self) -> int:
        """How many events Redis was never told."""


class StandingGauges:
    """Tells how the service stands. Implements ``Gauges``; waits for nobody."""

    def __init__(self, service: Standing) -> None:
        self._service = service

    def collect(self) -> Iterable[Metric]:
        service = self._service
        yield InfoMetricFamily(
            "webpd_build", "Version, role, host, and what stands for the settings.", dict(service.facts)
        )
        yield GaugeMetricFamily("webpd_ready", "1 where /readyz says so.", service.ready)
        if service.queue is not None:
            yield from _queue(service.queue)
        if service.pool is not None:
            yield from _codecs(service.pool)
        yield from _roots(service.keepers)
        yield from _redis(service.links, service.dropped)


def _queue(state: QueueState) -> Iterable[Metric]:
    depth = GaugeMetricFamily("webpd_queue_depth", "Images that wait, by lane.", labels=["lane"])
    oldest = GaugeMetricFamily(
        "webpd_queue_oldest_seconds", "How long the oldest of a lane has waited.", labels=["lane"], unit="seconds"
    )
    for lane in Lane:
        depth.add_metric([lane.name.lower()], state.depth[lane])
        oldest.add_metric([lane.name.lower()], state.oldest[lane])
    yield depth
    yield oldest
    yield GaugeMetricFamily("webpd_queue_delayed", "Images that wait and are not due yet.", state.delayed)
    yield GaugeMetricFamily("webpd_queue_in_flight", "Images being worked on.", state.in_flight)
    yield CounterMetricFamily(
        "webpd_rate_limit_wait_seconds", "Time in which the rate limit held images back.", state.limited, unit="seconds"
    )


def _codecs(pool: CodecPool) -> Iterable[Metric]:
    yield GaugeMetricFamily("webpd_codec_processes", "Codec processes that run.", pool.running)
    yield CounterMetricFamily("webpd_codec_starts", "Codec processes started.", pool.started)
    ends = CounterMetricFamily(
        "webpd_codec_kills", "Codec processes that ended under an image, by the limit they ran into.", labels=["limit"]
    )
    for limit, failure in _ENDS.items():
        ends.add_metric([limit], pool.ended[failure])
    yield ends


_OF_POLLER: Sequence[tuple[str, type[Metric], str, str]] = (
    ("directories", GaugeMetricFamily, "webpd_directories", "Directories known."),
    ("unsettled", GaugeMetricFamily, "webpd_directories_unsettled", "Directories in which there is something to do."),
    ("images", GaugeMetricFamily, "webpd_originals", "Originals known."),
    ("orphans", GaugeMetricFamily, "webpd_orphans", "Sidecars whose original is gone."),
    ("prune_refused", GaugeMetricFamily, "webpd_orphans_refused", "Orphans kept because they are too many at once."),
    ("parked", GaugeMetricFamily, "webpd_failed_images", "Originals that failed and are not tried again as they are."),
    ("unreadable", GaugeMetricFamily, "webpd_directories_unreadable", "Directories that could not be read in full."),
    ("watches", GaugeMetricFamily, "webpd_watches", "Directories watched by inotify."),
    ("watch_failures", CounterMetricFamily, "webpd_watch_failures", "Directories that could not be watched."),
    ("watch_events", CounterMetricFamily, "webpd_watch_events", "Directories that inotify told of."),
    ("overflows", CounterMetricFamily, "webpd_watch_overflows", "Times that the kernel lost events."),
    ("cycles", CounterMetricFamily, "webpd_scans", "Walks over all directories."),
    ("listed", CounterMetricFamily, "webpd_directories_listed", "Directories listed."),
    ("entries", CounterMetricFamily, "webpd_entries_listed", "Names found in them."),
)


def _roots(keepers: Sequence[Keeper]) -> Iterable[Metric]:
    well = GaugeMetricFamily("webpd_mount_well", "1 where the root's mount is well.", labels=["root", "kind"])
    states = GaugeMetricFamily("webpd_mount_state", "1 for the state it is in.", labels=["root", "state"])
    free = GaugeMetricFamily(
        "webpd_free_bytes", "Room on the root's file system, for others than root.", labels=["root"], unit="bytes"
    )
    size = GaugeMetricFamily("webpd_size_bytes", "Size of that file system.", labels=["root"], unit="bytes")
    inodes = GaugeMetricFamily("webpd_free_inodes", "Inodes left on it, where it tells.", labels=["root"])
    told: Mapping[str, Any] = {name: kind(metric, help_, labels=["root"]) for name, kind, metric, help_ in _OF_POLLER}  # type: ignore[call-arg]
    for keeper in keepers:
        state = keeper.state()
        well.add_metric([keeper.label, keeper.mount.kind], keeper.health == Health.WELL)
        for health in Health:
            states.add_metric([keeper.label, str(health)], keeper.health == health)
        if (room := keeper.room) is not None:
            free.add_metric([keeper.label], room.f_bavail * room.f_frsize)
            size.add_metric([keeper.label], room.f_blocks * room.f_frsize)
            if room.f_files:
                inodes.add_metric([keeper.label], room.f_favail)
        for name in told.keys() & state.keys():
            told[name].add_metric([keeper.label], state[name])
    yield from (well, states, free, size, inodes, *told.values())


def _redis(links: Sequence[LinkState | None], dropped: int) -> Iterable[Metric]:
    up = GaugeMetricFamily("webpd_redis_up", "1 where the Redis server answers.", labels=["server"])
    errors = CounterMetricFamily("webpd_redis_errors", "Calls to it that went wrong.", labels=["server"])
    for server, link in zip(_LINKS, links, strict=True):
        if link is not None:
            up.add_metric([server], link.up)
            errors.add_metric([server], link.errors)
    yield up
    yield errors
    yield CounterMetricFamily("webpd_redis_dropped_events", "Events that Redis was never told.", dropped)
