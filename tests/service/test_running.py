"""Starting, stopping, crashing and being asked how things stand."""

import os
import signal
import socket
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.conftest import Ended, write
from tests.lab import family, wait_for
from tests.service.driver import Service, leftovers, shows, sidecars

IMAGES = 60


@pytest.fixture
def tree(tmp_path: Path, photograph: Callable[..., bytes]) -> Path:
    data = [photograph(width, name) for width in (120, 240) for name in ("coffee.png", "astronaut.png")]
    for number in range(IMAGES):
        write(tmp_path / "tree" / f"{number % 8}" / f"{number}.jpg", data[number % 4])
    return tmp_path / "tree"


def test_one_pass_ends_by_itself_and_tells_of_failures(tree: Path, service: Callable[..., Service]) -> None:
    one = service(tree)
    one.launch("--once")
    assert one.ended() == 0
    assert len(sidecars(tree)) == IMAGES
    assert not one.said("done: watching")
    write(tree / "broken.jpg", b"\xff\xd8\xff\xe0 and no more")
    one.launch("--once")
    assert one.ended() == 1
    assert one.said("broken.jpg")


def test_where_one_runs_already_a_second_one_says_so_and_advises_no_other_address(
    tree: Path, service: Callable[..., Service], webpd: Callable[..., Ended]
) -> None:
    one = service(tree)
    one.start()
    (told,) = one.said("listening", "webpd_health_address")
    assert told["page"] == f"http://127.0.0.1:{one.health_port}/"
    address = f"127.0.0.1:{one.health_port}"
    second = webpd("run", tree, WEBPD_STATE_DIR=str(one.state), WEBPD_HEALTH_ADDRESS=address, WEBPD_OWNER="keep")
    assert second.code == 3
    assert f"another webpd runs with this state directory ({one.state})" in second.err
    assert "can't listen" not in second.err


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_in_the_midst_of_work_ends_it_cleanly(
    number: signal.Signals, tree: Path, service: Callable[..., Service], webpd: Callable[..., Ended]
) -> None:
    one = service(tree, WEBPD_RATE_LIMIT="20/second")
    one.start()
    one.wait_until(lambda: len(sidecars(tree)) >= 3)
    processes = family(one.pid)
    assert one.stop(number) == 0
    assert 3 <= len(sidecars(tree)) < IMAGES
    assert not leftovers(tree)
    wait_for(lambda: not [pid for pid in processes if os.path.exists(f"/proc/{pid}/exe")], "no process stays behind")
    assert webpd("verify", tree).code == 0
    one.start()
    one.wait_until(lambda: len(sidecars(tree)) == IMAGES, "the rest is done")


def test_a_crash_in_the_midst_of_work_leaves_nothing_that_the_next_start_does_not_clear_away(
    tree: Path, service: Callable[..., Service], webpd: Callable[..., Ended]
) -> None:
    one = service(tree)
    for enough in (1, 10, 25, 40):
        one.launch()
        one.wait_until(lambda: len(sidecars(tree)) >= enough)  # noqa: B023 - called before the next
        processes = family(one.pid)
        one.kill()
        wait_for(lambda: not [pid for pid in processes if os.path.exists(f"/proc/{pid}/exe")], "no process stays")  # noqa: B023
    one.start()
    one.wait_until(lambda: len(sidecars(tree)) == IMAGES)
    one.settle()
    one.wait_until(lambda: not leftovers(tree), "temporary files of the dead are removed")
    assert webpd("verify", "--json", tree).json["right"] == IMAGES


def test_a_lost_or_damaged_memory_costs_time_and_no_picture(
    tree: Path, service: Callable[..., Service], photograph: Callable[..., bytes]
) -> None:
    one = service(tree)
    one.start()
    one.wait_until(lambda: len(sidecars(tree)) == IMAGES)
    assert one.stop() == 0
    before = {path: path.stat().st_ino for path in sidecars(tree)}
    for file in one.state.iterdir():
        file.write_bytes(b"no database" * 100)
    new = write(tree / "new.jpg", photograph(100))
    one.start()
    one.wait_until(lambda: shows(new))
    one.settle()
    assert {path: path.stat().st_ino for path in before} == before
    assert [line for line in one.lines if line["level"] in {"warning", "error"}]


def test_it_tells_how_things_stand(tree: Path, service: Callable[..., Service]) -> None:
    one = service(tree)
    one.start()
    one.wait_until(lambda: one.outcomes()["converted"] == IMAGES)
    one.settle()
    health = one.health()
    assert health["status"] == "ok"
    assert (health["roots"][0]["root"], health["roots"][0]["mount"]) == (str(tree), "well")
    assert (health["roots"][0]["images"], health["roots"][0]["directories"]) == (IMAGES, 9)
    assert one.alive()
    assert one.ready()
    assert one.get("/nothing")[0] == 404
    assert [name for name, value in one.metrics().items() if value == IMAGES and "converted" in name]
    assert [line for line in one.said("converted") if line.get("path")]
    assert not [line for line in one.lines if line["level"] in {"none", "error"}]


def test_systemd_is_told_when_it_is_ready_and_when_it_stops(
    tree: Path, tmp_path: Path, service: Callable[..., Service]
) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listener:
        listener.bind(str(tmp_path / "notify"))
        listener.settimeout(30)
        one = service(tree, NOTIFY_SOCKET=str(tmp_path / "notify"))
        one.launch()
        told = ""
        while "READY=1" not in told:
            told += listener.recv(4096).decode() + "\n"
        one.wait_until(one.ready)
        assert one.stop() == 0
        while "STOPPING=1" not in told:
            told += listener.recv(4096).decode() + "\n"


def test_settings_that_can_change_change_at_sighup(tree: Path, tmp_path: Path, service: Callable[..., Service]) -> None:
    settings = write(tmp_path / "webpd.toml", b"rate_limit = '1/hour'\n")
    one = service(tree, WEBPD_CONFIG=str(settings))
    one.start()
    one.wait_until(lambda: len(sidecars(tree)) == 1)
    settings.write_text("rate_limit = '1000/second'\n")
    one.signal(signal.SIGHUP)
    one.wait_until(lambda: len(sidecars(tree)) == IMAGES, "the new limit counts")
    settings.write_text("rate_limit = 'often'\n")
    one.signal(signal.SIGHUP)
    one.wait_until(lambda: one.said("often"), "what is wrong is told")
    assert one.alive()


def test_settings_that_do_not_fit_leave_the_old_ones(
    tree: Path, tmp_path: Path, service: Callable[..., Service]
) -> None:
    settings = write(tmp_path / "webpd.toml", f"roots = ['{tree}']\n".encode())
    one = service(WEBPD_CONFIG=str(settings))
    one.start()
    settings.write_text(f"roots = ['{tree}', '{tmp_path}/not-there']\n")
    one.signal(signal.SIGHUP)
    one.wait_until(lambda: one.said("not-there", "the old ones stay"), "what is wrong is told")
    one.wait_until(lambda: len(sidecars(tree)) == IMAGES, "it goes on")
    assert one.stop() == 0


def test_who_is_told_to_stop_does_not_begin_anew(tree: Path, service: Callable[..., Service]) -> None:
    one = service(tree)
    one.start()
    one.signal(signal.SIGTERM)
    one.signal(signal.SIGHUP)
    assert one.ended() == 0
    assert len(one.said("running", "workers")) == 1
