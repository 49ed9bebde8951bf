"""The rules that webpd ships: valid, tested by promtool one by one, asking for what there is, and explained."""

import re
import shutil
import subprocess
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import Ended
from tests.monitoring.prometheus import DEPLOY, Prometheus, metrics_in, promtool
from tests.monitoring.test_metrics import documented, label_values

RUNBOOK = DEPLOY.parents[1] / "docs" / "runbook.md"
TESTS = sorted((DEPLOY / "tests").glob("*.yml"))

Rules = list[dict[str, Any]]


@pytest.fixture(scope="module")
def prometheus(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Prometheus]:
    """One that has read the rules, and scrapes nobody."""
    with Prometheus(tmp_path_factory.mktemp("prometheus"), []) as one:
        yield one


@pytest.fixture(scope="module")
def alerts(prometheus: Prometheus) -> Rules:
    return prometheus.rules("alerting")


@pytest.fixture(scope="module")
def records(prometheus: Prometheus) -> Rules:
    return prometheus.rules("recording")


def test_promtool_and_amtool_find_no_fault_with_the_files() -> None:
    checked = promtool("check", "config", "--lint-fatal", "prometheus.yml")
    assert checked.returncode == 0, checked.stdout + checked.stderr
    assert checked.stdout.count("SUCCESS") == 4, checked.stdout  # itself, that it names rule files, and each of these
    command = ("amtool", "check-config", str(DEPLOY / "alertmanager.yml"))
    checked = subprocess.run(command, capture_output=True, text=True, check=False)
    assert checked.returncode == 0, checked.stdout + checked.stderr


@pytest.mark.parametrize("file", TESTS, ids=lambda file: file.stem)
def test_rules_do_what_their_tests_say(file: Path) -> None:
    tested = promtool("test", "rules", str(file))
    assert tested.returncode == 0, tested.stdout + tested.stderr


def test_every_alert_is_seen_to_fire_and_to_be_silent(alerts: Rules) -> None:
    text = "\n".join(file.read_text("utf-8") for file in TESTS)
    fires = re.findall(r"alertname: (\w+)\n +exp_alerts:\n +- exp_labels", text)
    silent = re.findall(r"alertname: (\w+), exp_alerts: \[\]", text)
    names = sorted(rule["name"] for rule in alerts)
    assert names == sorted(set(fires))
    # Before it fires, and when what it was for is over.
    assert all(silent.count(name) >= 2 for name in names)


def test_every_recorded_value_is_compared_with_one_worked_out_by_hand(records: Rules) -> None:
    text = (DEPLOY / "tests" / "recording.yml").read_text("utf-8")
    asked = {name for expression in re.findall(r"- expr: (.+)", text) for name in metrics_in(expression)}
    assert {rule["name"] for rule in records} == asked


# Each limit, moved by so little that one of those that must be silent is not, or the wait for a state that must last.
MOVED = {
    "WebpdBacklogGrowing": ("estimate > 3600", "estimate > 60"),
    "WebpdCodecsDoNotStart": ("[5m])) > 5", "[5m])) > 4"),
    "WebpdCodecsDying": ("[30m])) >= 5", "[30m])) >= 4"),
    "WebpdDirectoriesUnreadable": ("for: 30m", "for: 20m"),
    "WebpdDiskNearlyFull": ("ratio < 0.05", "ratio <= 0.05"),
    "WebpdDown": ("for: 2m", "for: 1m"),
    "WebpdEventsLost": (">= 3", ">= 2"),
    "WebpdFailuresRising": ("> 0.05", "> 0.04"),
    "WebpdImageWaitsTooLong": ("> 900", ">= 900"),
    "WebpdInodesNearlyGone": ("< 20000", "<= 20000"),
    "WebpdMountSick": ("for: 2m", "for: 1m"),
    "WebpdNotReady": ("for: 15m", "for: 10m"),
    "WebpdNothingConverted": ("drained:rate10m == 0", "drained:rate10m < 0.01"),
    "WebpdOriginalsKept": ("rate6h > 0.5", "rate6h > 0.4"),
    "WebpdOrphansKept": ("for: 15m", "for: 10m"),
    "WebpdQueueRedisDown": ("for: 2m", "for: 1m"),
    "WebpdRedisDown": ("for: 5m", "for: 4m"),
    "WebpdRedisEventsDropped": ("> 1000", ">= 1000"),
    "WebpdRestarting": ("> 3", "> 2"),
    "WebpdRetriesRising": ("> 0.2", "> 0.15"),
    "WebpdSavingsCollapsed": ("< 0.5 *", "< 0.6 *"),
    "WebpdWatchesFailing": ("webpd_watches < 100000", "webpd_watches <= 100000"),
}


def test_a_limit_that_is_moved_a_little_is_found(alerts: Rules, tmp_path: Path) -> None:
    deploy = tmp_path / "deploy"
    shutil.copytree(DEPLOY, deploy)
    rules = re.split(r"(?m)(?=^ +- alert: )", (deploy / "alerts.yml").read_text("utf-8"))
    for number, rule in enumerate(rules[1:], 1):
        name = rule.split()[2]
        was, becomes = MOVED[name]
        assert was in rule, name
        rules[number] = rule.replace(was, becomes)
    (deploy / "alerts.yml").write_text("".join(rules), "utf-8")
    with ThreadPoolExecutor() as executor:
        files = (str(deploy / "tests" / file.name) for file in TESTS if file.stem != "recording")
        found = "".join(
            tested.stdout + tested.stderr for tested in executor.map(partial(promtool, "test", "rules"), files)
        )
    assert set(re.findall(r"alertname: (\w+), time", found)) == {rule["name"] for rule in alerts} == MOVED.keys()


def test_rules_ask_only_for_metrics_that_exist(alerts: Rules, records: Rules, known: set[str]) -> None:
    for rule in (*alerts, *records):
        assert metrics_in(rule["query"]) <= known, rule["name"]


def test_rules_ask_only_for_labels_and_values_that_metrics_have(alerts: Rules, records: Rules) -> None:
    rows, values = documented(), label_values()
    selected = 0
    for rule in (*alerts, *records):
        for metric, matchers in re.findall(r"(webpd_\w+)\{([^}]*)\}", rule["query"]):
            for label, value in re.findall(r'(\w+)[=!~]+"([^"]*)"', matchers):
                assert label in rows[metric].told.labels, rule["name"]
                assert set(value.split("|")) <= values[label], rule["name"]
                selected += 1
    assert selected > 10


def test_what_is_recorded_is_named_by_the_labels_left_and_the_operation(records: Rules, known: set[str]) -> None:
    for rule in records:
        assert re.fullmatch(r"(job|instance(_outcome|_root|_quantile)?):webpd_\w+:[a-z]\w*", rule["name"])
        assert rule["name"] not in documented()


def test_every_alert_says_where_what_and_how_much_and_leads_to_its_paragraph(alerts: Rules) -> None:
    anchors = {line[4:].lower() for line in RUNBOOK.read_text("utf-8").splitlines() if line.startswith("### ")}
    for rule in alerts:
        told = rule["annotations"]
        assert set(told) == {"summary", "description", "runbook_url"}, rule["name"]
        assert rule["labels"] in ({"severity": "critical"}, {"severity": "warning"}), rule["name"]
        assert "$labels.instance" in told["summary"], rule["name"]
        assert "$labels.instance" in told["description"], rule["name"]
        file, _, anchor = told["runbook_url"].partition("#")
        assert (DEPLOY.parents[1] / file) == RUNBOOK
        assert anchor == rule["name"].lower()
        assert anchor in anchors, rule["name"]
    assert anchors >= {rule["name"].lower() for rule in alerts}


@pytest.mark.parametrize(
    "told_in", [RUNBOOK.with_name("metrics.md"), DEPLOY / "alerts.yml"], ids=lambda path: path.name
)
def test_links_open_once_the_command_that_is_told_has_put_an_address_before_them(told_in: Path, tmp_path: Path) -> None:
    rules = Path(shutil.copy(DEPLOY / "alerts.yml", tmp_path))
    (script,) = re.findall(r"sed -i '([^']+)' \S*alerts\.yml", told_in.read_text("utf-8"))
    subprocess.run(["sed", "-i", script, rules], check=True)
    assert promtool("check", "rules", str(rules)).returncode == 0
    head, *alerts = re.split(r"\n +- alert: ", rules.read_text("utf-8"))
    assert (DEPLOY / "alerts.yml").read_text("utf-8").startswith(head), "the command that the file tells was changed"
    assert alerts
    for name, rule in ((alert.split()[0], alert) for alert in alerts):
        assert f'runbook_url: "https://wiki.example.com/webpd/runbook.md#{name.lower()}"' in rule


def test_the_runbook_tells_of_no_alert_that_is_not_there(alerts: Rules) -> None:
    told = re.findall(r"^### (Webpd\w+)$", RUNBOOK.read_text("utf-8"), re.MULTILINE)
    assert sorted(told) == sorted(rule["name"] for rule in alerts)


def test_what_alertmanager_is_told_of_alerts_names_such_as_there_are(alerts: Rules) -> None:
    text = (DEPLOY / "alertmanager.yml").read_text("utf-8")
    assert set(re.findall(r"Webpd\w+", text)) <= {rule["name"] for rule in alerts}
    assert set(re.findall(r'severity="(\w+)"', text)) <= {rule["labels"]["severity"] for rule in alerts}


def test_the_runbook_names_commands_settings_and_metrics_that_exist(
    webpd: Callable[..., Ended], known: set[str]
) -> None:
    text = RUNBOOK.read_text("utf-8")
    code = [*re.findall(r"`([^`\n]+)`", text), *re.findall(r"^    (.+)$", text, re.MULTILINE)]
    commands = {match[1] for line in code if (match := re.match(r"webpd ([a-z]+)\b", line))}
    assert commands >= {"status", "failures", "doctor", "prune"}
    told = webpd("--help").out
    assert {name for name in commands if not re.search(rf"^ +{name} ", told, re.MULTILINE)} == set()
    settings = webpd("config").out
    assert {name for name in re.findall(r"WEBPD_[A-Z_]+", text) if f"{name}=" not in settings} == set()
    assert set(re.findall(r"`(webpd_\w+)`", text)) <= known
