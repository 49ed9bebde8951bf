"""The dashboard that tells in ten seconds whether webpd does its job."""

from tools.dashboards.glance import IS_IT_WELL, NEVER, SAVED, STAND, STANDS, STANDS_STILL, time_left
from tools.dashboards.panel import (
    HOST,
    PROCESS,
    ROOT,
    Panel,
    Query,
    Row,
    bars,
    limited,
    lines,
    per_minute,
    rate,
    rows,
    stacked,
    timeline,
)

from webpd.watch.health import Health

STATE = {n: (state.replace("_", " "), "green" if state == Health.WELL else "red") for n, state in enumerate(Health)}
MOUNTS = " or ".join(f'{n} * webpd_mount_state{{{ROOT}, state="{state}"}}' for n, state in enumerate(Health))

STEPS = ("read", "convert", "publish")
MEANS = " or ".join(
    f"label_replace(sum(increase(webpd_{step}_seconds_sum{{{HOST}}}[$__range]))"
    f' / (sum(increase(webpd_{step}_seconds_count{{{HOST}}}[$__range])) > 0), "step", "{step}", "", "")'
    for step in STEPS
)

OUTCOMES = {
    "converted": "green",
    "fresh": "blue",
    "kept_original": "purple",
    "skipped": "yellow",
    "failed": "red",
}

WORK = Row(
    "What it does",
    7,
    [
        Panel(
            stacked,
            "Images",
            "Images that came to an end, a second, by what became of them. Fresh: had a right sidecar when its turn "
            "came. Kept original: WebP would be no smaller.",
            "suffix: /s",
            [Query(f"sum by (outcome) (instance_outcome:webpd_images:rate5m{{{HOST}}})", "{{outcome}}")],
            8,
            colors=OUTCOMES,
        ),
        Panel(
            lines,
            "Bytes",
            "Bytes of the originals converted and how many of them are saved, a second; at the right, the share of "
            "the last hour.",
            "Bps",
            [
                Query(f"sum(instance:webpd_source_bytes:rate5m{{{HOST}}})", "originals"),
                Query(f"sum(instance:webpd_saved_bytes:rate5m{{{HOST}}})", "saved"),
                Query(
                    f"sum(rate(webpd_saved_bytes_total{{{HOST}}}[1h]))"
                    f" / (sum(rate(webpd_source_bytes_total{{{HOST}}}[1h])) > 0)",
                    "share",
                ),
            ],
            8,
            colors={"originals": "blue", "saved": "green", "share": "text"},
            right={"share": "percentunit"},
        ),
        Panel(
            lines,
            "Backlog over time",
            "Images that still have to be looked at and, at the right, how long that takes at the pace of the last 10 "
            "minutes (no line where nothing moves).",
            "short",
            [
                Query(f"sum(instance:webpd_backlog_images:estimate{{{HOST}}})", "images"),
                Query(f"{time_left('job')} < {NEVER}", "time left"),
            ],
            8,
            colors={"images": "blue", "time left": "orange"},
            right={"time left": "s"},
        ),
    ],
)

HOW_FAST = Row(
    "How fast, and what goes wrong",
    7,
    [
        Panel(
            lines,
            "Delivery",
            "From the time at which a new image was written to its sidecar: the time within which half of them, 95 "
            "% and 99 % have it (15 minutes). Of several hosts, the slowest.",
            "s",
            [
                Query(
                    f"max by (quantile) (instance_quantile:webpd_delivery_seconds:quantile_rate15m{{{HOST}}})",
                    "{{quantile}}",
                )
            ],
            8,
            nothing="nothing new",
        ),
        Panel(
            lines,
            "Steps, 95 %",
            "Within this time, 95 % of the images were read, converted and published, and the whole of it (15 "
            "minutes). Of several hosts, the slowest.",
            "s",
            [
                Query(
                    f'max(instance_quantile:webpd_{name}_seconds:quantile_rate15m{{quantile="0.95", {HOST}}})', legend
                )
                for name, legend in (*((step, step) for step in STEPS), ("image", "whole"))
            ],
            8,
            nothing="nothing done",
        ),
        Panel(
            stacked,
            "Failures",
            "Images that failed, a minute, by reason. `webpd failures` names them; docs/runbook.md, "
            "WebpdFailuresRising, tells what to do about each.",
            "suffix: /min",
            [
                Query(
                    per_minute("webpd_refusals_total", "reason", f'outcome="failed", {HOST}') + " > 0",
                    "{{reason}}",
                )
            ],
            8,
            nothing="none",
        ),
    ],
)

QUEUE = Row(
    "What waits",
    7,
    [
        Panel(
            stacked,
            "Queue",
            "Images that wait, by lane. Urgent: a visitor asked for it; fresh: just written; backfill: found by a "
            "scan.",
            "short",
            [Query(f"sum by (lane) (webpd_queue_depth{{{HOST}}})", "{{lane}}")],
            6,
            colors={"urgent": "red", "fresh": "orange", "backfill": "blue"},
        ),
        Panel(
            limited,
            "Oldest",
            "How long the oldest image of a lane has waited. Over 15 minutes in urgent or fresh is an alert.",
            "s",
            [Query(f"max by (lane) (webpd_queue_oldest_seconds{{{HOST}}})", "{{lane}}")],
            6,
            limits={900: "red"},
            colors={"urgent": "red", "fresh": "orange", "backfill": "blue"},
        ),
        Panel(
            lines,
            "In flight",
            "Images that are being worked on, by host. A host that only watches counts those that it handed out.",
            "short",
            [Query(f"sum by (instance) (webpd_queue_in_flight{{{HOST}}})", "{{instance}}")],
            6,
        ),
        Panel(
            bars,
            "Slowest step",
            "Mean time of each step of an image that was converted, in the time chosen; the slowest first. Read or "
            "publish on top: the mount or the disk. Convert: codecs, with waiting for one.",
            "s",
            [Query(f"sort_desc({MEANS})", "{{step}}")],
            6,
            color="blue",
            nothing="nothing done",
        ),
    ],
)

STATE_ROW = Row(
    "What is, and was, wrong",
    6,
    [
        Panel(
            timeline,
            "Mounts",
            "How each root's mount was, as each host found it.",
            "none",
            [Query(f"max by (instance, root) ({MOUNTS})", "{{root}} {{instance}}")],
            8,
            words=STATE,
        ),
        Panel(
            timeline,
            "Alerts firing",
            "Which alerts fired, and when. docs/runbook.md has a paragraph for each.",
            "none",
            [
                Query(
                    f'max by (alertname, instance, severity) (ALERTS{{alertstate="firing", {PROCESS}}})',
                    "{{alertname}} {{instance}}",
                )
            ],
            8,
            words={1: ("fires", "red")},
            nothing="none",
        ),
        Panel(
            timeline,
            "Redis",
            "Whether Redis answers. Cache: that of WEBPD_REDIS_URL, without which the work goes on; queue: that of "
            "WEBPD_QUEUE_URL, without which nothing gets from host to host.",
            "none",
            [Query(f"max by (instance, server) (webpd_redis_up{{{HOST}}})", "{{server}} {{instance}}")],
            8,
            words={0: ("down", "red"), 1: ("up", "green")},
            nothing="none is set",
        ),
    ],
)

PROCESS_ROW = Row(
    "What it takes",
    6,
    [
        Panel(
            lines,
            "Codec processes",
            "Codec processes that run, by host. As many as WEBPD_WORKERS says, once work has come.",
            "short",
            [Query(f"sum by (instance) (webpd_codec_processes{{{HOST}}})", "{{instance}}")],
            6,
        ),
        Panel(
            lines,
            "CPU",
            "Processor time of the service itself, by host; 100 % is one core. Codec processes are not in it.",
            "percentunit",
            [
                Query(
                    rate("process_cpu_seconds_total", "instance", PROCESS),
                    "{{instance}}",
                )
            ],
            6,
        ),
        Panel(
            lines,
            "Memory",
            "Resident memory of the service itself, by host, without the codec processes.",
            "bytes",
            [Query(f"sum by (instance) (process_resident_memory_bytes{{{PROCESS}}})", "{{instance}}")],
            6,
        ),
        Panel(
            lines,
            "Disk",
            "Room left on the file system of each root, for others than root.",
            "decbytes",
            [Query(f"min by (root) (webpd_free_bytes{{{ROOT}}})", "{{root}}")],
            6,
        ),
    ],
)

HOSTS = Row(
    "Hosts",
    6,
    [
        Panel(
            rows,
            "Hosts",
            "Each host: its role and version, how it is, and its share of the work. Choose one above to see it alone.",
            "none",
            [
                Query(f"sum by (instance, host, role, version) (webpd_build_info{{{HOST}}})"),
                Query(f"min by (instance) ({STANDS})"),
                Query(f"sum by (instance) (instance:webpd_images:rate5m{{{HOST}}})"),
                Query(time_left("instance")),
                Query(f"sum by (instance) (increase(webpd_saved_bytes_total{{{HOST}}}[$__range]))"),
                Query(f"time() - max by (instance) (process_start_time_seconds{{{PROCESS}}})"),
            ],
            24,
            columns=[
                ("", "", {}),
                ("state", "", STAND),
                ("images", "suffix: /s", {}),
                ("time left", "s", STANDS_STILL),
                ("saved", "decbytes", {}),
                ("runs for", "s", {}),
            ],
        )
    ],
)

ROWS = [IS_IT_WELL, SAVED, WORK, HOW_FAST, QUEUE, STATE_ROW, PROCESS_ROW, HOSTS]
