"""The dashboard for who looks for a cause: each part of webpd by itself."""

from collections.abc import Callable, Mapping

from tools.dashboards.panel import (
    HOST,
    PROCESS,
    ROOT,
    Panel,
    Query,
    Row,
    lines,
    per_minute,
    rate,
    spread,
    stacked,
    timeline,
)

PER_SECOND = "suffix: /s"
PER_MINUTE = "suffix: /min"
_UNITS: Mapping[Callable[[str, str, str], str], str] = {rate: PER_SECOND, per_minute: PER_MINUTE}


def _quantiles(title: str, description: str, step: str) -> Panel:
    return Panel(
        lines,
        title,
        f"{description} The time within which half of the images, 95 % and 99 % were through.",
        "s",
        [
            Query(
                f"histogram_quantile({share}, {rate(f'webpd_{step}_seconds_bucket', 'le')})",
                f"{share:g}",
            )
            for share in (0.5, 0.95, 0.99)
        ],
        6,
        nothing="nothing done",
    )


def _of_roots(title: str, description: str, metric: str, by: Callable[[str, str, str], str] | None = None) -> Panel:
    """Return a panel of one metric by root: what it is or, with ``rate`` or ``per_minute``, how fast it grows."""
    query = by(metric, "root", ROOT) if by else f"sum by (root) ({metric}{{{ROOT}}})"
    return Panel(lines, title, description, _UNITS[by] if by else "short", [Query(query, "{{root}}")], 6)


STEPS = Row(
    "Steps",
    7,
    [
        _quantiles("Read", "Reading an original.", "read"),
        _quantiles("Convert", "Converting, with waiting for a codec process.", "convert"),
        _quantiles("Publish", "Writing a sidecar, with syncing it where that is done.", "publish"),
        _quantiles("Whole", "From taking an image up to its end, whatever came of it.", "image"),
    ],
)

DELIVERY = Row(
    "Delivery",
    7,
    [
        Panel(
            spread,
            "Delivery times",
            "From the time at which a new image was written to its sidecar: how many a second took how long.",
            "s",
            [Query(rate("webpd_delivery_seconds_bucket", "le"), "{{le}}")],
            12,
        ),
        Panel(
            lines,
            "Delivery by lane, 95 %",
            "Within this time, 95 % of the new images had their sidecar. Urgent: a visitor asked for it; fresh: "
            "just written.",
            "s",
            [
                Query(
                    f"histogram_quantile(0.95, {rate('webpd_delivery_seconds_bucket', 'lane, le')})",
                    "{{lane}}",
                )
            ],
            6,
            nothing="nothing new",
        ),
        Panel(
            lines,
            "Tried again",
            "Tries a minute that will be made again: files that could not be read, or sidecars not written; by host.",
            PER_MINUTE,
            [Query(per_minute("webpd_retries_total", "instance"), "{{instance}}")],
            6,
        ),
    ],
)

IMAGES = Row(
    "Images",
    7,
    [
        Panel(
            stacked,
            "By lane",
            "Images that came to an end, a second, by the lane they came from.",
            PER_SECOND,
            [Query(rate("webpd_images_total", "lane"), "{{lane}}")],
            6,
            colors={"urgent": "red", "fresh": "orange", "backfill": "blue"},
        ),
        Panel(
            stacked,
            "By format",
            "Images that came to an end, a second, by what is in the file, whatever its name says. Unknown: nothing "
            "was decoded, as for images that had a right sidecar.",
            PER_SECOND,
            [Query(rate("webpd_images_total", "format"), "{{format}}")],
            6,
        ),
        Panel(
            stacked,
            "Skipped",
            "Images that were skipped, a minute, by reason. They are not faults: no sidecar of theirs would be right.",
            PER_MINUTE,
            [
                Query(
                    per_minute("webpd_refusals_total", "reason", f'outcome="skipped", {HOST}') + " > 0",
                    "{{reason}}",
                )
            ],
            6,
            nothing="none",
        ),
        Panel(
            lines,
            "Originals kept",
            "Of the images encoded in 6 hours, the share that would be no smaller as WebP and got no sidecar, by "
            "host. More than half, and twice what is usual, is an alert.",
            "percentunit",
            [Query(f"max by (instance) (instance:webpd_kept_per_images:ratio_rate6h{{{HOST}}})", "{{instance}}")],
            6,
            nothing="nothing done",
        ),
    ],
)

SCANS = Row(
    "Scans",
    6,
    [
        Panel(
            lines,
            "Scan time",
            "Mean time of a walk over all folders. Poll: only those whose mtime changed were listed; full: all.",
            "s",
            [
                Query(
                    f"{rate('webpd_scan_seconds_sum', 'pass')} / {rate('webpd_scan_seconds_count', 'pass')}",
                    "{{pass}}",
                )
            ],
            6,
        ),
        _of_roots("Scans", "Walks over all folders of each root, a minute.", "webpd_scans_total", per_minute),
        _of_roots(
            "Folders listed",
            "Folders listed, a second. Much without new images: something touches the folders.",
            "webpd_directories_listed_total",
            rate,
        ),
        _of_roots(
            "Names found",
            "Names found in these, a second.",
            "webpd_entries_listed_total",
            rate,
        ),
    ],
)

TREES = Row(
    "Trees",
    6,
    [
        _of_roots("Originals", "Originals known below each root, whatever became of them.", "webpd_originals"),
        _of_roots("Folders", "Folders known below each root, itself among them.", "webpd_directories"),
        _of_roots("Folders not done", "Folders in which there is something to do.", "webpd_directories_unsettled"),
        _of_roots(
            "Folders unreadable",
            "Folders that could not be read in full: what is in them is not converted, and nothing in them pruned.",
            "webpd_directories_unreadable",
        ),
    ],
)

PRUNING = Row(
    "Pruning and room",
    6,
    [
        _of_roots("Orphans", "Sidecars whose original is gone. They go after a minute.", "webpd_orphans"),
        _of_roots(
            "Orphans kept",
            "Orphans that are kept because they are more at once than WEBPD_PRUNE_SHARE lets go.",
            "webpd_orphans_refused",
        ),
        Panel(
            lines,
            "Pruned",
            "Sidecars removed because their original was gone, a minute, by host.",
            PER_MINUTE,
            [Query(per_minute("webpd_pruned_total", "instance"), "{{instance}}")],
            6,
        ),
        Panel(
            lines,
            "Inodes left",
            "Files that can still be made on the file system of each root. Not told by every file system.",
            "short",
            [Query(f"min by (root) (webpd_free_inodes{{{ROOT}}})", "{{root}}")],
            6,
        ),
    ],
)

WATCHER = Row(
    "Watcher",
    6,
    [
        _of_roots("Watches", "Folders watched by inotify. 0 where polling alone finds what is new.", "webpd_watches"),
        _of_roots(
            "Events",
            "Folders that inotify told of, a second.",
            "webpd_watch_events_total",
            rate,
        ),
        _of_roots(
            "Overflows",
            "Times a minute that the kernel lost events. Polling finds what they told, some seconds later.",
            "webpd_watch_overflows_total",
            per_minute,
        ),
        _of_roots(
            "Not watched",
            "Folders a minute that could not be watched; each try counts. docs/runbook.md, WebpdWatchesFailing.",
            "webpd_watch_failures_total",
            per_minute,
        ),
    ],
)

CODECS = Row(
    "Codecs and pace",
    6,
    [
        Panel(
            lines,
            "Codec starts",
            "Codec processes started, a minute, by host. Some at the start, and when one is replaced.",
            PER_MINUTE,
            [
                Query(
                    per_minute("webpd_codec_starts_total", "instance"),
                    "{{instance}}",
                )
            ],
            6,
        ),
        Panel(
            stacked,
            "Codec deaths",
            "Codec processes that ended under an image, a minute, by the limit they ran into. None: it crashed.",
            PER_MINUTE,
            [Query(per_minute("webpd_codec_kills_total", "limit"), "{{limit}}")],
            6,
            colors={"time": "orange", "memory": "purple", "none": "red"},
        ),
        Panel(
            lines,
            "Rate limit",
            "Share of the time in which WEBPD_RATE_LIMIT held images back, by host.",
            "percentunit",
            [
                Query(
                    rate("webpd_rate_limit_wait_seconds_total", "instance"),
                    "{{instance}}",
                )
            ],
            6,
        ),
        Panel(
            lines,
            "Not due yet",
            "Images that wait and are not due: files that may still be written, and what is tried again; by host.",
            "short",
            [Query(f"sum by (instance) (webpd_queue_delayed{{{HOST}}})", "{{instance}}")],
            6,
        ),
    ],
)

REDIS = Row(
    "Redis",
    6,
    [
        Panel(
            timeline,
            "Redis",
            "Whether it answers. Cache: that of WEBPD_REDIS_URL; queue: that of WEBPD_QUEUE_URL.",
            "none",
            [Query(f"max by (instance, server) (webpd_redis_up{{{HOST}}})", "{{server}} {{instance}}")],
            8,
            words={0: ("down", "red"), 1: ("up", "green")},
            nothing="none is set",
        ),
        Panel(
            lines,
            "Redis errors",
            "Calls to Redis that went wrong, a minute.",
            PER_MINUTE,
            [
                Query(
                    per_minute("webpd_redis_errors_total", "instance, server"),
                    "{{server}} {{instance}}",
                )
            ],
            8,
            nothing="none is set",
        ),
        Panel(
            lines,
            "Events dropped",
            "Events a minute that Redis was never told, by host: its totals lack them, the host's own history does "
            "not.",
            PER_MINUTE,
            [
                Query(
                    per_minute("webpd_redis_dropped_events_total", "instance"),
                    "{{instance}}",
                )
            ],
            8,
        ),
    ],
)

PROCESSES = Row(
    "The process",
    6,
    [
        Panel(
            lines,
            "Runs for",
            "Time since the service was started, by host.",
            "s",
            [Query(f"time() - max by (instance) (process_start_time_seconds{{{PROCESS}}})", "{{instance}}")],
            6,
        ),
        Panel(
            lines,
            "Open files",
            "File descriptors in use, of those it may have, by host.",
            "percentunit",
            [
                Query(
                    f"max by (instance) (process_open_fds{{{PROCESS}}} / process_max_fds{{{PROCESS}}})", "{{instance}}"
                )
            ],
            6,
        ),
        Panel(
            lines,
            "Scrape time",
            "How long Prometheus waits for the numbers, by host. Milliseconds, whatever the size of the tree.",
            "s",
            [Query(f"max by (instance) (scrape_duration_seconds{{{PROCESS}}})", "{{instance}}")],
            6,
        ),
        Panel(
            timeline,
            "Version and settings",
            "Which version ran with which settings, by host. The fingerprint stands for all settings that decide what "
            "becomes of an image: with another, images are looked at again.",
            "none",
            [
                Query(
                    f"max by (instance, version, fingerprint) (webpd_build_info{{{HOST}}})",
                    "{{instance}} {{version}} {{fingerprint}}",
                )
            ],
            6,
            words={1: ("runs", "blue")},
        ),
    ],
)

ROWS = [STEPS, DELIVERY, IMAGES, SCANS, TREES, PRUNING, WATCHER, CODECS, REDIS, PROCESSES]
