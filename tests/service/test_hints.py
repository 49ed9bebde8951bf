"""Whoever is told of an image by a hint need not find it: it is converted at once, and a false hint costs nothing.

Polling is so slow here that nothing but a hint brings a sidecar.
"""

import contextlib
import http.client
import json
import os
import shutil
import signal
import socket
import stat
import subprocess
import sys
from collections import Counter
from collections.abc import Callable
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
UNCACHED = ("dcache_timeout=0", "attr_timeout=0", "entry_timeout=0", "ServerAliveInterval=15")
SLOW = {"WEBPD_POLL_INTERVAL": "1h", "WEBPD_WATCH": "poll", "WEBPD_TOKEN": TOKEN, "WEBPD_SETTLE": "0.2"}


def post(one: Service, *paths: str) -> int:
    """Give hints as Bitrix does, and return how many were taken."""
    connection = http.client.HTTPConnection("127.0.0.1", one.health_port, timeout=60)
    headers = {"Authorization": f"Bearer {TOKEN}", "Content-Type": "application/json", "Host": "cdn.internal"}
    with contextlib.closing(connection):
        connection.request("POST", "/hint", json.dumps({"paths": paths}), headers)
        answer = connection.getresponse()
        assert answer.status == 202
        taken: int = json.loads(answer.read())["taken"]
        return taken


def datagram(path: bytes) -> bytes:
    """Return what nginx sends: log_format … escape=json leaves bytes that are no ASCII as they are."""
    return b'<190>Nov 24 17:22:24 webpd: {"path": "' + path + b'"}'


class Nginx:
    """Tells a service by its socket of what visitors ask for."""

    def __init__(self, one: Service, path: Path) -> None:
        self.path = path
        self._one = one

    def tell(self, *datagrams: bytes) -> None:
        """Send all of them, waiting where there is no room."""
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as caller:
            caller.connect(str(self.path))
            for one in datagrams:
                caller.send(one)

    def ask(self, *paths: str | bytes) -> None:
        self.tell(*(datagram(os.fsencode(path)) for path in paths))

    def counted(self) -> Counter[str]:
        return counted(self._one, "nginx")


def counted(one: Service, source: str) -> Counter[str]:
    """Return how many hints came to what."""
    samples = one.metrics()
    results = ("taken", "known", "refused", "dropped")
    return +Counter({name: int(samples[f'webpd_hints_total{{result="{name}",source="{source}"}}']) for name in results})


def part(one: Service) -> Any:
    (found,) = [part for part in one.health()["parts"] if part["part"] == "hints"]
    return found


@pytest.fixture
def tree(tmp_path: Path, photograph: Callable[..., bytes]) -> Path:
    """A root with an image, as a site has it at /upload/resize_cache."""
    root = tmp_path / "site" / "upload" / "resize_cache"
    write(root / "iblock" / "first.jpg", photograph(100))
    return root


@pytest.fixture
def hinted(service: Callable[..., Service], tmp_path: Path) -> Callable[..., tuple[Service, Nginx]]:
    """Return a function that starts a service over roots, and is done with its first pass."""

    def start(*roots: Path, **environment: str) -> tuple[Service, Nginx]:
        path = tmp_path / "run" / "hint.sock"
        one = service(*roots, **SLOW, **{"WEBPD_HINT_SOCKET": str(path), **environment})
        one.start()
        one.wait_until(lambda: rests(one), "the first pass")
        return one, Nginx(one, path)

    return start


def rests(one: Service) -> bool:
    """Tell whether its first pass is over, and all is done that it found."""
    health = one.health()
    return all(root["cycles"] for root in health["roots"]) and not any(health["queue"].values())


def test_new_images_are_converted_as_soon_as_they_are_told_of(
    tree: Path, hinted: Callable[..., tuple[Service, Nginx]], photograph: Callable[..., bytes]
) -> None:
    one, nginx = hinted(tree)
    names = ["new/folder/by url.jpg", "new/by file.PNG", "new/\udcd4\udcee.jpg", "iblock/картинка.jpg"]
    for name in names:
        write(tree / name, photograph(120, format_="PNG" if name.endswith("PNG") else "JPEG"))
    urls = [f"/upload/resize_cache/{name}" for name in names]
    assert post(one, urls[0], str(tree / names[1]), urls[2]) == 3
    nginx.ask(urls[3])
    one.wait_until(lambda: all(shows(tree / name) for name in names), "all of them")
    assert (counted(one, "http"), nginx.counted()) == ({"taken": 3}, {"taken": 1})
    assert one.metrics()['webpd_images_total{format="jpeg",lane="urgent",outcome="converted"}'] == 3
    assert one.metrics()['webpd_delivery_seconds_count{lane="urgent"}'] == 4
    assert one.root()["cycles"] == 1


def test_a_picture_still_being_written_has_the_time_to_settle(
    tree: Path, hinted: Callable[..., tuple[Service, Nginx]], photograph: Callable[..., bytes]
) -> None:
    one, _ = hinted(tree)
    picture = write(tree / "new.jpg", photograph(300))
    assert post(one, "/upload/resize_cache/new.jpg") == 1
    picture.write_bytes(photograph(150, "coffee.png"))  # Bitrix' second phase
    one.wait_until(lambda: shows(picture), "the picture as it is in the end")
    assert one.outcomes()["failed"] == 0


def test_what_is_no_original_below_a_root_is_refused(
    tree: Path, tmp_path: Path, hinted: Callable[..., tuple[Service, Nginx]], photograph: Callable[..., bytes]
) -> None:
    one, nginx = hinted(tree)
    for place in (tmp_path / "site", tree / ".hidden", tree / "webp", tmp_path / "outside"):
        write(place / "photo.jpg", photograph())
    (tree / "link").symlink_to(tmp_path / "outside")
    (tree / "link.jpg").symlink_to(tmp_path / "outside" / "photo.jpg")
    below = "/upload/resize_cache"
    wrong = [
        "/photo.jpg", str(tmp_path / "site" / "photo.jpg"), f"{below}/../../photo.jpg", f"{below}//photo.jpg",
        f"{below}/.hidden/photo.jpg", f"{below}/webp/photo.jpg", f"{below}/link/photo.jpg", f"{below}/link.jpg",
        f"{below}/iblock/first.jpg.webp", f"{below}/iblock/never.jpg", f"{below}/iblock", below, "", "first.jpg",
        f"{below}/\0.jpg", f"{below}/{'x' * 5000}.jpg", f"{below}/{'x' * 300}.jpg", f"{below}/\ud800.jpg",
    ]  # fmt: skip
    post(one, *wrong)
    one.wait_until(lambda: counted(one, "http").total() == len(wrong), "all are answered")
    assert counted(one, "http") == {"refused": len(wrong)}
    foreign = [b"", b"<190>", b"\xff" * 100, b'{"path": "/a.jpg"}', b"<1>webpd: {", b'<1>webpd: {"path": 1}']
    foreign += [b'<1>webpd: {"path": "/upload/resize_cache/iblock/fir', b"<1>webpd: " + b'{"a":' * 5000]
    nginx.tell(*foreign)
    one.wait_until(lambda: nginx.counted() == {"refused": len(foreign)}, "foreign datagrams are counted")
    assert not [*tmp_path.rglob("photo.jpg.webp")]
    assert not one.said("error")


def test_a_picture_that_is_asked_for_again_and_again_is_looked_at_once(
    tree: Path, hinted: Callable[..., tuple[Service, Nginx]], photograph: Callable[..., bytes]
) -> None:
    one, nginx = hinted(tree)
    write(tree / "hot.jpg", photograph())
    nginx.ask(*["/upload/resize_cache/hot.jpg"] * 500)
    one.wait_until(lambda: nginx.counted().total() == 500, "all are answered")
    assert nginx.counted() == {"taken": 1, "known": 499}
    one.wait_until(lambda: shows(tree / "hot.jpg"))


def test_a_deleted_image_has_its_folder_looked_at(tree: Path, hinted: Callable[..., tuple[Service, Nginx]]) -> None:
    one, _ = hinted(tree)
    listed = one.root()["listed"]
    (tree / "iblock" / "first.jpg").unlink()
    assert post(one, "/upload/resize_cache/iblock/first.jpg") == 1
    one.wait_until(lambda: "iblock/first.jpg.webp" in one.get("/leftovers?kind=orphans")[1], "it counts as an orphan")
    assert one.root()["listed"] == listed + 1
    assert counted(one, "http") == {"taken": 1}
    assert (tree / "iblock" / "first.jpg.webp").exists()  # for as long as WEBPD_PRUNE_AFTER says


def test_health_is_answered_while_thousands_of_datagrams_come_in(
    tree: Path, hinted: Callable[..., tuple[Service, Nginx]], prove: bool
) -> None:
    count = 200_000 if prove else 10_000
    one, nginx = hinted(tree)
    flood = (
        "import socket, sys\n"
        "caller = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)\n"
        "caller.connect(sys.argv[1])\n"
        "for number in range(int(sys.argv[2])):\n"
        '    caller.send(b\'<190>Nov 24 17:22:24 webpd: {"path": "/upload/resize_cache/iblock/%d.jpg"}\' % number)\n'
    )
    with subprocess.Popen([sys.executable, "-c", flood, str(nginx.path), str(count)]) as sender:
        answers = 0
        while sender.poll() is None:
            assert one.alive()
            assert one.health()["status"] == "ok"
            answers += 1
        assert sender.returncode == 0
    assert answers > 10
    one.wait_until(lambda: nginx.counted().total() == count, "each is counted")
    assert one.threads() < 40


# On a mount that sends no events and answers from its cache


def test_a_thumbnail_written_at_the_origin_is_there_long_before_the_mount_is_polled(
    tmp_path: Path, hinted: Callable[..., tuple[Service, Nginx]], photograph: Callable[..., bytes]
) -> None:
    with sshfs_lab(tmp_path / "lab", options=("ServerAliveInterval=15",), count=True) as lab:  # caches for 20 s
        for number in range(300):
            write(lab.origin / "iblock" / f"{number}.jpg", b"", mtime=1_500_000_000)
        one, _ = hinted(lab.mnt, WEBPD_DOCUMENT_ROOT=str(tmp_path / "lab"))
        os.listdir(lab.mnt / "iblock")  # what the mount has in its cache from now on
        before = lab.calls()
        names = ("iblock/new.jpg", "new/folder/new.jpg")
        for name in names:
            write(lab.origin / name, photograph(120))
        assert post(one, *(f"/mnt/{name}" for name in names)) == 2
        one.wait_until(lambda: all((lab.origin / f"{name}.webp").exists() for name in names), "the sidecars", 30)
        assert all(shows(lab.origin / name) for name in names)
        assert one.root()["cycles"] == 1
        assert lab.calls()["opendir"] == before["opendir"]  # no folder was listed for it


def test_a_kept_original_is_answered_from_memory_alone(
    tmp_path: Path, hinted: Callable[..., tuple[Service, Nginx]], photograph: Callable[..., bytes]
) -> None:
    with sshfs_lab(tmp_path / "lab", options=UNCACHED, count=True) as lab:
        write(lab.origin / "kept.png", png((1, 1), RGB, b"dot"))
        write(lab.origin / "photo.jpg", photograph())
        one, nginx = hinted(lab.mnt, WEBPD_DOCUMENT_ROOT=str(tmp_path / "lab"))
        assert one.outcomes()["kept_original"] == 1
        looked = named(lab, "kept.png")
        assert looked
        nginx.ask("/mnt/kept.png", "/mnt/photo.jpg")
        one.wait_until(lambda: nginx.counted() == {"known": 2}, "both need nothing")
        assert named(lab, "kept.png") == looked
        assert named(lab, "photo.jpg") > 0


def named(lab: SshfsLab, name: str) -> int:
    """Return how often the server was asked about a file."""
    return (lab.mnt.parent / "ssh" / "sftp.log").read_text("utf-8", "replace").count(f"/{name}")


def test_what_the_mount_does_not_show_yet_is_looked_at_again(
    tmp_path: Path, hinted: Callable[..., tuple[Service, Nginx]], photograph: Callable[..., bytes]
) -> None:
    with sshfs_lab(tmp_path / "lab", options=("ServerAliveInterval=15",), count=True) as lab:
        write(lab.origin / "photo.jpg", photograph())
        one, _ = hinted(lab.mnt, WEBPD_DOCUMENT_ROOT=str(tmp_path / "lab"))
        assert post(one, "/mnt/late.jpg", "/mnt/never.jpg") == 2
        one.wait_until(lambda: named(lab, "late.jpg"), "the first look, in vain")
        write(lab.origin / "late.jpg", photograph())
        one.wait_until(lambda: shows(lab.origin / "late.jpg"), "it is seen when it is there")
        assert counted(one, "http") == {"taken": 1}


def test_a_mount_that_hangs_drops_its_hints_and_no_other_root_waits(
    lab: SshfsLab, tree: Path, hinted: Callable[..., tuple[Service, Nginx]], photograph: Callable[..., bytes]
) -> None:
    write(lab.origin / "photo.jpg", photograph())
    one, nginx = hinted(tree, lab.mnt)
    threads = one.threads()
    lab.stop()
    try:
        nginx.ask(*(f"{lab.mnt}/new/{number}.jpg" for number in range(1500)))
        one.wait_until(lambda: nginx.counted()["dropped"] >= 400, "what has no room is dropped")
        new = write(tree / "new.jpg", photograph())
        nginx.ask("/upload/resize_cache/new.jpg")
        one.wait_until(lambda: shows(new), "another root goes on")
        one.wait_until(lambda: one.health()["status"] == "degraded", "the mount is seen to hang")
        dropped = nginx.counted()["dropped"]
        nginx.ask(*(f"{lab.mnt}/later/{number}.jpg" for number in range(100)))
        one.wait_until(lambda: nginx.counted()["dropped"] == dropped + 100, "a mount that hangs is not asked")
        assert one.threads() <= threads + 20
    finally:
        lab.cont()
    one.wait_until(lambda: one.health()["status"] == "ok", "it is well again")
    late = write(lab.origin / "late.jpg", photograph())
    one.wait_until(lambda: post(one, str(lab.mnt / "late.jpg")), "its hints are taken again")
    one.wait_until(lambda: shows(late))


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
            assert post(watch, "/upload/resize_cache/new.jpg") == 1
            watch.wait_until(lambda: shows(new))
            assert work.metrics()['webpd_images_total{format="jpeg",lane="urgent",outcome="converted"}'] == 1
            with pytest.raises(AssertionError):
                post(work, "/upload/resize_cache/new.jpg")
        finally:
            hosts.close()


# The socket


def test_the_socket_is_open_to_all_and_goes_with_the_service(
    tree: Path, hinted: Callable[..., tuple[Service, Nginx]], photograph: Callable[..., bytes]
) -> None:
    one, nginx = hinted(tree)
    assert stat.S_IMODE(nginx.path.stat().st_mode) == 0o666
    assert stat.S_IMODE(nginx.path.parent.stat().st_mode) == 0o755
    assert part(one)["state"] == "ok"
    one.signal(signal.SIGHUP)
    one.wait_until(lambda: len(one.said("running")) == 2 and one.ready(), "it has begun anew")
    write(tree / "new.jpg", photograph())
    nginx.ask("/upload/resize_cache/new.jpg")
    one.wait_until(lambda: nginx.counted() == {"taken": 1})
    assert one.stop() == 0
    assert not nginx.path.exists()


def test_the_socket_of_a_dead_process_is_replaced_and_that_of_a_living_one_is_not(
    tree: Path, tmp_path: Path, hinted: Callable[..., tuple[Service, Nginx]], photograph: Callable[..., bytes]
) -> None:
    one, nginx = hinted(tree)
    one.kill()
    assert nginx.path.is_socket()
    one.start()
    assert part(one)["state"] == "ok"
    other_tree = shutil.copytree(tree, tmp_path / "other")
    other, _ = hinted(other_tree)
    assert part(other)["state"] == "degraded"
    assert part(other)["reason"] == f"{nginx.path}: another process listens there"
    assert "WEBPD_HINT_SOCKET" in part(other)["cure"]
    assert other.ready()
    assert len(other.said("nginx can't tell", str(nginx.path))) == 1
    assert other.stop() == 0
    write(tree / "new.jpg", photograph())
    nginx.ask("/upload/resize_cache/new.jpg")
    one.wait_until(lambda: shows(tree / "new.jpg"), "the first one still hears")


def test_a_socket_that_is_not_to_be_had_hinders_nothing(
    tree: Path, tmp_path: Path, hinted: Callable[..., tuple[Service, Nginx]], photograph: Callable[..., bytes]
) -> None:
    one, _ = hinted(tree, WEBPD_HINT_SOCKET="/proc/webpd/hint.sock")
    assert part(one)["state"] == "degraded"
    assert "/proc/webpd/hint.sock: can't listen there" in part(one)["reason"]
    assert one.ready()
    write(tree / "new.jpg", photograph())
    assert post(one, "/upload/resize_cache/new.jpg") == 1
    one.wait_until(lambda: shows(tree / "new.jpg"), "hints by HTTP go on")


def test_a_single_pass_has_none(tree: Path, service: Callable[..., Service], tmp_path: Path) -> None:
    path = tmp_path / "run" / "hint.sock"
    once = service(tree, **SLOW, WEBPD_HINT_SOCKET=str(path))
    once.launch("--once")
    assert once.ended() == 0
    assert not path.parent.exists()
