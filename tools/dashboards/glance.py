"""The numbers at the top of the overview: is it well, and what does it save."""

from tools.dashboards.panel import HOST, PROCESS, ROOT, Panel, Query, Row, lamp, number

STANDS = f"up{{{PROCESS}}} + webpd_ready{{{HOST}}} or up{{{PROCESS}}}"
STAND = {0: ("down", "red"), 1: ("not ready", "orange"), 2: ("ready", "green")}

NEVER = 10**9
STANDS_STILL = {NEVER: ("stands still", "red")}


def time_left(by: str) -> str:
    """Return a query for the seconds that the backlog takes; ``NEVER`` where nothing moves: JSON has no infinity."""
    return f"clamp_max(max by ({by}) (instance:webpd_backlog_seconds:estimate{{{HOST}}}), {NEVER})"


IS_IT_WELL = Row(
    "Is it well",
    4,
    [
        Panel(
            lamp,
            "Service",
            "Whether webpd answers and says that it is ready; of several hosts, the worst. “Not ready”: a mount is "
            "sick, the first walk has not ended, or a part that it needs is missing; `webpd status` says which.",
            "none",
            [Query(f"min({STANDS})")],
            3,
            color="red",
            words=STAND,
        ),
        Panel(
            lamp,
            "Sick mounts",
            "Roots whose mount is dead, hung, unmounted, read-only or full. The work on them is paused and goes on by "
            "itself. Below, “Mounts” shows which and since when.",
            "none",
            [Query(f"sum(1 - webpd_mount_well{{{ROOT}}})")],
            3,
            color="orange",
            limits={0: "green", 1: "red"},
            words={0: ("none", "green")},
        ),
        Panel(
            lamp,
            "Alerts",
            "Alerts of deploy/prometheus/alerts.yml that fire now. Each has a paragraph in docs/runbook.md.",
            "none",
            [Query(f'count(ALERTS{{alertstate="firing", {PROCESS}}}) or vector(0)')],
            3,
            limits={1: "red"},
            words={0: ("none", "green")},
        ),
        Panel(
            number,
            "Backlog",
            "Images that still have to be looked at. Beyond 10,000 a root and lane it is an estimate from the "
            "folders that are not done.",
            "short",
            [Query(f"sum(instance:webpd_backlog_images:estimate{{{HOST}}})")],
            3,
            color="blue",
        ),
        Panel(
            number,
            "Time left",
            "How long the backlog takes at the pace of the last 10 minutes; of several hosts, the longest. An hour "
            "and more for an hour, and growing, is an alert.",
            "s",
            [Query(time_left("job"))],
            3,
            limits={3600: "orange", 6 * 3600: "red"},
            words={0: ("all done", "green")} | STANDS_STILL,
        ),
        Panel(
            number,
            "Rate",
            "Images that came to an end, a second, whatever became of them (5 minutes).",
            "suffix: /s",
            [Query(f"sum(instance:webpd_images:rate5m{{{HOST}}})")],
            3,
            color="blue",
        ),
        Panel(
            number,
            "Failed images",
            "Originals that failed and are not tried again until they change. Browsers get the original. "
            "`webpd failures` lists them, with reasons.",
            "short",
            [Query(f"sum(webpd_failed_images{{{ROOT}}})")],
            3,
            limits={1: "orange"},
        ),
        Panel(
            number,
            "Disk free",
            "Room left on the file system of the root that has the least. Under 5 % and 20 GB is an alert; when it "
            "is full, webpd pauses.",
            "percentunit",
            [Query(f"min(instance_root:webpd_free_per_size_bytes:ratio{{{ROOT}}})")],
            3,
            color="red",
            limits={0.05: "orange", 0.1: "green"},
        ),
    ],
)

SAVED = Row(
    "What it saves",
    4,
    [
        Panel(
            number,
            "Saved in all",
            "By how many bytes sidecars are smaller than their originals, over all that Prometheus remembers (a "
            "year at most), restarts or not. `webpd status` remembers longer.",
            "decbytes",
            [Query(f"sum(increase(webpd_saved_bytes_total{{{HOST}}}[1y]))")],
            6,
        ),
        Panel(
            number,
            "Saved",
            "The same, in the time chosen above.",
            "decbytes",
            [Query(f"sum(increase(webpd_saved_bytes_total{{{HOST}}}[$__range]))")],
            6,
        ),
        Panel(
            number,
            "Share saved",
            "Of the bytes of the originals that were converted in the time chosen: the share that visitors need not "
            "load. Two thirds are usual for thumbnails of JPEG quality 95.",
            "percentunit",
            [
                Query(
                    f"sum(increase(webpd_saved_bytes_total{{{HOST}}}[$__range]))"
                    f" / (sum(increase(webpd_source_bytes_total{{{HOST}}}[$__range])) > 0)"
                )
            ],
            4,
            color="text",
            limits={0: "red", 0.1: "orange", 0.3: "green"},
            nothing="nothing done",
        ),
        Panel(
            number,
            "Converted",
            "Images that were given a sidecar in the time chosen.",
            "short",
            [Query(f'sum(increase(webpd_images_total{{outcome="converted", {HOST}}}[$__range]))')],
            4,
            color="blue",
        ),
        Panel(
            number,
            "Delivery, 95 %",
            "Within this time, 19 of 20 new images had their sidecar, counted from the time of their writing (15 "
            "minutes); of several hosts, the slowest.",
            "s",
            # Where nothing is new, the quantile is NaN, and so it is shown: compared with 0, it is gone.
            [Query(f'max(instance_quantile:webpd_delivery_seconds:quantile_rate15m{{quantile="0.95", {HOST}}} >= 0)')],
            4,
            limits={60: "orange", 900: "red"},
            nothing="nothing new",
        ),
    ],
)
