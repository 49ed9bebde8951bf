"""The dashboards whole: variables, annotations, and rows of panels."""

import json
from collections.abc import Sequence
from pathlib import Path

from grafana_foundation_sdk.builders import dashboard as build
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.models import dashboard as model
from tools.dashboards import machine_room, overview
from tools.dashboards.panel import DATASOURCE, PROCESS, Row, lay_out

PROVISIONED = "webpd-prometheus"
"""The uid of the data source that ``deploy/grafana/provisioning`` makes, and that is taken unless another is chosen."""


class _Annotation(model.AnnotationQuery):
    """Marks in time that Prometheus gives; ``said`` are Prometheus' own options, which the SDK does not know."""

    def __init__(self, name: str, color: str, expr: str, **said: object) -> None:
        super().__init__(name=name, datasource=DATASOURCE, icon_color=color, expr=expr)
        self._said = said

    def to_json(self) -> dict[str, object]:
        return super().to_json() | self._said


_ANNOTATIONS: list[model.AnnotationQuery] = [
    # The value is the time: a start is seen however long the service was down, and at the very second.
    _Annotation(
        "Restarts",
        "blue",
        f"1000 * process_start_time_seconds{{{PROCESS}}}",
        useValueForTime=True,
        titleFormat="webpd was started",
        textFormat="{{instance}}",
    ),
    _Annotation(
        "Alerts",
        "red",
        f'ALERTS{{alertstate="firing", {PROCESS}}}',
        titleFormat="{{alertname}}",
        textFormat="{{instance}} {{root}} {{lane}}",
        tagKeys="severity",
    ),
]


def _choice(name: str, label: str, description: str, query: str) -> build.QueryVariable:
    """Return a variable of which several or all values may be chosen."""
    chosen = model.VariableOption(selected=True, text=["All"], value=["$__all"])
    variable = build.QueryVariable(name).label(label).description(description).datasource(DATASOURCE)
    variable = variable.query({"query": query, "refId": name}).refresh(model.VariableRefresh.ON_TIME_RANGE_CHANGED)
    variable = variable.sort(model.VariableSort.ALPHABETICAL_ASC).current(chosen)
    return variable.multi(True).include_all(True).all_value(".*")


def _variables() -> Sequence[build.DatasourceVariable | build.QueryVariable]:
    source = build.DatasourceVariable("datasource").label("Prometheus").type("prometheus")
    source = source.description("The Prometheus that scrapes webpd.")
    # Those that ran in the time chosen, by name; what is asked for is their instance.
    named = "max by (host, instance) (last_over_time(webpd_build_info[$__range]))"
    host = _choice("host", "Host", "Hosts that run webpd.", f"query_result({named})")
    return (
        source.current(model.VariableOption(selected=True, text=PROVISIONED, value=PROVISIONED)),
        host.regex('/host="(?<text>[^"]+)|instance="(?<value>[^"]+)/g'),
        _choice("root", "Root", "Folders that they keep.", 'label_values(webpd_mount_well{instance=~"$host"}, root)'),
    )


def _dashboard(uid: str, title: str, description: str, rows: Sequence[Row]) -> model.Dashboard:
    dashboard = build.Dashboard(title).uid(uid).description(description).tags(["webpd"]).readonly()
    dashboard.time("now-6h", "now").refresh("30s").timezone("browser").tooltip(model.DashboardCursorSync.CROSSHAIR)
    dashboard.variables(list(_variables()))
    others = build.DashboardLink("webpd").type(model.DashboardLinkType.DASHBOARDS).tags(["webpd"])
    dashboard.link(others.as_dropdown(False).include_vars(True).keep_time(True))
    lay_out(dashboard, rows)
    built = dashboard.build()
    built.annotations = model.AnnotationContainer(list_val=_ANNOTATIONS)
    return built


def dashboards() -> list[model.Dashboard]:
    """Return all of them. The uid is the name of the file and part of the address: it stays."""
    return [
        _dashboard("webpd-overview", "webpd", "Whether webpd does its job, and what it saves.", overview.ROWS),
        _dashboard("webpd-machine-room", "webpd machine room", "Each part of webpd by itself.", machine_room.ROWS),
    ]


def write(folder: Path) -> None:
    """Write each dashboard into a file of the folder."""
    for dashboard in dashboards():
        text = json.dumps(dashboard, cls=JSONEncoder, indent=2, sort_keys=True, ensure_ascii=False)
        (folder / f"{dashboard.uid}.json").write_text(f"{text}\n", "utf-8")
