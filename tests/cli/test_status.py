"""``webpd status``: what a running service says of itself, and what is known while none runs."""

import contextlib
import fcntl
import http.server
import json
import os
import pty
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import WEBPD, Ended, as_nobody, write
from tests.lab import free_port
from tests.service.driver import Service
from webpd.cli.status import look, text
from webpd.errors import UnfitError
from webpd.ledger.history import Event
from webpd.ledger.port import Directory
from webpd.ledger.sqlite import SqliteLedger
from webpd.model import Result
from webpd.settings import Address, Settings

Webpd = Callable[..., Ended]
ROOT = "/srv/resize_cache"
MINUTE, HOUR, DAY = 60.0, 3600.0, 86_400.0


def event(path: str, age: float, result: Result = Result.CONVERTED, reason: str = "", root: str = ROOT) -> Event:
    """Return what happened to an image of 4,000 bytes that long ago, in seconds."""
    webp = 1000 if result is Result.CONVERTED else 0
    at = time.time() - age
    return Event(root, path, 4000, 5, 80, 60, "jpeg", result, reason, "", webp, 0.1, b"12345678", at, "cdn1")


def remember(state: Path, *events: Event) -> None:
    with contextlib.closing(SqliteLedger(str(state / "ledger.sqlite"))) as ledger:
        ledger.history.note(events)


@pytest.fixture
def state(tmp_path: Path) -> Path:
    return tmp_path / "state"


@pytest.fixture
def remembered(state: Path) -> Path:
    """A state directory as a service leaves it."""
    with contextlib.closing(SqliteLedger(str(state / "ledger.sqlite"))) as ledger:
        ledger.note_kind(ROOT, "fuse.sshfs /srv")
        ledger.record(ROOT, Directory("iblock/a", 5, True, 1.5, 7, 2, 1.5))
        ledger.record(ROOT, Directory("iblock/b", None, False, 1.5, 5))
    remember(
        state,
        *(event(f"now/{number}.jpg", 2 * MINUTE) for number in range(12)),
        *(event(f"hour/{number}.jpg", 30 * MINUTE) for number in range(20)),
        *(event(f"day/{number}.jpg", 5 * HOUR) for number in range(300)),
        *(event(f"old/{number}.jpg", 60 * DAY) for number in range(1000)),
        event("kept.png", 30 * MINUTE, Result.KEPT_ORIGINAL),
        event("skipped.png", 5 * HOUR, Result.SKIPPED, "empty"),
        *(event(f"broken{number}.jpg", 5 * HOUR, Result.FAILED, "damaged") for number in range(3)),
        event("slow.png", 60 * DAY, Result.FAILED, "timed_out"),
    )
    return state


def known(state: Path, address: Address | None = None) -> dict[str, Any]:
    """Return what is told as JSON."""
    return look(Settings(state_dir=str(state), health_address=address), time.time())


@pytest.fixture
def stopped(webpd: Webpd, state: Path) -> Callable[..., Ended]:
    """Return a function that asks for the status where no service runs."""
    address = f"127.0.0.1:{free_port()}"

    def ask(*options: str, **environment: str) -> Ended:
        given = {"WEBPD_STATE_DIR": str(state), "WEBPD_HEALTH_ADDRESS": address} | environment
        return webpd("status", *options, **given)

    return ask


class Asked(Service):
    """A service that tells where to ask it."""

    @property
    def health_address(self) -> str:
        return f"127.0.0.1:{self._health}"


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory, photograph: Callable[..., bytes]) -> Iterator[Asked]:
    """A service that runs and has done all that there is to do, over three images, one of them damaged."""
    folder = tmp_path_factory.mktemp("service")
    for number in range(2):
        write(folder / "tree" / f"{number}.jpg", photograph())
    write(folder / "tree" / "damaged.jpg", photograph()[:500])
    one = Asked(folder, folder / "tree")
    try:
        one.start()
        one.settle()
        yield one
    finally:
        one.close()


def test_without_a_service_and_without_a_database_it_says_what_to_do(
    stopped: Callable[..., Ended], state: Path
) -> None:
    told = stopped()
    assert (told.code, told.out) == (3, "")
    assert "webpd does not run (nobody listens at 127.0.0.1:" in told.err
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


def test_the_rate_is_that_of_the_last_minutes(remembered: Path) -> None:
    assert 0.04 <= known(remembered)["rate"] <= 0.05  # 12 images in 4 to 5 minutes


def test_people_are_told_the_same_in_lines(remembered: Path) -> None:
    lines = text(known(remembered, Address("127.0.0.1", free_port()))).splitlines()
    assert re.match(r"webpd does not run \(nobody listens at .*\); as it was (just now|\d+ seconds? ago):", lines[0])
    assert any(re.match(r"in all +1,332 +1 +1 +4 +5.3 MB +1.3 MB +4.0 MB +75 %", line) for line in lines)
    assert "failures  3 damaged, 1 timed_out: `webpd failures` lists them" in lines
    assert f"{ROOT} (fuse.sshfs)" in lines
    assert all(len(line) < 80 for line in lines if line.startswith(("last", "in all")))


def test_a_database_in_which_nothing_happened_yet_is_told_too(state: Path) -> None:
    remember(state)
    told = known(state)
    assert told["totals"]["all"]["converted"] == told["totals"]["all"]["saved_percent"] == 0
    assert (told["rate"], told["failures"], told["roots"]) == (0, {}, [])
    assert "failures  none" in text(told)


def test_a_name_that_is_not_utf8_is_told_escaped(state: Path) -> None:
    remember(state, event("a.jpg", 0.0, root=os.fsdecode(b"/srv/\xe9t\xe9")))
    told = known(state)
    assert told["roots"][0]["root"] == "/srv/\\xe9t\\xe9"
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


def test_without_an_address_to_ask_at_it_says_that_it_cannot_know(remembered: Path) -> None:
    told = known(remembered)
    assert told["service"] == "unknown"
    assert told["totals"]["all"]["converted"] == 1332
    assert "whether webpd runs is not known" in text(told)


def test_a_running_service_is_told_with_its_queue_and_its_roots(service: Asked, webpd: Webpd) -> None:
    address = service.health_address
    told = webpd("status", "--json", WEBPD_STATE_DIR=str(service.state), WEBPD_HEALTH_ADDRESS=address)
    assert told.code == 0
    status = told.json
    assert (status["service"], status["notes"]) == ("ok", [])
    assert status["queue"] == service.health()["queue"]
    (root,) = status["roots"]
    assert root["root"] == str(service.roots[0])
    assert (root["mount"], root["images"], root["unsettled"]) == ("well", 3, 0)
    assert status["totals"] is not None
    lines = webpd("status", WEBPD_STATE_DIR=str(service.state), WEBPD_HEALTH_ADDRESS=address).out.splitlines()
    assert lines[0] == f"webpd runs at {address} and is well"
    assert "queue     0 urgent, 0 fresh, 0 backfill, 0 delayed, 0 in flight" in lines
    assert re.search(r"mount well, watched by (inotify|poll)\)$", lines[-2])


def test_a_running_service_is_told_even_where_its_database_is_not_found(
    service: Asked, webpd: Webpd, tmp_path: Path
) -> None:
    empty = str(tmp_path / "elsewhere")
    told = webpd("status", "--json", "--state-dir", empty, WEBPD_HEALTH_ADDRESS=service.health_address)
    assert told.code == 0
    assert (told.json["service"], told.json["totals"], told.json["rate"]) == ("ok", None, None)
    assert empty in told.json["notes"][0]


def test_a_degraded_service_makes_it_fail(
    tmpfs: Callable[[str], Path], tmp_path: Path, webpd: Webpd, photograph: Callable[..., bytes]
) -> None:
    tree = tmpfs("size=1m")
    upload = write(tree / "upload", photograph())
    one = Asked(tmp_path, tree)
    try:
        one.start()
        with (tree / "ballast").open("wb", buffering=0) as file, contextlib.suppress(OSError):
            while file.write(bytes(1 << 12)):
                pass
        upload.rename(tree / "photo.jpg")
        one.wait_until(lambda: one.root()["mount"] == "full", "the mount is full")
        told = webpd("status", WEBPD_STATE_DIR=str(one.state), WEBPD_HEALTH_ADDRESS=one.health_address)
        assert told.code == 1
        assert "DEGRADED" in told.out
        assert f"{tree} (tmpfs, mount full: " in told.out
    finally:
        one.close()


def test_a_service_that_does_not_answer_is_not_waited_for_and_makes_it_fail(
    stopped: Callable[..., Ended], remembered: Path
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as mute:
        address = f"127.0.0.1:{mute.getsockname()[1]}"
        told = stopped("--json", WEBPD_HEALTH_ADDRESS=address)
    assert (told.code, told.json["service"]) == (1, "silent")
    assert told.json["detail"] == f"no answer from {address} within 2 s"
    assert told.json["totals"]["all"]["converted"] == 1332


class _Other(http.server.BaseHTTPRequestHandler):
    """A server that is not ours."""

    body = b"<html>hello</html>"

    def do_GET(self) -> None:
        self.send_response(200)
        self.end_headers()
        self.wfile.write(self.body)

    def log_message(self, *_: object) -> None:
        pass


@pytest.mark.parametrize("body", [b"<html>hello</html>", b"[]", b'{"status": "ok"}', b'{"status": "\xff"}', b""])
def test_another_server_at_the_address_is_not_taken_for_the_service(remembered: Path, body: bytes) -> None:
    handler = type("Handler", (_Other,), {"body": body})
    with http.server.HTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            told = known(remembered, Address("127.0.0.1", server.server_port))
        finally:
            server.shutdown()
            thread.join()
    assert told["service"] == "silent"
    assert "does not answer as webpd does" in told["detail"]


def test_a_service_that_has_the_folder_and_listens_elsewhere_is_not_said_to_be_stopped(remembered: Path) -> None:
    with contextlib.closing(SqliteLedger(str(remembered / "ledger.sqlite"))):
        told = known(remembered, Address("127.0.0.1", free_port()))
    assert told["service"] == "silent"
    assert f"a webpd has {remembered}" in told["detail"]
    assert told["totals"]["all"]["converted"] == 1332


def test_a_service_can_start_at_any_moment_while_the_status_is_told(remembered: Path) -> None:
    environment = os.environ | {"WEBPD_STATE_DIR": str(remembered), "WEBPD_HEALTH_ADDRESS": f"127.0.0.1:{free_port()}"}
    with subprocess.Popen([*WEBPD, "status"], env=environment, stdout=subprocess.DEVNULL) as process:
        tries = 0
        while process.poll() is None:
            with (remembered / "lock").open("wb") as lock:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            tries += 1
    assert process.returncode in {0, 1}  # it may have seen the lock that this test had
    assert tries


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


def test_other_commands_do_not_pay_for_it() -> None:
    heavy = "{'sqlite3', 'http.client', 'asyncio', 'rich.live', 'webpd.service.service'}"
    check = f"import sys, webpd.cli; print(sorted({heavy} & sys.modules.keys()))"
    # Measuring coverage takes a database of its own.
    alone = {name: value for name, value in os.environ.items() if not name.startswith("COVERAGE")}
    done = subprocess.run([sys.executable, "-c", check], env=alone, capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"
