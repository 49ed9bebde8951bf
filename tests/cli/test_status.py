"""``webpd status``: what is remembered, told while no service runs."""

import contextlib
import json
import os
import pty
import re
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.cli.scene import DAY, HOUR, ROOT, event, known, remember
from tests.conftest import WEBPD, Ended, as_nobody, write
from tests.lab import free_port
from webpd.cli.status import text
from webpd.errors import UnfitError
from webpd.settings import Address

Webpd = Callable[..., Ended]


def test_without_a_service_and_without_a_database_it_says_what_to_do(
    stopped: Callable[..., Ended], state: Path
) -> None:
    told = stopped()
    assert (told.code, told.out) == (3, "")
    assert f"webpd does not run (nobody listens at {state}/control.sock or at 127.0.0.1:" in told.err
    assert str(state) in told.err
    assert "WEBPD_STATE_DIR" in told.err
    assert not state.exists()


def test_while_no_service_runs_it_says_so_and_tells_what_is_remembered(
    stopped: Callable[..., Ended], remembered: Path
) -> None:
    told = stopped("--json")
    assert told.code == 0
    status = told.json
    assert status["service"] == "stopped"
    assert (status["queue"], status["version"], status["notes"]) == (None, None, [])
    (root,) = status["roots"]
    assert root == {
        "root": ROOT,
        "kind": "fuse.sshfs",
        "mount": None,
        "detail": None,
        "watch": None,
        "directories": 2,
        "unsettled": 1,
        "images": 12,
        "orphans": 2,
        "hosts": None,
        "counted": {
            "at": "2026-09-22T12:00:00Z",
            "listed_at": "2026-09-22T11:00:00Z",
            "directories": 1,
            "images": 7,
            "orphans": 2,
            "kept_original": 1,
            "skipped": 0,
            "failed": 1,
        },
    }
    assert status["failures"] == {"damaged": 3, "timed_out": 1}


def test_totals_are_those_of_the_last_hour_of_the_last_day_and_of_all_time(remembered: Path) -> None:
    totals = known(remembered)["totals"]
    assert totals["hour"] == {
        "converted": 32,
        "kept_original": 1,
        "skipped": 0,
        "failed": 0,
        "source_bytes": 128_000,
        "webp_bytes": 32_000,
        "saved_bytes": 96_000,
        "saved_percent": 75.0,
    }
    assert [totals[period]["converted"] for period in ("hour", "day", "all")] == [32, 332, 1332]
    assert [totals[period]["failed"] for period in ("hour", "day", "all")] == [0, 3, 4]
    assert totals["all"]["saved_bytes"] == 3000 * 1332


def test_rates_are_those_of_the_last_minutes_of_an_hour_and_of_a_day(remembered: Path) -> None:
    rate = known(remembered)["rate"]
    assert 0.04 <= rate.pop("now") <= 0.05  # 12 images in 4 to 5 minutes
    assert rate == {"hour": round(33 / HOUR, 2), "day": round(337 / DAY, 2)}


def test_people_are_told_the_same_in_lines(remembered: Path) -> None:
    lines = text(known(remembered, Address("127.0.0.1", free_port()))).splitlines()
    assert re.match(r"webpd does not run \(nobody listens at .*\); as it was (just now|\d+ seconds? ago):", lines[0])
    assert any(re.match(r"in all +1,332 +1 +1 +4 +5.3 MB +1.3 MB +4.0 MB +75 %", line) for line in lines)
    assert "failures  3 damaged, 1 timed_out: `webpd failures` lists them" in lines
    assert lines[-4:] == [
        f"{ROOT} (fuse.sshfs)",
        "          7 images in 1 directories, as counted at 2026-09-22T12:00:00Z",
        "          of them 1 kept, 0 skipped, 1 failed; 2 orphans",
        "          unsettled now: 1 directories",
    ]
    assert all(len(line) < 80 for line in lines if line.startswith(("last", "in all")))


def test_a_database_in_which_nothing_happened_yet_is_told_too(state: Path) -> None:
    remember(state)
    told = known(state)
    assert told["totals"]["all"]["converted"] == told["totals"]["all"]["saved_percent"] == 0
    assert (told["rate"], told["failures"], told["roots"]) == ({"now": 0, "hour": 0, "day": 0}, {}, [])
    assert "failures  none" in text(told)


def test_a_name_that_is_not_utf8_is_told_escaped(state: Path) -> None:
    remember(state, event("a.jpg", 0.0, root=os.fsdecode(b"/srv/\xe9t\xe9")))
    told = known(state)
    assert told["roots"][0]["root"] == "/srv/\\xe9t\\xe9"
    assert "the first walk has not ended" in text(told)
    assert "/srv/\\xe9t\\xe9 (" in text(told)


def test_every_key_of_the_object_is_explained_by_help(stopped: Callable[..., Ended], remembered: Path) -> None:
    told = known(remembered)
    explained = set(re.findall(r"\w+", stopped("--help").out))
    assert told.keys() | told["totals"].keys() | told["totals"]["all"].keys() <= explained
    assert "SIGKILL" in explained


def test_a_damaged_database_is_told_with_what_to_do(remembered: Path) -> None:
    file = write(remembered / "ledger.sqlite", b"not a database, and longer than its header " * 200)
    with pytest.raises(UnfitError, match=f"{file}: can't be read .*restart the service"):
        known(remembered)


def test_who_may_not_read_the_database_is_told_so(remembered: Path) -> None:
    assert known(remembered)["totals"]["all"]["converted"] == 1332

    def attempt() -> str:
        with pytest.raises(UnfitError) as raised:
            known(remembered)
        return str(raised.value)

    said = as_nobody(attempt)
    assert f"{remembered / 'ledger.sqlite'}: can't be read (Permission denied)" in said


def test_a_wrong_setting_is_wrong_usage(stopped: Callable[..., Ended], remembered: Path) -> None:
    told = stopped(WEBPD_HEALTH_ADDRESS="nowhere")
    assert told.code == 2
    assert "WEBPD_HEALTH_ADDRESS=nowhere" in told.err


def test_json_with_watch_is_an_object_a_line_and_ends_well_by_ctrl_c(remembered: Path) -> None:
    environment = os.environ | {"WEBPD_STATE_DIR": str(remembered), "WEBPD_HEALTH_ADDRESS": "off"}
    with subprocess.Popen([*WEBPD, "status", "--watch", "--json"], env=environment, stdout=subprocess.PIPE) as process:
        assert process.stdout
        seen = [json.loads(process.stdout.readline()) for _ in range(2)]
        process.send_signal(signal.SIGINT)
        assert process.wait() == 0
    assert [one["totals"]["all"]["converted"] for one in seen] == [1332, 1332]


def test_a_terminal_shows_what_is_new_until_ctrl_c(remembered: Path) -> None:
    ours, theirs = pty.openpty()
    environment = os.environ | {"TERM": "xterm", "COLUMNS": "100", "WEBPD_STATE_DIR": str(remembered)}
    environment["WEBPD_HEALTH_ADDRESS"] = "off"
    process = subprocess.Popen([*WEBPD, "status", "--watch"], stdout=theirs, stderr=theirs, env=environment)
    os.close(theirs)
    shown = b""
    try:
        for expected in (rb"in all +1,332 ", rb"in all +1,333 "):
            while not re.search(expected, shown):
                shown += os.read(ours, 65536)
            remember(remembered, event("new.jpg", 0.0))
        process.send_signal(signal.SIGINT)
        with contextlib.suppress(OSError):  # how Linux tells that nobody has the other end any more
            while part := os.read(ours, 65536):
                shown += part
        assert process.wait() == 0
        assert b"\x1b[?25h" in shown  # the cursor is there again
    finally:
        process.kill()
        process.wait()
        os.close(ours)


def test_a_narrow_terminal_shows_what_is_wrong_in_full_and_cuts_the_numbers(remembered: Path) -> None:
    ours, theirs = pty.openpty()
    environment = os.environ | {"TERM": "xterm", "COLUMNS": "40", "WEBPD_STATE_DIR": str(remembered)}
    environment["WEBPD_HEALTH_ADDRESS"] = "off"
    process = subprocess.Popen([*WEBPD, "status", "--watch"], stdout=theirs, stderr=theirs, env=environment)
    os.close(theirs)
    shown = b""
    try:
        while b"Ctrl-C ends this" not in shown:
            shown += os.read(ours, 65536)
    finally:
        process.kill()
        process.wait()
        os.close(ours)
    lines = re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", shown.decode()).splitlines()
    assert all(len(line) <= 40 for line in lines)
    assert "webpd does not run" in lines[0]
    assert str(remembered) in "".join(lines[:6])
    assert next(line for line in lines if line.startswith("in all")).endswith("…")


def test_other_commands_do_not_pay_for_it() -> None:
    heavy = "{'sqlite3', 'http.client', 'asyncio', 'rich.live', 'webpd.cli.report', 'webpd.service.service'}"
    check = f"import sys, webpd.cli; print(sorted({heavy} & sys.modules.keys()))"
    # Measuring coverage takes a database of its own.
    alone = {name: value for name, value in os.environ.items() if not name.startswith("COVERAGE")}
    done = subprocess.run([sys.executable, "-c", check], env=alone, capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"
