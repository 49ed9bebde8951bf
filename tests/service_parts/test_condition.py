"""What /health tells of each part, in faults that are real, and that it is what ``docs/health.schema.json`` says."""

import contextlib
import itertools
import json
import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft202012Validator

from tests.conftest import descendants, write
from tests.lab import repeatedly, sshfs_lab
from tests.redis.server import RedisServer
from tests.service.driver import Service

SCHEMA = Path(__file__).parents[2] / "docs" / "health.schema.json"

Part = dict[str, str]


class Checked(Service):
    """A service whose every answer is held against the schema."""

    schema = Draft202012Validator(json.loads(SCHEMA.read_text("utf-8")))

    def health(self) -> Any:
        """Return the health page, which is as the schema says, and agrees with itself and with its HTTP status."""
        status, body = self.get("/health")
        told = json.loads(body)
        self.schema.validate(told)
        assert (status, told["status"]) in {(200, "ok"), (503, "degraded")}
        return told

    def part(self, name: str, subject: str = "") -> Part:
        """Return what it tells of a part."""
        found = [part for part in self.health()["parts"] if (part["part"], part["subject"]) == (name, subject)]
        assert len(found) == 1
        part: Part = found[0]
        return part

    def reasons(self) -> str:
        """Return why it is not ready, in words; "" where it is."""
        status, body = self.get("/readyz")
        return body if status == 503 else ""


@pytest.fixture
def service(tmp_path: Path) -> Iterator[Callable[..., Checked]]:
    """Return a function that makes a service (not started) over roots, with environment variables by keyword."""
    made: list[Checked] = []

    def make(*roots: Path, **environment: str) -> Checked:
        made.append(Checked(tmp_path / f"service{len(made)}", *roots, **environment))
        return made[-1]

    yield make
    for one in made:
        one.close()


@pytest.fixture
def tree(tmp_path: Path, photograph: Callable[..., bytes]) -> Path:
    """A tree with an image in it."""
    return write(tmp_path / "tree" / "photo.jpg", photograph()).parent


def test_the_schema_is_one() -> None:
    Draft202012Validator.check_schema(json.loads(SCHEMA.read_text("utf-8")))


def test_a_service_that_is_well_says_so_of_each_part(service: Callable[..., Checked], tree: Path) -> None:
    one = service(tree)
    one.launch()
    one.wait_until(lambda: one.get("/health")[0], "it answers")
    while (told := one.health())["status"] == "degraded":
        assert any(part["state"] != "ok" for part in told["parts"] if part["part"] in {"service", "root", "codecs"})
    one.settle()
    states = {part["part"]: part["state"] for part in one.health()["parts"]}
    assert states == {
        **dict.fromkeys(("service", "root", "codecs", "queue", "ledger"), "ok"),
        **dict.fromkeys(("redis", "queue_redis", "hints"), "off"),
    }
    assert one.part("root", str(tree))["reason"] == "watched by inotify and polling, 1 images"
    assert not one.reasons()


def test_while_it_starts_it_is_alive_and_says_so_though_a_mount_hangs(
    service: Callable[..., Checked], tmp_path: Path, tree: Path
) -> None:
    with sshfs_lab(tmp_path / "lab") as lab:
        lab.stop()
        try:
            one = service(lab.mnt, tree)
            one.launch()
            one.wait_until(one.reasons, "it answers")
            assert one.reasons() == "not ready\nservice: is starting: opens its database and asks the mounts\n"
            assert one.alive()
            told = one.health()
            assert [part["part"] for part in told["parts"]] == ["service"]
            assert told["roots"] == []
            assert one.get("/")[0] == 200
        finally:
            lab.cont()
        one.wait_until(one.ready, "it is ready")


def test_a_mount_that_hangs_is_down_since_then_and_what_to_do_is_told(
    service: Callable[..., Checked], tmp_path: Path, tree: Path, photograph: Callable[..., bytes]
) -> None:
    with sshfs_lab(tmp_path / "lab") as lab:
        write(lab.origin / "a.jpg", photograph())
        one = service(lab.mnt, tree)
        one.start()
        well = one.part("root", str(lab.mnt))
        lab.stop()
        try:
            one.wait_until(lambda: one.part("root", str(lab.mnt))["state"] == "down", "the mount is seen to hang")
            hung = one.part("root", str(lab.mnt))
            assert hung["reason"].startswith(f"mount hung: the mount at {lab.mnt} (fuse.sshfs) did not answer within")
            assert hung["cure"].startswith("check the link and the server")
            assert hung["since"] > well["since"]
            assert one.reasons() == f"not ready\nroot {lab.mnt}: {hung['reason']}\n"
            assert one.part("root", str(tree))["state"] == "ok"
        finally:
            lab.cont()
        one.wait_until(lambda: one.part("root", str(lab.mnt))["state"] == "ok", "it is well again")
        assert one.part("root", str(lab.mnt))["since"] >= hung["since"]


def test_a_redis_that_is_paused_is_told_and_hinders_nothing(
    service: Callable[..., Checked], tmp_path: Path, tree: Path
) -> None:
    with RedisServer(tmp_path / "redis") as redis:
        one = service(tree, WEBPD_REDIS_URL=redis.url)
        one.start()
        one.wait_until(lambda: one.part("redis")["state"] == "ok", "Redis answers")
        redis.cli("CLIENT", "PAUSE", "3600000")
        one.wait_until(lambda: one.part("redis")["state"] == "degraded", "it is seen to be paused")
        part = one.part("redis")
        assert part["reason"] == "does not answer within 1 s; this host goes on by itself"
        assert part["cure"].startswith("it hangs, is overloaded")
        assert one.health()["status"] == "ok"


def test_codecs_that_cannot_start_are_down_until_they_can(
    service: Callable[..., Checked], tree: Path, photograph: Callable[..., bytes], prove: bool
) -> None:
    one = service(tree)
    one.start()
    one.settle()
    with killed_as_they_start(one):
        sizes = itertools.count(150)  # on a busy machine some may start, and convert one, before they are killed

        def down() -> bool:
            size = next(sizes)
            if size % 20 == 10:
                write(tree / "next.jpg", photograph(size))
            return one.part("codecs")["state"] == "down"

        one.wait_until(down, "the codecs are seen not to start")
    part = one.part("codecs")
    assert part["reason"].startswith("codec processes do not start: ")
    assert "Check that" in part["cure"]
    assert f"codecs: {part['reason']}" in one.reasons()
    if prove:  # within a minute one more is tried
        one.wait_until(lambda: one.part("codecs")["state"] == "ok", "they start again", 120)
        one.wait_until((tree / "next.jpg.webp").exists, "what waited is converted")


@contextlib.contextmanager
def killed_as_they_start(one: Service) -> Iterator[None]:
    """Kill the service's codec processes as soon as they are there."""

    def kill() -> None:
        for process in descendants(one.pid):
            with contextlib.suppress(ProcessLookupError):
                os.kill(process, signal.SIGKILL)

    with repeatedly(0.001, kill):
        yield


def test_pruning_refused_degrades_the_root_and_names_the_command(
    service: Callable[..., Checked], tmp_path: Path, photograph: Callable[..., bytes]
) -> None:
    root = tmp_path / "many"
    for number in range(4):
        write(root / f"{number}.jpg", photograph(60))
    one = service(root, WEBPD_PRUNE_SHARE="0", WEBPD_PRUNE_AFTER="1")
    one.start()
    one.settle()
    for number in range(3):
        (root / f"{number}.jpg").unlink()
    one.wait_until(lambda: one.part("root", str(root))["state"] == "degraded", "pruning is refused")
    part = one.part("root", str(root))
    assert part["reason"] == "3 sidecars whose originals are gone are kept: too many at once"
    assert f"webpd prune --yes {root}" in part["cure"]
    assert one.health()["status"] == "ok"


def test_a_memory_that_cannot_be_written_is_degraded_and_the_work_goes_on(
    service: Callable[..., Checked],
    tmpfs: Callable[[str], Path],
    tmp_path: Path,
    tree: Path,
    photograph: Callable[..., bytes],
) -> None:
    state = tmpfs("size=4m")
    one = service(tree, WEBPD_STATE_DIR=str(state))
    one.start()
    one.settle()
    with (state / "ballast").open("wb", buffering=0) as file, contextlib.suppress(OSError):
        while file.write(bytes(1 << 12)):
            pass

    def fails() -> bool:
        write(tree / f"{len(os.listdir(tree))}.jpg", photograph(60))
        return one.part("ledger")["state"] == "degraded"

    one.wait_until(fails, "the full disk is met")
    part = one.part("ledger")
    assert part["reason"].startswith("can't be written (")
    assert part["cure"].startswith("make room")
    assert one.health()["status"] == "ok"


def test_a_damaged_memory_that_was_set_aside_is_named(service: Callable[..., Checked], tree: Path) -> None:
    one = service(tree)
    write(one.state / "ledger.sqlite", b"no database at all" * 1000)
    one.start()
    part = one.part("ledger")
    (aside,) = one.state.glob("ledger.sqlite.damaged-*")
    assert part["state"] == "ok"
    assert str(aside) in part["reason"]


def test_a_service_that_stops_says_so_and_is_not_ready(
    service: Callable[..., Checked], tree: Path, photograph: Callable[..., bytes]
) -> None:
    one = service(tree)
    one.start()
    one.settle()
    for process in descendants(one.pid):
        os.kill(process, signal.SIGSTOP)
    write(tree / "next.jpg", photograph(150))
    one.wait_until(lambda: one.health()["queue"]["in_flight"], "an image is in work")
    one.signal(signal.SIGTERM)
    one.wait_until(lambda: "service: stops" in one.reasons(), "it says that it stops")
    assert one.part("service")["state"] == "degraded"
    one.signal(signal.SIGTERM)
    assert one.ended() == 0
