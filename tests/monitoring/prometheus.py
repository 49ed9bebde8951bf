"""A real Prometheus and a real Alertmanager (Debian's), with the very files that webpd ships, on free ports."""

import json
import re
import shutil
import subprocess
import urllib.error
import urllib.request
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple
from urllib.parse import urlencode

from tests.lab import free_port, wait_for

DEPLOY = Path(__file__).parents[2] / "deploy" / "prometheus"
SHIPPED = ("prometheus.yml", "recording.yml", "alerts.yml")
INTERVAL = "200ms"
"""How often a test's Prometheus scrapes and evaluates its rules."""


class Sample(NamedTuple):
    """One value of a query, with the labels it has."""

    labels: Mapping[str, str]
    value: float


class _Server:
    """A program that serves HTTP on a free port of 127.0.0.1. As a context manager it runs within."""

    def __init__(self, folder: Path, *command: str) -> None:
        self.address = f"127.0.0.1:{free_port()}"
        self._folder = folder
        self._command = command
        self._process: subprocess.Popen[bytes] | None = None

    def get(self, path: str, **parameters: str) -> Any:
        """Return the JSON that the path answers with. Raises ``ValueError`` with what the server says is wrong."""
        query = f"?{urlencode(parameters)}" if parameters else ""
        try:
            with urllib.request.urlopen(f"http://{self.address}{path}{query}", timeout=30) as answer:
                return json.load(answer)
        except urllib.error.HTTPError as error:
            raise ValueError(f"{path}{query}: {error.code}: {error.read().decode('utf-8', 'replace')}") from error

    def start(self) -> None:
        """Start it and wait until it is ready."""
        log = self._folder / "log"
        with log.open("ab") as file:
            command = (*self._command, f"--web.listen-address={self.address}", "--log.level=warn")
            self._process = process = subprocess.Popen(command, cwd=self._folder, stdout=file, stderr=file)
        wait_for(lambda: self._ready() or process.poll() is not None, f"{self._command[0]} is ready")
        assert process.poll() is None, log.read_text()

    def stop(self) -> None:
        """End it as it is: what it has is not needed any more."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    def __enter__(self) -> Any:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def _ready(self) -> bool:
        try:
            with urllib.request.urlopen(f"http://{self.address}/-/ready", timeout=5) as answer:
                return bool(answer.status == 200)
        except OSError:
            return False


class Prometheus(_Server):
    """Scrapes these targets (``host:port``) with the shipped configuration, recording rules and alerts.

    Only intervals, targets, the Alertmanager's address and the ``for`` of the alerts are others: short ones.
    """

    def __init__(self, folder: Path, targets: Sequence[str], alertmanager: str = "127.0.0.1:1") -> None:
        super().__init__(folder, "prometheus", "--config.file=prometheus.yml", f"--storage.tsdb.path={folder / 'data'}")
        folder.mkdir(parents=True, exist_ok=True)
        for name in SHIPPED:
            shutil.copy(DEPLOY / name, folder)
        _edit(
            folder / "prometheus.yml",
            {
                r"(scrape|evaluation)_interval: \w+": rf"\1_interval: {INTERVAL}",
                r'"127\.0\.0\.1:9093"': json.dumps(alertmanager),
                r'\["127\.0\.0\.1:9101"\]': json.dumps(list(targets)),
            },
        )
        _edit(folder / "recording.yml", {r"\n    interval: \w+": f"\n    interval: {INTERVAL}"})
        _edit(folder / "alerts.yml", {r"\n        for: \w+": "\n        for: 1s"})

    def query(self, expression: str) -> list[Sample]:
        """Return what the expression is now. Raises ``ValueError``, and says what is wrong with it."""
        data = self.get("/api/v1/query", query=expression)["data"]
        if data["resultType"] == "scalar":
            return [Sample({}, float(data["result"][1]))]
        return [Sample(one["metric"], float(one["value"][1])) for one in data["result"]]

    def query_range(
        self, expression: str, start: float, end: float, step: float
    ) -> list[tuple[Mapping[str, str], Any]]:
        """Return, for each series, its labels and its ``[time, value]``; times are Unix time, ``step`` in seconds."""
        times = {"start": str(start), "end": str(end), "step": str(step)}
        data = self.get("/api/v1/query_range", query=expression, **times)["data"]
        return [(one["metric"], one["values"]) for one in data["result"]]

    def wait_for(self, expression: str, seconds: float = 30) -> list[Sample]:
        """Wait until the expression has a value, and return it."""
        found: list[Sample] = []

        def look() -> bool:
            found[:] = self.query(expression)
            return bool(found)

        wait_for(look, expression, seconds)
        return found

    def rules(self, kind: str) -> list[dict[str, Any]]:
        """Return the rules of this kind, ``alerting`` or ``recording``, as Prometheus has understood them."""
        groups = self.get("/api/v1/rules")["data"]["groups"]
        return [rule for group in groups for rule in group["rules"] if rule["type"] == kind]

    def alerts(self, name: str, state: str = "firing") -> list[dict[str, Any]]:
        """Return the alerts of that name that are in that state."""
        alerts = self.get("/api/v1/alerts")["data"]["alerts"]
        return [alert for alert in alerts if alert["labels"]["alertname"] == name and alert["state"] == state]


class Alertmanager(_Server):
    """Takes alerts with the shipped example of a configuration, in which only the times are others: short ones.

    There is no mail server where it would send its mails.
    """

    def __init__(self, folder: Path) -> None:
        super().__init__(
            folder,
            "prometheus-alertmanager",
            "--config.file=alertmanager.yml",
            f"--storage.path={folder / 'data'}",
            "--cluster.listen-address=",
        )
        folder.mkdir(parents=True, exist_ok=True)
        shutil.copy(DEPLOY / "alertmanager.yml", folder)
        nobody = json.dumps(f"127.0.0.1:{free_port()}")
        times = {r"group_wait: \w+": "group_wait: 100ms", r"group_interval: \w+": "group_interval: 200ms"}
        _edit(folder / "alertmanager.yml", {r'"127\.0\.0\.1:25"': nobody, **times})

    def alerts(self, name: str) -> list[dict[str, Any]]:
        """Return the alerts of that name that it has and that are not resolved."""
        alerts: list[dict[str, Any]] = self.get("/api/v2/alerts")
        return [alert for alert in alerts if alert["labels"]["alertname"] == name]


def _edit(path: Path, replacements: Mapping[str, str]) -> None:
    """Replace each pattern in the file by that; one that is not there is an error."""
    text = path.read_text("utf-8")
    for pattern, replacement in replacements.items():
        text, count = re.subn(pattern, replacement, text)
        assert count, f"{path.name} has nothing like {pattern}"
    path.write_text(text, "utf-8")


def promtool(*arguments: str, given: str = "") -> subprocess.CompletedProcess[str]:
    """Run promtool in the folder of the shipped files."""
    return subprocess.run(
        ["promtool", *arguments], cwd=DEPLOY, input=given, capture_output=True, text=True, check=False
    )


_TOKEN = re.compile(
    r"""\s+ | \#[^\n]*
    | (?P<string> "(?:[^"\\]|\\.)*" | '(?:[^'\\]|\\.)*' | `[^`]*`)
    | (?P<name> [A-Za-z_:][\w:]*)
    | (?P<number> \.?\d[\w.]*(?:(?<=e)[+-]\d+)?)
    | (?P<sign> [-+*/%^=!<>~@,{}()\[\]]|:)""",
    re.VERBOSE,
)
_GROUPING = frozenset({"by", "without", "on", "ignoring", "group_left", "group_right"})
_WORDS = frozenset({"and", "or", "unless", "atan2", "bool", "offset", "inf", "nan"})
_AGGREGATIONS = frozenset(
    {"avg", "bottomk", "count", "count_values", "group", "max", "min", "quantile", "stddev", "stdvar", "sum", "topk"}
)


def metrics_in(expression: str) -> set[str]:
    """Return the names of the metrics that a PromQL expression asks for, those of recording rules among them.

    The expression must be one that Prometheus takes, with every variable of Grafana's replaced. Raises ``ValueError``
    where a name is not written out (``{__name__=~"…"}``), or what is there is not PromQL.
    """
    tokens = _tokens(expression)
    found = set()
    at = 0
    while at < len(tokens):
        kind, text = tokens[at]
        following = tokens[at + 1][1] if at + 1 < len(tokens) else ""
        at += 1
        if text in {"{", "["}:
            end = tokens.index(("sign", "}" if text == "{" else "]"), at)
            if ("name", "__name__") in tokens[at:end]:
                raise ValueError(f"a metric without its name written out: {expression}")
            at = end + 1
        elif kind != "name" or text.lower() in _WORDS:
            continue
        elif text.lower() in _GROUPING:
            if following == "(":
                at = tokens.index(("sign", ")"), at) + 1
        elif following != "(" and not (text.lower() in _AGGREGATIONS and following.lower() in _GROUPING):
            found.add(text)
    return found


def _tokens(expression: str) -> list[tuple[str, str]]:
    tokens = []
    at = 0
    while at < len(expression):
        match = _TOKEN.match(expression, at)
        if match is None:
            raise ValueError(f"not PromQL from {expression[at:]!r} on")
        at = match.end()
        if match.lastgroup is not None:
            tokens.append((match.lastgroup, match[match.lastgroup]))
    return tokens
