"""A metrics page, read as Prometheus reads it."""

import re
from typing import NamedTuple

from prometheus_client.parser import text_string_to_metric_families


class Told(NamedTuple):
    """What is told of a metric."""

    type: str
    unit: str
    labels: frozenset[str]


class Page(NamedTuple):
    """A metrics page: of each metric its help and what else is told, the values of labels, and the names of series."""

    text: str
    helps: dict[str, str]
    told: dict[str, Told]
    values: dict[str, set[str]]
    series: set[str]


def read(text: str) -> Page:
    """Return what is on a page in Prometheus' text format."""
    page = Page(text, {}, {}, {}, set())
    for family in text_string_to_metric_families(text):
        name = family.name + ("_total" if family.type == "counter" else "")
        labels = {label for sample in family.samples for label in sample.labels} - {"le"}
        unit = re.search(r"_(seconds|bytes)(_total)?$", name)
        page.helps[name] = family.documentation
        page.told[name] = Told(family.type, unit[1] if unit else "", frozenset(labels))
        for sample in family.samples:
            page.series.add(sample.name)
            for label, value in sample.labels.items():
                page.values.setdefault(label, set()).add(value)
    return page
