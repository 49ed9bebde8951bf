"""``webpd status``: asked at its socket and at its address, and what it is taken for where it does not answer."""

import contextlib
import fcntl
import os
import re
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest

from tests.cli.scene import Answering, Asked, answering, event, known, remember
from tests.conftest import WEBPD, Ended, as_nobody, write
from tests.lab import free_port
from webpd.cli.status import text
from webpd.ledger.sqlite import SqliteLedger
from webpd.settings import Address
from webpd.times import utc
from webpd.web.server import listen_unix

Webpd = Callable[..., Ended]


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


def test_who_may_not_ask_at_the_socket_is_told_that_it_cannot_be_known(open_to_all: Path) -> None:
    remember(open_to_all, event("a.jpg", 0.0))
    for each in open_to_all.iterdir():
        each.chmod(0o644)
    with listen_unix(str(open_to_all / "control.sock")):
        told = as_nobody(lambda: known(open_to_all))
        without_address = text(told)
        beside = as_nobody(lambda: known(open_to_all, Address("127.0.0.1", free_port())))
    assert (told["service"], beside["service"]) == ("unknown", "unknown")
    assert told["totals"]["all"]["converted"] == 1
    assert f"whether webpd runs is not known ({open_to_all}/control.sock can't be asked: Perm" in without_address


def test_a_running_service_is_told_with_its_queue_and_its_roots(service: Asked, webpd: Webpd) -> None:
    told = webpd("status", "--json", WEBPD_STATE_DIR=str(service.state), WEBPD_HEALTH_ADDRESS="off")
    assert told.code == 0
    status = told.json
    assert (status["service"], status["notes"]) == ("ok", [])
    assert status["queue"] == service.health()["queue"]
    (root,) = status["roots"]
    assert root["root"] == str(service.roots[0])
    assert (root["mount"], root["images"], root["unsettled"]) == ("well", 3, 0)
    assert status["totals"] is not None
    lines = webpd("status", WEBPD_STATE_DIR=str(service.state), WEBPD_HEALTH_ADDRESS="off").out.splitlines()
    assert lines[0] == f"webpd runs at {service.state}/control.sock and is well"
    assert "queue     0 urgent, 0 fresh, 0 backfill, 0 delayed, 0 in flight" in lines
    assert re.search(r"mount well, watched by (inotify|polling)\)$", lines[-3])


def test_what_was_counted_in_a_root_is_what_the_tree_held_then(service: Asked, webpd: Webpd) -> None:
    (tree,) = service.roots

    def counted() -> Any:
        told = webpd("status", "--json", WEBPD_STATE_DIR=str(service.state), WEBPD_HEALTH_ADDRESS="off").json
        return told["roots"][0]["counted"]

    service.wait_until(lambda: (counted() or {}).get("failed") == 1, "what failed is counted")
    found = counted()
    at = datetime.fromisoformat(found.pop("at")).timestamp()
    assert time.time() - 60 < at <= time.time()
    assert found == {
        "listed_at": None,
        "directories": 1,
        "images": len(list(tree.glob("*.jpg"))),
        "orphans": 0,
        "kept_original": 0,
        "skipped": 0,
        "failed": 1,
    }


def test_what_is_counted_follows_the_tree_and_tells_when_every_folder_was_listed(
    tmp_path: Path, webpd: Webpd, photograph: Callable[..., bytes]
) -> None:
    tree = tmp_path / "tree"
    write(tree / "0.jpg", photograph())
    one = Asked(tmp_path, tree, WEBPD_FULL_INTERVAL="1s")

    def counted() -> dict[str, Any]:
        told = webpd("status", "--json", WEBPD_STATE_DIR=str(one.state), WEBPD_HEALTH_ADDRESS="off")
        assert told.code == 0, told.err
        found: dict[str, Any] = told.json["roots"][0]["counted"] or {"images": None, "listed_at": None}
        return found

    try:
        one.start()
        one.wait_until(lambda: counted()["images"] == 1, "the image is counted")
        for number in range(1, 6):
            write(tree / str(number) / "photo.jpg", photograph())
        one.wait_until(lambda: counted()["images"] == 6, "the new ones are counted too")
        (tree / "0.jpg").unlink()
        one.wait_until(lambda: counted()["orphans"] == 1, "the sidecar without an original is counted")
        one.wait_until(lambda: counted()["listed_at"], "every folder was listed")
        found = counted()
    finally:
        one.close()
    assert (found["directories"], found["images"]) == (6, 5)
    assert found["listed_at"] <= found["at"] <= utc(time.time())


def test_a_service_that_was_stopped_by_force_is_told_as_stopped_and_one_that_hangs_as_silent(
    tmp_path: Path, webpd: Webpd, photograph: Callable[..., bytes]
) -> None:
    write(tmp_path / "tree" / "1.jpg", photograph())
    one = Asked(tmp_path, tmp_path / "tree")

    def told() -> Ended:
        return webpd("status", "--json", WEBPD_STATE_DIR=str(one.state), WEBPD_HEALTH_ADDRESS=one.health_address)

    try:
        one.start()
        one.signal(signal.SIGSTOP)
        hung = told()
        assert (hung.code, hung.json["service"]) == (1, "silent")
        assert hung.json["detail"] == f"no answer from {one.state}/control.sock within 2 s"
        one.kill()
        assert (one.state / "control.sock").exists()
        killed = told()
        assert (killed.code, killed.json["service"]) == (0, "stopped")
    finally:
        one.close()


def test_a_single_pass_is_told_while_it_runs(tmp_path: Path, webpd: Webpd, photograph: Callable[..., bytes]) -> None:
    for number in range(3):
        write(tmp_path / "tree" / f"{number}.jpg", photograph())
    one = Asked(tmp_path, tmp_path / "tree", WEBPD_SETTLE="1h")
    try:
        one.launch("--once")
        one.wait_until((one.state / "control.sock").exists, "it listens")
        told = webpd("status", "--json", WEBPD_STATE_DIR=str(one.state), WEBPD_HEALTH_ADDRESS=one.health_address)
        assert told.json["service"] in {"ok", "degraded"}
        assert told.json["roots"][0]["root"] == str(tmp_path / "tree")
    finally:
        one.close()


def test_a_service_that_uses_another_folder_is_told_as_such(service: Asked, remembered: Path) -> None:
    told = known(remembered, Address("127.0.0.1", int(service.health_address.rpartition(":")[2])))
    assert (told["service"], told["totals"]["all"]["converted"]) == ("ok", 1332)
    assert told["notes"] == [
        f"the service at {service.health_address} does not use {remembered}: name its folder by WEBPD_STATE_DIR"
    ]


def test_a_running_service_is_told_even_where_its_database_is_not_found(
    service: Asked, webpd: Webpd, tmp_path: Path
) -> None:
    empty = str(tmp_path / "elsewhere")
    told = webpd("status", "--json", "--state-dir", empty, WEBPD_HEALTH_ADDRESS=service.health_address)
    assert told.code == 0
    assert (told.json["service"], told.json["totals"], told.json["rate"]) == ("ok", None, None)
    assert empty in told.json["notes"][0]
    lines = text(told.json).splitlines()
    assert re.fullmatch(r" +\d+ images in 1 directories, 0 unsettled", lines[-1])  # and not that no walk has ended


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
        assert f"root {tree} is down: mount full: " in told.out
        assert f"\n{tree} (tmpfs, mount full, watched by" in told.out
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


@pytest.mark.parametrize("body", [b"<html>hello</html>", b"[]", b'{"status": "ok"}', b'{"status": "\xff"}', b""])
def test_another_server_at_the_address_is_not_taken_for_the_service(remembered: Path, body: bytes) -> None:
    class Other(Answering):
        def answer(self) -> bytes:
            return body

    with answering(Other) as address:
        told = known(remembered, address)
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
