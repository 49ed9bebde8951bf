"""What a dashboard is made of, as data, and how the Grafana Foundation SDK is told of it."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import count
from string import ascii_uppercase

from grafana_foundation_sdk.builders import (
    bargauge,
    common,
    heatmap,
    prometheus,
    stat,
    statetimeline,
    table,
    timeseries,
)
from grafana_foundation_sdk.builders import dashboard as build
from grafana_foundation_sdk.models import common as options
from grafana_foundation_sdk.models import dashboard as model
from grafana_foundation_sdk.models.heatmap import HeatmapColorMode
from grafana_foundation_sdk.models.prometheus import PromQueryFormat, QueryEditorMode

HOST = 'instance=~"$host"'
"""What picks the series of the hosts chosen, of metrics that only webpd has."""
PROCESS = f'job="webpd", {HOST}'
"""The same, of metrics that other programs have too."""
ROOT = f'{HOST}, root=~"$root"'


def rate(metric: str, by: str, where: str = HOST) -> str:
    """Return a query for how fast a counter grows, a second, for each value of these labels."""
    return f"sum by ({by}) (rate({metric}{{{where}}}[$__rate_interval]))"


def per_minute(metric: str, by: str, where: str = HOST) -> str:
    """Return the same, a minute."""
    return f"60 * {rate(metric, by, where)}"


Look = stat.Panel | timeseries.Panel | bargauge.Panel | statetimeline.Panel | table.Panel | heatmap.Panel
Words = Mapping[int, tuple[str, str]]
"""What a value means, and its colour."""

DATASOURCE = model.DataSourceRef(type_val="prometheus", uid="${datasource}")


@dataclass(frozen=True)
class Query:
    """A query; in ``legend`` stand the labels that name a series."""

    expr: str
    legend: str = ""


@dataclass(frozen=True)
class Panel:
    """A panel: ``unit`` as Grafana calls it, ``width`` in columns.

    ``limits`` are values from which on a colour holds, upwards, and ``color`` is that below them; ``words`` say what
    values mean. ``colors`` and ``right`` (units, on an axis of their own at the right) are for series, by name;
    ``columns`` are those of a table, one for each query: name, unit, and words. ``nothing`` is said, in ``color``,
    where no series comes.
    """

    look: Callable[[], Look]
    title: str
    description: str
    unit: str
    queries: Sequence[Query]
    width: int
    color: str = "green"
    limits: Mapping[float, str] = field(default_factory=dict)
    words: Words = field(default_factory=dict)
    colors: Mapping[str, str] = field(default_factory=dict)
    right: Mapping[str, str] = field(default_factory=dict)
    columns: Sequence[tuple[str, str, Words]] = ()
    nothing: str = "no data"


@dataclass(frozen=True)
class Row:
    """Panels beside one another below a title: 24 columns in all, of one height in units of the grid (38 pixels)."""

    title: str
    height: int
    panels: Sequence[Panel]


def _legend(shown: bool) -> common.VizLegendOptions:
    legend = common.VizLegendOptions().placement(options.LegendPlacement.BOTTOM).show_legend(shown)
    return legend.display_mode(options.LegendDisplayMode.LIST).calcs([])


def _last() -> common.ReduceDataOptions:
    return common.ReduceDataOptions().calcs(["lastNotNull"]).values(False)


def number() -> Look:
    """Return one big number, as of now; its colour tells how good it is."""
    panel = stat.Panel().reduce_options(_last()).graph_mode(options.BigValueGraphMode.NONE)
    return panel.color_mode(options.BigValueColorMode.VALUE).text_mode(options.BigValueTextMode.VALUE)


def lamp() -> Look:
    """Return a word or number, as of now, on a ground whose colour tells how good it is."""
    panel = stat.Panel().reduce_options(_last()).graph_mode(options.BigValueGraphMode.NONE)
    return panel.color_mode(options.BigValueColorMode.BACKGROUND).text_mode(options.BigValueTextMode.VALUE)


def bars() -> Look:
    """Return a bar for each series, as of now."""
    panel = bargauge.Panel().reduce_options(_last()).orientation(options.VizOrientation.HORIZONTAL)
    return panel.display_mode(options.BarGaugeDisplayMode.GRADIENT).min(0)


def lines() -> timeseries.Panel:
    """Return a line for each series over time."""
    tooltip = common.VizTooltipOptions().mode(options.TooltipDisplayMode.MULTI)
    panel = timeseries.Panel().legend(_legend(True)).tooltip(tooltip).min(0).line_width(2).fill_opacity(8)
    return panel.show_points(options.VisibilityMode.NEVER)


def limited() -> Look:
    """Return lines, with the limits drawn among them."""
    style = common.GraphThresholdsStyleConfig().mode(options.GraphTresholdsStyleMode.DASHED)
    return lines().thresholds_style(style)


def stacked() -> Look:
    """Return series over time, one upon the other."""
    return lines().stacking(common.StackingConfig().mode(options.StackingMode.NORMAL).group("A")).fill_opacity(40)


def timeline() -> Look:
    """Return a strip for each series, whose colour tells its state over time."""
    panel = statetimeline.Panel().legend(_legend(False)).merge_values(True).fill_opacity(80)
    panel = panel.color_scheme(build.FieldColor().mode(model.FieldColorModeId.THRESHOLDS))
    return panel.show_value(options.VisibilityMode.AUTO).row_height(0.8)


def spread() -> Look:
    """Return how the seconds of a histogram are spread over time."""
    color = heatmap.HeatmapColorOptions().mode(HeatmapColorMode.SCHEME).scheme("Blues").steps(64)
    panel = heatmap.Panel().calculate(False).color(color).y_axis(heatmap.YAxisConfig().unit("s"))
    return panel.show_legend().show_tooltip()


def rows() -> Look:
    """Return a table with a row for what the labels of all queries have in common, and a column for each query."""
    return table.Panel().show_header(True)


_NOW = (stat.Panel, bargauge.Panel, table.Panel)
_FORMATS = {table.Panel: PromQueryFormat.TABLE, heatmap.Panel: PromQueryFormat.HEATMAP}


def _target(query: Query, letter: str, look: Look) -> prometheus.Dataquery:
    target = prometheus.Dataquery().expr(query.expr).legend_format(query.legend).ref_id(letter)
    target = target.editor_mode(QueryEditorMode.CODE)
    target = target.format(_FORMATS.get(type(look), PromQueryFormat.TIME_SERIES))
    return target.instant() if isinstance(look, _NOW) else target.range()


def _thresholds(panel: Panel) -> build.ThresholdsConfig:
    steps = [model.Threshold(value=value, color=color) for value, color in panel.limits.items()]
    below = model.Threshold(value=None, color=panel.color)
    return build.ThresholdsConfig().mode(model.ThresholdsMode.ABSOLUTE).steps([below, *steps])


def _mappings(words: Words) -> list[model.ValueMapping]:
    if not words:
        return []
    results = enumerate(words.values())
    options_ = [model.ValueMappingResult(text=text, color=color, index=index) for index, (text, color) in results]
    return [model.ValueMap(dict(zip(map(str, words), options_, strict=True)))]


def _color(color: str) -> model.DynamicConfigValue:
    return model.DynamicConfigValue(
        id_val="color", value=model.FieldColor(mode=model.FieldColorModeId.FIXED, fixed_color=color)
    )


def _columns(look: table.Panel, panel: Panel) -> None:
    """Give each query's column its name, unit and words; the labels come first."""
    values = {f"Value #{letter}": name for letter, (name, _, _) in zip(ascii_uppercase, panel.columns, strict=False)}
    hidden = {"Time": True} | {value: True for value, name in values.items() if not name}
    names = {value: name for value, name in values.items() if name}
    look.with_transformation(model.DataTransformerConfig(id_val="merge", options={}))
    look.with_transformation(
        model.DataTransformerConfig(id_val="organize", options={"excludeByName": hidden, "renameByName": names})
    )
    for name, unit, words in panel.columns:
        properties = [model.DynamicConfigValue(id_val="unit", value=unit)] if unit else []
        if words:
            cell = {"type": options.TableCellDisplayMode.COLOR_TEXT}
            properties.append(model.DynamicConfigValue(id_val="mappings", value=_mappings(words)))
            properties.append(model.DynamicConfigValue(id_val="custom.cellOptions", value=cell))
        if name and properties:
            look.override_by_name(name, properties)


def _built(panel: Panel, id_: int, height: int) -> Look:
    look = panel.look()
    look.id(id_).title(panel.title).description(panel.description).datasource(DATASOURCE)
    look.unit(panel.unit).no_value(panel.nothing).span(panel.width).height(height)
    look.targets([_target(query, letter, look) for query, letter in zip(panel.queries, ascii_uppercase, strict=False)])
    look.thresholds(_thresholds(panel)).mappings(_mappings(panel.words))
    for name, color in panel.colors.items():
        look.override_by_name(name, [_color(color)])
    for name, unit in panel.right.items():
        right = model.DynamicConfigValue(id_val="custom.axisPlacement", value=options.AxisPlacement.RIGHT)
        look.override_by_name(name, [right, model.DynamicConfigValue(id_val="unit", value=unit)])
    if isinstance(look, table.Panel):
        _columns(look, panel)
    elif isinstance(look, timeseries.Panel):
        look.color_scheme(build.FieldColor().mode(model.FieldColorModeId.PALETTE_CLASSIC))
    return look


def lay_out(dashboard: build.Dashboard, rows_: Sequence[Row]) -> None:
    """Put the panels into a dashboard, row by row, and number them."""
    numbers = count(1)
    for row in rows_:
        dashboard.with_row(build.Row(row.title).id(next(numbers)))
        for panel in row.panels:
            dashboard.with_panel(_built(panel, next(numbers), row.height))
