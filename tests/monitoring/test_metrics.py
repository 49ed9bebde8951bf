"""The metrics page: clean by Prometheus' rules, bounded, and told of in docs/metrics.md, whatever the role."""

import re
from pathlib import Path
from typing import NamedTuple

import pytest

from tests.monitoring.page import Page, Told
from tests.monitoring.prometheus import metrics_in, promtool

DOCUMENT = Path(__file__).parents[2] / "docs" / "metrics.md"
# What no settings of the service can make many of: one root more is one value more.
OPEN = {"root", "kind", "host", "version", "fingerprint", "le"}


class Row(NamedTuple):
    """A line of the table in docs/metrics.md."""

    told: Told
    meaning: str


def documented() -> dict[str, Row]:
    rows = {}
    for line in DOCUMENT.read_text("utf-8").splitlines():
        if match := re.fullmatch(r"\| `(\w+)` \| (\w+) \| (\w*) ?\| (.*?) ?\| (.+) \|", line):
            name, kind, unit, labels, meaning = match.groups()
            rows[name] = Row(Told(kind, unit, frozenset(re.findall(r"`(\w+)`", labels))), meaning)
    return rows


def label_values() -> dict[str, set[str]]:
    """Return the values of labels that docs/metrics.md lists."""
    lines = re.findall(r"^\| `(\w+)` \| ((?:`[^|]+`(?:, )?)+) \|", DOCUMENT.read_text("utf-8"), re.MULTILINE)
    return {label: set(re.findall(r"`([^`]+)`", values)) for label, values in lines}


@pytest.mark.parametrize("role", ["all", "watch", "work"])
def test_promtool_finds_no_fault_with_the_page(pages: dict[str, Page], role: str) -> None:
    checked = promtool("check", "metrics", given=pages[role].text)
    assert (checked.returncode, checked.stdout, checked.stderr) == (0, "", "")


@pytest.mark.parametrize("role", ["all", "watch", "work"])
def test_whatever_is_on_the_page_is_documented_by_type_unit_labels_and_help(pages: dict[str, Page], role: str) -> None:
    page, rows = pages[role], documented()
    assert page.told.keys() <= rows.keys()
    for name, told in page.told.items():
        row = rows[name].told
        assert (told.type, told.unit) == (row.type, row.unit), name
        assert told.labels <= row.labels, name
        assert rows[name].meaning.startswith(page.helps[name]), name


def test_whatever_is_documented_is_on_a_page_with_all_its_labels(pages: dict[str, Page]) -> None:
    labels: dict[str, set[str]] = {}
    for page in pages.values():
        for name, told in page.told.items():
            labels.setdefault(name, set()).update(told.labels)
    assert {name: set(row.told.labels) for name, row in documented().items()} == labels


def test_labels_have_the_values_that_are_documented_and_no_others(pages: dict[str, Page]) -> None:
    listed = label_values()
    for role, page in pages.items():
        bounded = {label: values for label, values in page.values.items() if label not in OPEN}
        assert bounded.keys() <= listed.keys(), role
        for label, values in bounded.items():
            assert values <= listed[label], (role, label)


def test_a_query_is_known_by_the_names_of_metrics_in_it() -> None:
    for expression, names in {
        "up": {"up"},
        'up{job="webpd"} == bool 0': {"up"},
        "sum by (job, lane) (rate(webpd_images_total{lane=~'a|b'}[5m])) / on (job) group_left (host) x > 1e-3": {
            "webpd_images_total",
            "x",
        },
        "sum(a) without (job) + count(b offset 5m) unless ignoring (c) d": {"a", "b", "d"},
        "max_over_time(instance:a:sum[1d:5m] offset 1h) or a_seconds @ end() # b": {"instance:a:sum", "a_seconds"},
        "topk(3, a) and vector(1) >= -Inf": {"a"},
        "label_replace(a, 'b', `$1`, \"c\", '(.*)')": {"a"},
        "ALERTS{alertstate='firing'} * on (root) group_left a": {"ALERTS", "a"},
    }.items():
        assert metrics_in(expression) == names, expression
    for expression in ("{__name__=~'webpd_.*'}", "a ? b"):
        with pytest.raises(ValueError, match=r"a metric without its name|not PromQL"):
            metrics_in(expression)
