"""The dashboards that webpd ships: as the generator makes them, whole, and every query of theirs answered."""

import json
import math
import re
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from tools.dashboards.dashboard import PROVISIONED
from tools.dashboards.dashboard import write as write_dashboards

from tests.conftest import write
from tests.lab import free_port, wait_for
from tests.monitoring.prometheus import Prometheus, Sample, metrics_in
from tests.redis.server import RedisServer
from tests.service.driver import Service

GRAFANA = Path(__file__).parents[2] / "deploy" / "grafana"
FILES = sorted((GRAFANA / "dashboards").glob("*.json"))
DASHBOARDS: Mapping[str, Any] = {file.stem: json.loads(file.read_text("utf-8")) for file in FILES}

ALL = ".*"
DAMAGED = 12
"""Enough for WebpdFailuresRising."""

Asked = tuple[str, str, Mapping[str, Any]]
"""A dashboard, a panel's title, and one of its queries."""


def panels(dashboard: str) -> list[dict[str, Any]]:
    return [panel for panel in DASHBOARDS[dashboard]["panels"] if panel["type"] != "row"]


QUERIES: list[Asked] = [
    (name, panel["title"], query) for name in DASHBOARDS for panel in panels(name) for query in panel["targets"]
]
# Panels that have a zero for all others, or that count what is there whatever host is chosen.
UNBOUND = {"Alerts"}


class Watched(NamedTuple):
    """A service that has worked, failed, and been started anew, and the Prometheus that has seen it."""

    prometheus: Prometheus
    instance: str
    roots: tuple[Path, ...]
    began: float


@pytest.fixture(scope="module")
def watched(tmp_path_factory: pytest.TempPathFactory, photograph: Callable[..., bytes]) -> Iterator[Watched]:
    folder = tmp_path_factory.mktemp("grafana")
    roots = (folder / "shop (1)", folder / "shop+2")
    for root in roots:
        root.mkdir()
    instance = f"127.0.0.1:{free_port()}"
    with ExitStack() as stack:
        redis = stack.enter_context(RedisServer(folder / "redis"))
        addresses = {"WEBPD_METRICS_ADDRESS": instance, "WEBPD_REDIS_URL": str(redis.url)}
        service = Service(folder, *roots, **addresses)
        stack.callback(service.close)
        prometheus = stack.enter_context(Prometheus(folder / "prometheus", [instance]))
        service.start()
        began = time.time()
        prometheus.wait_for("webpd_ready == 1")
        fill(roots, photograph)
        prometheus.wait_for('ALERTS{alertname="WebpdFailuresRising", alertstate="firing"}')
        prometheus.wait_for('sum(webpd_images_total{outcome="converted"}) == 30')
        prometheus.wait_for("instance:webpd_backlog_seconds:estimate == 0")
        service.stop()
        service.start()
        prometheus.wait_for(f"webpd_ready == 1 and time() - process_start_time_seconds < {time.time() - began}")
        prometheus.wait_for(f"sum(webpd_failed_images) == {DAMAGED}")
        yield Watched(prometheus, instance, roots, began)


def fill(roots: tuple[Path, ...], photograph: Callable[..., bytes]) -> None:
    """Write images that are converted, that fail, and that are skipped."""
    for number in range(25):
        write(roots[0] / f"{number}.jpg", photograph(100 + number))
    for number in range(5):
        write(roots[1] / f"{number}.png", photograph(60 + number, format_="PNG"))
    damaged = bytearray(photograph(60))
    damaged[300:] = b"\xff" * (len(damaged) - 300)
    for number in range(DAMAGED):
        write(roots[1] / f"damaged{number}.jpg", bytes(damaged) + b"%d" % number)
    write(roots[1] / "page.jpg", b"<html>not an image</html>")


def escaped(value: str) -> str:
    """Return a value as Grafana puts it into a regular expression in a string of PromQL."""
    return re.sub(r"[$^*{}\[\]'+?.()|]", r"\\\\\g<0>", value.replace("\\", "\\\\\\\\"))


def replaced(query: str, watched: Watched, host: str = ALL, root: str = ALL) -> str:
    """Return the query as Grafana sends it: each variable replaced, at one value a second."""
    seconds = math.ceil(time.time() - watched.began)
    values = {"__rate_interval": "3s", "__range": f"{seconds}s", "host": host, "root": root}
    return re.sub(r"\$(\w+)", lambda match: values[match[1]], query)


ELSEWHERE = "elsewhere"


def answer(query: Mapping[str, Any], watched: Watched, host: str = ALL, root: str = ALL) -> list[Sample]:
    """Return what is answered as soon as there is something; on a busy machine a scrape may fail now and then."""
    give_up = time.monotonic() + (20 if host != ELSEWHERE else 0)
    while not (found := _answer(query, watched, host, root)) and time.monotonic() < give_up:
        time.sleep(0.1)
    return found


def _answer(query: Mapping[str, Any], watched: Watched, host: str, root: str) -> list[Sample]:
    """Return the last value of each series that has one that is a number, over the time in which all was done."""
    expression = replaced(query["expr"], watched, host, root)
    if query["instant"]:
        samples = watched.prometheus.query(expression)
        return [sample for sample in samples if not math.isnan(sample.value)]
    series = watched.prometheus.query_range(expression, watched.began, time.time(), 1)
    numbers = [(labels, [float(value) for _, value in values if value != "NaN"]) for labels, values in series]
    return [Sample(labels, values[-1]) for labels, values in numbers if values]


def value(watched: Watched, title: str, dashboard: str = "webpd-overview") -> float:
    """Return what a panel with one number shows."""
    (query,) = (query for name, title_, query in QUERIES if (name, title_) == (dashboard, title))
    (sample,) = answer(query, watched)
    return sample.value


def names(asked: Asked) -> str:
    return f"{asked[1]}-{asked[2]['refId']}"


def test_making_the_dashboards_anew_changes_nothing(tmp_path: Path) -> None:
    write_dashboards(tmp_path)
    made = {file.name: file.read_bytes() for file in tmp_path.iterdir()}
    assert made == {file.name: file.read_bytes() for file in FILES}


def test_addresses_of_dashboards_and_panels_stay() -> None:
    assert {name: dashboard["uid"] for name, dashboard in DASHBOARDS.items()} == {
        "webpd-overview": "webpd-overview",
        "webpd-machine-room": "webpd-machine-room",
    }
    for dashboard in DASHBOARDS.values():
        ids = [panel["id"] for panel in dashboard["panels"]]
        assert ids == list(range(1, len(ids) + 1))


def test_the_data_source_is_the_one_that_is_provisioned_unless_another_is_chosen() -> None:
    text = (GRAFANA / "provisioning" / "datasources" / "prometheus.yaml").read_text("utf-8")
    assert re.findall(r"^ +uid: (\S+)$", text, re.MULTILINE) == [PROVISIONED]
    scrape = (GRAFANA.parent / "prometheus" / "prometheus.yml").read_text("utf-8")
    assert re.findall(r"timeInterval: (\w+)", text) == re.findall(r"scrape_interval: (\w+)", scrape)
    for dashboard in DASHBOARDS.values():
        source, *choices = dashboard["templating"]["list"]
        assert (source["name"], source["type"], source["current"]["value"]) == ("datasource", "datasource", PROVISIONED)
        asking = (*choices, *dashboard["annotations"]["list"], *panels(dashboard["uid"]))
        assert {one["datasource"]["uid"] for one in asking} == {"${datasource}"}


def test_panels_fill_their_rows_and_none_lies_on_another() -> None:
    for dashboard in DASHBOARDS.values():
        cells = [
            (x, y)
            for place in (panel["gridPos"] for panel in dashboard["panels"])
            for x in range(place["x"], place["x"] + place["w"])
            for y in range(place["y"], place["y"] + place["h"])
        ]
        assert len(cells) == len(set(cells))
        height = max(y for _, y in cells) + 1
        assert set(cells) == {(x, y) for x in range(24) for y in range(height)}


def test_every_panel_has_a_short_title_of_its_own_a_description_and_a_unit() -> None:
    for name in DASHBOARDS:
        titles = [panel["title"] for panel in panels(name)]
        assert len(titles) == len(set(titles))
        assert max(map(len, titles)) <= 24
        for panel in panels(name):
            assert len(panel["description"]) > 20, panel["title"]
            assert panel["description"].endswith("."), panel["title"]
            assert panel["fieldConfig"]["defaults"]["unit"], panel["title"]


def test_every_query_asks_only_for_metrics_that_exist(watched: Watched, known: set[str]) -> None:
    known = known | {"scrape_duration_seconds"}  # which Prometheus has by itself
    for name, title, query in QUERIES:
        assert metrics_in(replaced(query["expr"], watched)) <= known, (name, title)
    for dashboard in DASHBOARDS.values():
        for annotation in dashboard["annotations"]["list"]:
            assert metrics_in(replaced(annotation["expr"], watched)) <= known
        for variable in dashboard["templating"]["list"][1:]:
            inside = re.sub(r"^\w+\((.*?)(, root)?\)$", r"\1", variable["query"]["query"])
            assert metrics_in(replaced(inside, watched)) <= known


@pytest.mark.parametrize("asked", QUERIES, ids=names)
def test_every_query_returns_data_with_the_labels_that_name_it(watched: Watched, asked: Asked) -> None:
    query = asked[2]
    found = answer(query, watched)
    assert found
    assert all(math.isfinite(sample.value) for sample in found)
    for label in re.findall(r"{{(\w+)}}", query["legendFormat"]):
        assert all(label in sample.labels for sample in found), label


@pytest.mark.parametrize("asked", QUERIES, ids=names)
def test_every_query_is_of_the_host_and_the_roots_chosen(watched: Watched, asked: Asked) -> None:
    _, title, query = asked

    def same() -> bool:
        everything, chosen = answer(query, watched), answer(query, watched, escaped(watched.instance))
        return [sample.labels for sample in chosen] == [sample.labels for sample in everything]

    wait_for(same, "the host chosen is all there is")
    everything = answer(query, watched)
    elsewhere = answer(query, watched, ELSEWHERE)
    assert not elsewhere or title in UNBOUND
    assert [sample.value for sample in elsewhere] == [0] * len(elsewhere)
    root = str(watched.roots[0])
    if any("root" in sample.labels for sample in everything):
        of_root = answer(query, watched, root=escaped(root))
        assert {sample.labels["root"] for sample in of_root} == {root}


def test_colours_and_units_are_of_series_that_there_are(watched: Watched) -> None:
    for name in DASHBOARDS:
        for panel in panels(name):
            shown = set()
            for query in panel["targets"]:
                for sample in answer(query, watched):
                    shown.add(re.sub(r"{{(\w+)}}", lambda label: sample.labels[label[1]], query["legendFormat"]))  # noqa: B023 - used at once
            for transformation in panel["transformations"]:
                columns = transformation["options"].get("renameByName", {})
                assert columns.keys() <= {f"Value #{query['refId']}" for query in panel["targets"]}
                shown |= set(columns.values())
            overridden = {override["matcher"]["options"] for override in panel["fieldConfig"]["overrides"]}
            assert overridden <= shown, panel["title"]


def test_a_host_is_chosen_by_its_name_and_asked_for_by_its_instance(watched: Watched) -> None:
    for dashboard in DASHBOARDS.values():
        _, variable, _ = dashboard["templating"]["list"]
        (query,) = re.findall(r"^query_result\((.*)\)$", variable["query"]["query"])
        (sample,) = watched.prometheus.query(replaced(query, watched))
        text = "{" + ", ".join(f'{label}="{told}"' for label, told in sorted(sample.labels.items())) + "} 1 1"
        pattern = re.fullmatch(r"/(.*)/g", variable["regex"])
        assert pattern
        groups = [found.groupdict() for found in re.finditer(pattern[1].replace("(?<", "(?P<"), text)]
        assert [group["value"] for group in groups if group["value"]] == [watched.instance]
        (host,) = watched.prometheus.query("webpd_build_info")
        assert [group["text"] for group in groups if group["text"]] == [host.labels["host"]]


def test_roots_to_choose_are_those_of_the_host(watched: Watched) -> None:
    for dashboard in DASHBOARDS.values():
        variable = dashboard["templating"]["list"][2]
        (selector,) = re.findall(r"^label_values\((.*), root\)$", variable["query"]["query"])
        for host, roots in ((ALL, sorted(map(str, watched.roots))), ("elsewhere", [])):
            match = {"match[]": replaced(selector, watched, host), "start": str(watched.began)}
            assert watched.prometheus.get("/api/v1/label/root/values", **match)["data"] == roots


def test_starts_and_alerts_are_marked_when_they_were(watched: Watched) -> None:
    for dashboard in DASHBOARDS.values():
        restarts, alerts = dashboard["annotations"]["list"]
        marks = watched.prometheus.query_range(replaced(restarts["expr"], watched), watched.began, time.time(), 1)
        times = {float(mark) / 1000 for _, values in marks for _, mark in values}
        assert restarts["useValueForTime"]
        first, second = sorted(times)
        assert first < watched.began < second < time.time()
        fired = watched.prometheus.query_range(replaced(alerts["expr"], watched), watched.began, time.time(), 1)
        assert {labels["alertname"] for labels, _ in fired} >= {"WebpdFailuresRising"}
        for annotation in (restarts, alerts):
            assert annotation["enable"]


def test_the_numbers_at_the_top_are_those_of_the_tree(watched: Watched) -> None:
    sidecars = [sidecar for root in watched.roots for sidecar in root.rglob("*.webp")]
    originals = sum(sidecar.with_suffix("").stat().st_size for sidecar in sidecars)
    saved = originals - sum(sidecar.stat().st_size for sidecar in sidecars)
    assert value(watched, "Share saved") == pytest.approx(saved / originals)
    # Prometheus estimates what grew before its first sample and after its last.
    assert value(watched, "Saved in all") == pytest.approx(saved, rel=0.1)
    assert value(watched, "Saved") == pytest.approx(saved, rel=0.1)
    assert value(watched, "Converted") == pytest.approx(len(sidecars), rel=0.1)
    assert value(watched, "Failed images") == DAMAGED
    assert (value(watched, "Service"), value(watched, "Sick mounts"), value(watched, "Backlog")) == (2, 0, 0)
    assert value(watched, "Alerts") >= 1


def test_panels_of_now_say_so_where_nothing_was_done_and_none_shows_a_value_that_is_no_number(
    tmp_path: Path, photograph: Callable[..., bytes]
) -> None:
    root, instance = tmp_path / "tree", f"127.0.0.1:{free_port()}"
    root.mkdir()
    with ExitStack() as stack:
        service = Service(tmp_path, root, WEBPD_METRICS_ADDRESS=instance)
        stack.callback(service.close)
        service.start()
        write(root / "1.jpg", photograph())
        service.wait_until(lambda: service.outcomes()["converted"], "an image was new, before Prometheus came")
        service.settle()
        prometheus = stack.enter_context(Prometheus(tmp_path / "prometheus", [instance]))
        prometheus.wait_for("instance:webpd_images:rate5m == 0")
        prometheus.wait_for("instance_quantile:webpd_delivery_seconds:quantile_rate15m != 0")  # NaN
        quiet = Watched(prometheus, instance, (root,), time.time() - 10)
        shown = {
            (title, sample.value)
            for _, title, query in QUERIES
            if query["instant"]
            for sample in prometheus.query(replaced(query["expr"], quiet))
        }
    assert [title for title, number in shown if math.isnan(number)] == []
    assert ("Service", 2) in shown
    assert {"Share saved", "Delivery, 95 %", "Slowest step"}.isdisjoint(title for title, _ in shown)


def test_failures_and_what_was_skipped_are_told_by_reason(watched: Watched) -> None:
    for dashboard, title, reason in (
        ("webpd-overview", "Failures", "damaged"),
        ("webpd-machine-room", "Skipped", "not_an_image"),
    ):
        (query,) = (query for name, title_, query in QUERIES if (name, title_) == (dashboard, title))
        assert [sample.labels["reason"] for sample in answer(query, watched)] == [reason]
