"""``webpd failures``: what failed and why, and another try."""

import contextlib
import os
import re
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.conftest import Ended, write
from tests.service.driver import Service
from webpd.ledger.history import Event
from webpd.ledger.port import Directory
from webpd.ledger.sqlite import SqliteLedger
from webpd.model import Failure, Known, Result, Sidecar

ROOT = "/srv/resize_cache"


def event(
    path: str, result: Result = Result.FAILED, reason: str = "damaged", age: float = 0.0, root: str = ROOT
) -> Event:
    """Return what happened to an image of 4,000 bytes that long ago, in seconds."""
    detail = "cut short" if reason else ""
    return Event(root, path, 4000, 5, 0, 0, "", result, reason, detail, 0, 0.1, b"12345678", time.time() - age, "cdn1")


@pytest.fixture
def state(tmp_path: Path) -> Path:
    return tmp_path / "state"


def open_ledger(state: Path) -> contextlib.closing[SqliteLedger]:
    return contextlib.closing(SqliteLedger(str(state / "ledger.sqlite")))


def remember(state: Path, *events: Event) -> None:
    """Remember the events as a service does, and of each failure that it need not be tried again."""
    with open_ledger(state) as ledger:
        ledger.history.note(events)
        for one in events:
            folder, name = os.path.split(one.path)
            ledger.record(one.root, Directory(folder, 5, True, 1.5, 1))
            if one.result is Result.FAILED:
                failure = Known(4000, 5, Sidecar.ABSENT, b"12345678", Result.FAILED, one.reason, one.detail)
                ledger.learn(one.root, folder, {name: failure})


@pytest.fixture
def failures(webpd: Callable[..., Ended], state: Path) -> Callable[..., Ended]:
    """Return a function that asks for the failures."""
    return lambda *arguments: webpd("failures", *arguments, WEBPD_STATE_DIR=str(state))


@pytest.fixture
def remembered(state: Path) -> Path:
    """A state directory as a service leaves it."""
    remember(
        state,
        event("a/1.jpg", age=7300),
        event("a/2.png", reason="timed_out", age=100),
        event("a/good.jpg", Result.CONVERTED, ""),
        event("ab/3.jpg"),
        event("z.jpg", root="/srv/other"),
    )
    return state


def paths(told: Ended) -> list[str]:
    assert told.code == 0, told.err
    return [one["path"] for one in told.json["failures"]]


def test_each_failure_is_told_with_path_reason_detail_and_age(failures: Callable[..., Ended], remembered: Path) -> None:
    told = failures()
    assert told.code == 0
    lines = told.out.splitlines()
    assert lines[0] == "/srv/other/z.jpg: damaged: cut short (just now)" or re.search(
        r"\(\d+ seconds? ago\)$", lines[0]
    )
    assert lines[1] == f"{ROOT}/a/1.jpg: damaged: cut short (2 hours ago)"
    assert lines[2] == f"{ROOT}/a/2.png: timed_out: cut short (1 minute ago)"
    assert len(lines) == 4


def test_json_has_every_failure_and_nothing_else(failures: Callable[..., Ended], remembered: Path) -> None:
    told = failures("--json")
    assert paths(told) == ["/srv/other/z.jpg", f"{ROOT}/a/1.jpg", f"{ROOT}/a/2.png", f"{ROOT}/ab/3.jpg"]
    assert (told.json["failures_total"], told.json["retried"]) == (4, 0)
    one = told.json["failures"][2]
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ", one.pop("at"))
    assert one == {
        "path": f"{ROOT}/a/2.png",
        "root": ROOT,
        "reason": "timed_out",
        "detail": "cut short",
        "host": "cdn1",
        "bytes": 4000,
    }


def test_a_path_chooses_what_is_at_it_and_below_it(failures: Callable[..., Ended], remembered: Path) -> None:
    assert paths(failures("--json", f"{ROOT}/a/")) == [f"{ROOT}/a/1.jpg", f"{ROOT}/a/2.png"]
    chosen = failures("--json", f"{ROOT}/ab/3.jpg", "/srv/other")
    assert paths(chosen) == ["/srv/other/z.jpg", f"{ROOT}/ab/3.jpg"]
    assert failures(f"{ROOT}/elsewhere").out == f"nothing failed below {ROOT}/elsewhere\n"
    assert failures("--retry", f"{ROOT}/elsewhere").out == f"nothing failed below {ROOT}/elsewhere\n"
    assert failures("").code == 2


def test_a_limit_cuts_the_list_and_not_the_count(failures: Callable[..., Ended], remembered: Path) -> None:
    told = failures("--json", "--limit", "1")
    assert (len(paths(told)), told.json["failures_total"]) == (1, 4)
    assert failures("--limit", "3").out.splitlines()[-1] == "and 1 more: `--limit 4` lists all"


def test_more_failures_than_a_page_are_all_told_once(failures: Callable[..., Ended], state: Path) -> None:
    expected = sorted(f"{number}.jpg" for number in range(2500))
    remember(state, *map(event, expected))
    assert paths(failures("--json", "--limit", "10000")) == [f"{ROOT}/{name}" for name in expected]


def test_without_a_database_it_says_what_to_do(failures: Callable[..., Ended], state: Path) -> None:
    told = failures("--retry")
    assert (told.code, told.out) == (3, "")
    assert str(state) in told.err
    assert "WEBPD_STATE_DIR" in told.err
    assert not state.exists()


def test_listing_changes_nothing(failures: Callable[..., Ended], remembered: Path) -> None:
    before = {file.name: file.read_bytes() for file in remembered.iterdir()}
    failures()
    assert {file.name: file.read_bytes() for file in remembered.iterdir()} == before


def test_a_retry_has_what_was_chosen_and_nothing_else_looked_at_again(
    failures: Callable[..., Ended], remembered: Path
) -> None:
    told = failures("--json", "--retry", "--limit", "0", f"{ROOT}/a")
    assert (told.code, told.json["retried"]) == (0, 2)
    with open_ledger(remembered) as ledger:
        assert ledger.known(ROOT, "a") == {}
        assert ledger.directory(ROOT, "a") == Directory("a", None, True, 1.5, 1)
        assert ledger.known(ROOT, "ab")["3.jpg"].reason == Failure.DAMAGED
        assert ledger.directory(ROOT, "ab") == Directory("ab", 5, True, 1.5, 1)


def test_a_name_that_is_not_utf8_is_told_escaped_and_tried_again(failures: Callable[..., Ended], state: Path) -> None:
    name = os.fsdecode(b"\xe9t\xe9.jpg")
    remember(state, event(f"a/{name}"))
    told = failures("--json", "--retry")
    assert paths(told) == [f"{ROOT}/a/\\xe9t\\xe9.jpg"]
    with open_ledger(state) as ledger:
        assert ledger.known(ROOT, "a") == {}


def test_while_something_has_the_database_and_does_not_listen_nothing_is_retried(
    failures: Callable[..., Ended], remembered: Path
) -> None:
    with open_ledger(remembered) as ledger:
        told = failures("--retry")
        assert len(ledger.known(ROOT, "a")) == 2
    assert (told.code, told.out) == (3, "")
    assert f"another webpd runs with this state directory ({remembered})" in told.err
    assert "try again in a moment" in told.err


def test_a_service_that_runs_tries_what_was_chosen_again_and_nothing_else(
    failures: Callable[..., Ended], photograph: Callable[..., bytes], tmp_path: Path
) -> None:
    name = os.fsdecode(b"\xe9t\xe9.jpg")
    for path in (f"a/{name}", "b/other.jpg"):
        write(tmp_path / "tree" / path, photograph()[:500])
    one = Service(tmp_path, tmp_path / "tree")
    try:
        one.start()
        one.wait_until(lambda: one.outcomes()["failed"] == 2, "both failed")
        one.wait_until(lambda: len(paths(failures("--json"))) == 2, "both are remembered")
        told = failures("--retry", tmp_path / "tree" / "a")
        assert told.code == 0
        assert told.out.startswith("1 will be tried again by the service that runs; as they failed before:\n")
        one.wait_until(lambda: one.outcomes()["failed"] == 3, "it was tried again")
        one.settle()
        assert one.outcomes()["failed"] == 3
        (tmp_path / "tree" / "a" / name).write_bytes(photograph())
        one.wait_until(lambda: len(paths(failures("--json"))) == 1, "the mended image is no failure any more")
        assert failures("--retry", "--json").json["retried"] == 1
    finally:
        one.close()


def test_after_a_retry_the_service_tries_the_image_again(
    webpd: Callable[..., Ended],
    failures: Callable[..., Ended],
    photograph: Callable[..., bytes],
    tmp_path: Path,
    state: Path,
) -> None:
    tree = tmp_path / "tree"
    write(tree / "a" / "damaged.jpg", photograph()[:500])
    write(tree / "a" / "good.jpg", photograph())

    def run() -> Ended:
        return webpd("run", "--once", tree, WEBPD_STATE_DIR=str(state), WEBPD_OWNER="keep", WEBPD_SETTLE="0")

    assert "1 converted" in run().out
    assert "0 failed" in run().out
    with open_ledger(state) as ledger:
        ledger.history.note([event("a/damaged.jpg", root=str(tree))])
    assert "1 will be tried again" in failures("--retry", tree / "a").out
    again = run()
    assert again.code == 1
    assert "0 converted" in again.out
    assert "1 failed" in again.out
