"""Log lines and numbers, as they leave the process."""

import json
import os
import pty
import subprocess
import sys
import time
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families

from webpd.model import Failure, Job, Outcome, Picture, Result, Skip, Timing
from webpd.telemetry.metrics import Metrics

SCRIPT = """
import logging, sys, structlog
from webpd.telemetry.log import configure
configure(sys.argv[1])
ours, theirs = structlog.get_logger("webpd.service"), logging.getLogger("webpd.tree")
ours.info("converted", path="/srv/\\udcff\\n.jpg", seconds=0.25, source_bytes=7)
theirs.warning("%s: can't be read (%d times)", "/srv/\\udcfe.jpg", 3)
ours.debug("not told"); theirs.debug("not told")
logging.getLogger("uvicorn.error").info("not told")
logging.getLogger("watchdog").info("not told")
logging.getLogger("uvicorn.error").error("told")
try:
    1 / 0
except ZeroDivisionError:
    theirs.exception("%s: unexpected", "/srv/b.jpg")
"""


def logged(form: str) -> str:
    """Return what a process that logs in this form says to a pipe."""
    done = subprocess.run([sys.executable, "-c", SCRIPT, form], capture_output=True, check=True)
    assert done.stdout == b""
    return done.stderr.decode()


@pytest.mark.parametrize("form", ["json", "auto"])
def test_machines_get_one_json_object_a_line(form: str) -> None:
    lines: list[dict[str, Any]] = [json.loads(line) for line in logged(form).splitlines()]
    ours, theirs, uvicorn, unexpected = lines
    assert (ours["event"], ours["level"], ours["seconds"], ours["source_bytes"]) == ("converted", "info", 0.25, 7)
    assert ours["path"] == "/srv/\\xff\n.jpg"
    assert theirs["event"] == "/srv/\\xfe.jpg: can't be read (3 times)"
    assert theirs["level"] == "warning"
    assert uvicorn["event"] == "told"
    assert unexpected["event"] == "/srv/b.jpg: unexpected"
    assert unexpected["exception"][0]["exc_type"] == "ZeroDivisionError"
    assert all(line["timestamp"].endswith("Z") for line in lines)


def test_people_get_lines_that_no_name_can_break() -> None:
    first, second = logged("console").splitlines()[:2]
    assert "converted" in first
    assert "\\xff" in first
    assert "seconds=0.25" in first
    assert "/srv/\\xfe.jpg: can't be read (3 times)" in second
    assert "\x1b" not in first


def test_on_a_terminal_auto_is_for_people() -> None:
    ours, theirs = pty.openpty()
    with subprocess.Popen([sys.executable, "-c", SCRIPT, "auto"], stderr=theirs) as process:
        os.close(theirs)
        said = b""
        try:
            while more := os.read(ours, 1 << 16):
                said += more
        except OSError:
            pass  # how a terminal tells that the other side has ended
        os.close(ours)
    assert process.returncode == 0
    assert b"converted" in said
    assert not said.startswith(b"{")


def samples(metrics: Metrics) -> dict[tuple[str, ...], float]:
    """Return each number by its name and the values of its labels."""
    body, _ = metrics.exposition()
    return {
        (sample.name, *sample.labels.values()): sample.value
        for family in text_string_to_metric_families(body.decode())
        for sample in family.samples
    }


def count(metrics: Metrics, outcome: Outcome, lane: str = "backfill", mtime: float = 0.0) -> None:
    metrics.count(Job(outcome.path, "/srv", 1000, int(mtime * 1e9)), outcome, lane)


def test_every_result_and_reason_is_there_from_the_beginning() -> None:
    found = samples(Metrics())
    assert [found["webpd_images_total", "jpeg", "fresh", result] for result in Result] == [0.0] * len(Result)
    assert [found["webpd_refusals_total", "failed", reason] for reason in Failure] == [0.0] * len(Failure)
    assert Metrics().outcomes == dict.fromkeys(map(str, Result), 0)


def test_what_came_of_images_is_counted_by_result_format_lane_and_reason() -> None:
    metrics = Metrics()
    jpeg, png = Picture(8, 8, "jpeg", 1, False), Picture(8, 8, "png", 1, True)
    count(metrics, Outcome("a", Result.CONVERTED, source_bytes=1000, webp_bytes=600, seconds=0.5, picture=jpeg))
    count(metrics, Outcome("b", Result.CONVERTED, source_bytes=500, webp_bytes=100, seconds=0.25, picture=png), "fresh")
    count(metrics, Outcome("c", Result.KEPT_ORIGINAL, source_bytes=500, webp_bytes=700, picture=png))
    count(metrics, Outcome("d", Result.FAILED, Failure.DAMAGED, "why"))
    count(metrics, Outcome("e", Result.SKIPPED, Skip.FOREIGN_SIDECAR))
    metrics.count_pruned()
    found = samples(metrics)
    assert metrics.outcomes == {"converted": 2, "fresh": 0, "kept_original": 1, "skipped": 1, "failed": 1}
    assert found["webpd_images_total", "jpeg", "backfill", "converted"] == 1
    assert found["webpd_images_total", "png", "fresh", "converted"] == 1
    assert found["webpd_images_total", "unknown", "backfill", "failed"] == 1
    assert found["webpd_refusals_total", "failed", "damaged"] == 1
    assert found["webpd_refusals_total", "skipped", "foreign_sidecar"] == 1
    assert found["webpd_source_bytes_total",] == 1500  # of what was converted
    assert found["webpd_webp_bytes_total",] == 700
    assert found["webpd_saved_bytes_total",] == 800
    assert found["webpd_image_seconds_sum",] == 0.75
    assert found["webpd_pruned_total",] == metrics.pruned == 1


def test_the_steps_are_timed_where_an_image_was_converted() -> None:
    metrics = Metrics()
    count(metrics, Outcome("a", Result.CONVERTED, timing=Timing(0.002, 0.02, 0.2)))
    count(metrics, Outcome("b", Result.FAILED, Failure.DAMAGED))
    found = samples(metrics)
    assert found["webpd_read_seconds_bucket", "0.003"] == found["webpd_read_seconds_count",] == 1
    assert (found["webpd_convert_seconds_bucket", "0.01"], found["webpd_convert_seconds_bucket", "0.03"]) == (0, 1)
    assert found["webpd_publish_seconds_sum",] == 0.2


def test_the_way_from_mtime_to_sidecar_is_timed_for_what_was_found_as_new() -> None:
    metrics = Metrics()
    for lane in ("fresh", "backfill"):
        count(metrics, Outcome("a", Result.CONVERTED), lane, time.time() - 20)
    found = samples(metrics)
    assert (
        found["webpd_delivery_seconds_bucket", "fresh", "10.0"],
        found["webpd_delivery_seconds_count", "fresh"],
    ) == (
        0,
        1,
    )
    assert ("webpd_delivery_seconds_count", "backfill") not in found


def test_who_asks_for_openmetrics_gets_it() -> None:
    body, media_type = Metrics().exposition("application/openmetrics-text; version=1.0.0")
    assert media_type.startswith("application/openmetrics-text; version=1.0.0")
    assert body.endswith(b"# EOF\n")


def test_two_lives_of_the_service_in_one_process_do_not_count_together() -> None:
    one, other = Metrics(), Metrics()
    count(one, Outcome("a", Result.CONVERTED))
    assert other.outcomes[Result.CONVERTED] == 0
    assert samples(other)["webpd_images_total", "unknown", "backfill", "converted"] == 0
