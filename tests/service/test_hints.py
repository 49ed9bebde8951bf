"""Whoever is told of an image by a hint need not find it: it is converted at once, and a false hint costs nothing.

Polling is so slow here that nothing but a hint brings a sidecar.
"""

import contextlib
import http.client
import json
import os
import signal
import socket
import stat
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import write
from tests.lab import SshfsLab, sshfs_lab
from tests.pictures import RGB, png
from tests.redis.server import RedisServer
from tests.service.driver import Service, shows
from tests.service.hosts import Hosts

TOKEN = "0123456789abcdef.hint"  # noqa: S105 - of the tests
SLOW = {"WEBPD_POLL_INTERVAL": "1h", "WEBPD_WATCH": "poll", "WEBPD_TOKEN": TOKEN, "WEBPD_SETTLE": "0.2"}
BELOW = "/upload/resize_cache"


def post(one: Service, *paths: str) -> tuple[int, str]:
    """Give hints as Bitrix does, and return the answer."""
    connection = http.client.HTTPConnection("127.0.0.1", one.health_port, timeout=60)
    headers = {"Authorization": f"Bearer {TOKEN}", "Content-Type": "application/json", "Host": "cdn.internal"}
    with contextlib.closing(connection):
        connection.request("POST", "/hint", json.dumps({"paths": paths}), headers)
        answer = connection.getresponse()
        return answer.status, answer.read().decode()


def part(one: Service) -> Any:
    (found,) = [part for part in one.health()["parts"] if part["part"] == "hints"]
    return found


class Hinting:
    """A service over roots, done with its first pass, and those who give it hints: Bitrix, and nginx by a socket."""

    def __init__(self, folder: Path, socket_: Path, *roots: Path, **environment: str) -> None:
        self.root = roots[0]
        self.socket = socket_
        self.service = Service(folder, *roots, **SLOW, **{"WEBPD_HINT_SOCKET": str(socket_), **environment})
        self._before: dict[str, Counter[str]] = {}

    def start(self) -> None:
        self.service.start()
        self.service.wait_until(self._rests, "the first pass")
        self.forget()

    def post(self, *paths: str) -> int:
        """Give hints as Bitrix does, and return how many were taken."""
        status, answer = post(self.service, *paths)
        assert status == 202
        taken: int = json.loads(answer)["taken"]
        return taken

    def tell(self, *datagrams: bytes) -> None:
        """Send all of them to the socket, waiting where there is no room."""
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as caller:
            caller.connect(str(self.socket))
            for one in datagrams:
                caller.send(one)

    def ask(self, *paths: str) -> None:
        """Have visitors ask for these: log_format … escape=json leaves bytes that are no ASCII as they are."""
        self.tell(*(b'<190>Nov 24 17:22:24 webpd: {"path": "' + os.fsencode(path) + b'"}' for path in paths))

    def counted(self, source: str) -> Counter[str]:
        """Return how many hints came to what, since the start of the test."""
        return self._counted(source) - self._before[source]

    def forget(self) -> None:
        self._before = {source: self._counted(source) for source in ("http", "nginx")}

    def _counted(self, source: str) -> Counter[str]:
        samples = self.service.metrics()
        results = ("taken", "known", "refused", "dropped")
        return Counter(
            {name: int(samples[f'webpd_hints_total{{result="{name}",source="{source}"}}']) for name in results}
        )

    def _rests(self) -> bool:
        health = self.service.health()
        return all(root["cycles"] for root in health["roots"]) and not any(health["queue"].values())


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[..., Hinting]]:
    """Return a function that starts a service over roots, with environment variables by keyword; all at one socket."""
    made: list[Hinting] = []

    def begin(*roots: Path, **environment: str) -> Hinting:
        one = Hinting(tmp_path / f"service{len(made)}", tmp_path / "run" / "hint.sock", *roots, **environment)
        made.append(one)
        one.start()
        return one

    yield begin
    for one in made:
        one.service.close()


@pytest.fixture
def tree(tmp_path: Path, photograph: Callable[..., bytes]) -> Path:
    """A root with an image, as a site has it."""
    root = tmp_path / "site" / BELOW[1:]
    write(root / "iblock" / "first.jpg", photograph(100))
    return root


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory, photograph: Callable[..., bytes]) -> Iterator[Hinting]:
    folder = tmp_path_factory.mktemp("hints")
    root = folder / "site" / BELOW[1:]
    write(root / "iblock" / "first.jpg", photograph(100))
    write(root / "kept" / "dot.png", png((1, 1), RGB, b"dot"))
    one = Hinting(folder, folder / "hint.sock", root)
    try:
        one.start()
        yield one
    finally:
        one.service.close()


@pytest.fixture
def site(running: Hinting) -> Hinting:
    """One service for all tests that leave it well."""
    running.forget()
    return running


def test_new_images_are_converted_as_soon_as_they_are_told_of(site: Hinting, photograph: Callable[..., bytes]) -> None:
    converted = 'webpd_images_total{format="jpeg",lane="urgent",outcome="converted"}'
    delivered = 'webpd_delivery_seconds_count{lane="urgent"}'
    before = Counter(site.service.metrics())
    names = ["new/folder/by url.jpg", "new/by file.PNG", "new/\udcd4\udcee.jpg", "iblock/картинка.jpg"]
    for name in names:
        write(site.root / name, photograph(120, format_="PNG" if name.endswith("PNG") else "JPEG"))
    urls = [f"{BELOW}/{name}" for name in names]
    assert site.post(urls[0], str(site.root / names[1]), urls[2]) == 3
    site.ask(urls[3])
    site.service.wait_until(lambda: all(shows(site.root / name) for name in names), "all of them")
    site.service.wait_until(lambda: site.service.metrics()[delivered] == before[delivered] + 4, "all are counted")
    assert (site.counted("http"), site.counted("nginx")) == ({"taken": 3}, {"taken": 1})
    assert site.service.metrics()[converted] == before[converted] + 3
    assert site.service.root()["cycles"] == 1


def test_a_picture_still_being_written_has_the_time_to_settle(site: Hinting, photograph: Callable[..., bytes]) -> None:
    picture = write(site.root / "two phases.jpg", photograph(300))
    assert site.post(f"{BELOW}/two phases.jpg") == 1
    picture.write_bytes(photograph(150, "coffee.png"))  # Bitrix' second phase
    site.service.wait_until(lambda: shows(picture), "the picture as it is in the end")
    assert site.service.outcomes()["failed"] == 0


def test_what_is_no_original_below_a_root_is_refused(
    site: Hinting, tmp_path: Path, photograph: Callable[..., bytes]
) -> None:
    above = site.root.parent.parent
    for place in (above, site.root / ".hidden", site.root / "webp", tmp_path):
        write(place / "secret.jpg", photograph())
    (site.root / "link").symlink_to(tmp_path)
    (site.root / "link.jpg").symlink_to(tmp_path / "secret.jpg")
    wrong = [
        "/secret.jpg", str(above / "secret.jpg"), f"{BELOW}/../../secret.jpg", f"{BELOW}//iblock/first.jpg",
        f"{BELOW}/.hidden/secret.jpg", f"{BELOW}/webp/secret.jpg", f"{BELOW}/link/secret.jpg", f"{BELOW}/link.jpg",
        f"{BELOW}/iblock/first.jpg.webp", f"{BELOW}/iblock/never.jpg", f"{BELOW}/iblock", BELOW, "", "first.jpg",
        f"{BELOW}/\0.jpg", f"{BELOW}/{'x' * 5000}.jpg", f"{BELOW}/{'x' * 300}.jpg", f"{BELOW}/\ud800.jpg",
    ]  # fmt: skip
    site.post(*wrong)
    site.service.wait_until(lambda: site.counted("http").total() == len(wrong), "all are answered")
    assert site.counted("http") == {"refused": len(wrong)}
    foreign = [b"", b"<190>", b"\xff" * 100, b'{"path": "/a.jpg"}', b"<1>webpd: {", b'<1>webpd: {"path": 1}']
    foreign += [b'<1>webpd: {"path": "/upload/resize_cache/iblock/fir', b"<1>webpd: " + b'{"a":' * 5000]
    site.tell(*foreign)
    site.service.wait_until(lambda: site.counted("nginx") == {"refused": len(foreign)}, "foreign datagrams are counted")
    assert not [*above.rglob("secret.jpg.webp"), *tmp_path.rglob("*.webp")]
    assert not site.service.said("error")


def test_a_picture_that_is_asked_for_again_and_again_is_looked_at_once(
    site: Hinting, photograph: Callable[..., bytes]
) -> None:
    write(site.root / "hot.jpg", photograph())
    site.ask(*[f"{BELOW}/hot.jpg"] * 500)
    site.service.wait_until(lambda: site.counted("nginx").total() == 500, "all are answered")
    assert site.counted("nginx") == {"taken": 1, "known": 499}
    site.service.wait_until(lambda: shows(site.root / "hot.jpg"))


def test_a_kept_original_is_answered_from_memory_alone(site: Hinting) -> None:
    (site.root / "kept" / "dot.png").unlink()  # so a look would find nothing
    site.ask(f"{BELOW}/kept/dot.png")
    site.service.wait_until(lambda: site.counted("nginx"), "it is answered")
    assert site.counted("nginx") == {"known": 1}


def test_a_deleted_image_has_its_folder_looked_at(site: Hinting, photograph: Callable[..., bytes]) -> None:
    gone = write(site.root / "gone" / "photo.jpg", photograph())
    site.post(str(gone))
    site.service.wait_until(lambda: shows(gone), "its sidecar")
    listed = site.service.root()["listed"]
    gone.unlink()
    assert site.post(f"{BELOW}/gone/photo.jpg") == 1
    site.service.wait_until(
        lambda: "gone/photo.jpg.webp" in site.service.get("/leftovers?kind=orphans")[1], "it counts as an orphan"
    )
    assert site.service.root()["listed"] == listed + 1
    assert site.counted("http") == {"taken": 2}
    assert Path(f"{gone}.webp").exists()  # for as long as WEBPD_PRUNE_AFTER says


def test_health_is_answered_while_thousands_of_datagrams_come_in(site: Hinting, prove: bool) -> None:
    count = 200_000 if prove else 5_000
    flood = (
        "import socket, sys\n"
        "caller = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)\n"
        "caller.connect(sys.argv[1])\n"
        "for number in range(int(sys.argv[2])):\n"
        '    caller.send(b\'<190>Nov 24 17:22:24 webpd: {"path": "/upload/resize_cache/iblock/%d.jpg"}\' % number)\n'
    )
    command = [sys.executable, "-I", "-S", "-c", flood, str(site.socket), str(count)]
    with subprocess.Popen(command) as sender:
        answers = 0
        while sender.poll() is None:
            assert site.service.alive()
            assert site.service.health()["status"] == "ok"
            answers += 1
        assert sender.returncode == 0
    assert answers > 5
    site.service.wait_until(lambda: site.counted("nginx").total() == count, "each is counted")
    assert site.service.threads() < 40


# On a mount that sends no events and answers from its cache


def test_a_thumbnail_written_at_the_origin_is_there_long_before_the_mount_is_polled(
    tmp_path: Path, start: Callable[..., Hinting], photograph: Callable[..., bytes]
) -> None:
    with sshfs_lab(tmp_path / "lab", options=("ServerAliveInterval=15",), count=True) as lab:  # caches for 20 s
        for number in range(300):
            write(lab.origin / "iblock" / f"{number}.jpg", b"", mtime=1_500_000_000)
        one = start(lab.mnt, WEBPD_DOCUMENT_ROOT=str(tmp_path / "lab"))
        os.listdir(lab.mnt / "iblock")  # what the mount has in its cache from now on
        log, before = tmp_path / "lab" / "ssh" / "sftp.log", lab.calls()
        assert one.post("/mnt/late.jpg", "/mnt/never.jpg") == 2
        one.service.wait_until(lambda: "/late.jpg" in log.read_text("utf-8", "replace"), "the first look, in vain")
        names = ("iblock/new.jpg", "new/folder/new.jpg", "late.jpg")
        for name in names:
            write(lab.origin / name, photograph(120))
        assert one.post("/mnt/iblock/new.jpg", "/mnt/new/folder/new.jpg") == 2
        one.service.wait_until(lambda: all(shows(lab.origin / name) for name in names), "the sidecars", 30)
        assert one.service.root()["cycles"] == 1
        assert lab.calls()["opendir"] == before["opendir"]  # no folder was listed for it
        assert one.counted("http") == {"taken": 3}  # the last one is still looked for


def test_a_mount_that_hangs_drops_its_hints_and_no_other_root_waits(
    lab: SshfsLab, tree: Path, start: Callable[..., Hinting], photograph: Callable[..., bytes]
) -> None:
    write(lab.origin / "photo.jpg", photograph())
    one = start(tree, lab.mnt)
    service = one.service
    threads = service.threads()
    lab.stop()
    try:
        one.ask(*(f"{lab.mnt}/new/{number}.jpg" for number in range(1500)))
        service.wait_until(lambda: one.counted("nginx")["dropped"] >= 400, "what has no room is dropped")
        new = write(tree / "new.jpg", photograph())
        one.ask(f"{BELOW}/new.jpg")
        service.wait_until(lambda: shows(new), "another root goes on")
        service.wait_until(lambda: service.health()["status"] == "degraded", "the mount is seen to hang")
        dropped = one.counted("nginx")["dropped"]
        one.ask(*(f"{lab.mnt}/later/{number}.jpg" for number in range(100)))
        service.wait_until(lambda: one.counted("nginx")["dropped"] == dropped + 100, "a mount that hangs is not asked")
        assert service.threads() <= threads + 20
    finally:
        lab.cont()
    late = write(lab.origin / "late.jpg", photograph())
    service.wait_until(lambda: one.post(str(lab.mnt / "late.jpg")), "once it is well, its hints are taken again")
    service.wait_until(lambda: shows(late))


# Several hosts


def test_a_hint_to_the_host_that_watches_is_worked_on_by_another(
    tmp_path: Path, tree: Path, photograph: Callable[..., bytes]
) -> None:
    with RedisServer(tmp_path / "queue", "queue.conf") as queue:
        hosts = Hosts(tmp_path / "hosts", tree, queue, **SLOW)
        try:
            watch, work = hosts.watch(), hosts.work()
            hosts.all_ready()
            watch.wait_until(lambda: shows(tree / "iblock" / "first.jpg"))
            new = write(tree / "new.jpg", photograph())
            assert post(watch, f"{BELOW}/new.jpg") == (202, '{"taken":1}')
            watch.wait_until(lambda: shows(new))
            assert work.metrics()['webpd_images_total{format="jpeg",lane="urgent",outcome="converted"}'] == 1
            status, why = post(work, f"{BELOW}/new.jpg")
            assert (status, part(work)["state"]) == (409, "off")
            assert "tell the one that has the role watch" in why
        finally:
            hosts.close()


# The socket


def test_the_socket_is_open_to_all_replaces_a_dead_one_and_goes_with_the_service(
    tmp_path: Path, tree: Path, start: Callable[..., Hinting]
) -> None:
    path = tmp_path / "run" / "hint.sock"
    one = start(tree)
    one.service.kill()
    assert path.is_socket()
    one.start()
    assert part(one.service)["state"] == "ok"
    assert stat.S_IMODE(path.stat().st_mode) == 0o666
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o755
    running = len(one.service.said("running"))
    one.service.signal(signal.SIGHUP)
    one.service.wait_until(lambda: len(one.service.said("running")) > running and one.service.ready(), "it begins anew")
    one.forget()
    one.ask(f"{BELOW}/never.jpg")
    one.service.wait_until(lambda: one.counted("nginx") == {"refused": 1}, "it hears again")
    assert one.service.stop() == 0
    assert not path.exists()


def test_the_socket_of_a_living_process_is_left_alone_and_its_want_hinders_nothing(
    site: Hinting, tree: Path, start: Callable[..., Hinting], photograph: Callable[..., bytes]
) -> None:
    other = start(tree, WEBPD_HINT_SOCKET=str(site.socket))
    assert part(other.service)["state"] == "degraded"
    assert part(other.service)["reason"] == f"{site.socket}: another process listens there"
    assert "WEBPD_HINT_SOCKET" in part(other.service)["cure"]
    assert other.service.ready()
    assert len(other.service.said("nginx can't tell", str(site.socket))) == 1
    new = write(tree / "new.jpg", photograph())
    assert other.post(str(new)) == 1
    other.service.wait_until(lambda: shows(new), "hints by HTTP go on")
    assert other.service.stop() == 0
    site.ask(f"{BELOW}/never.jpg")
    site.service.wait_until(lambda: site.counted("nginx") == {"refused": 1}, "the first one still hears")
