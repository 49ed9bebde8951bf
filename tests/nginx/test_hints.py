"""What nginx tells webpd of: exactly the originals that were given for want of a sidecar; and nobody waits for it."""

import json
import re
import socket
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.nginx.server import Nginx, printed
from tests.nginx.test_serving import TAKES, kind, picture
from webpd.nginx.configuration import server_part
from webpd.settings import load

URL = "/upload/resize_cache"


class Receiver:
    """Who listens at the socket."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.bind(str(path))
        self._socket.setblocking(False)

    def told(self) -> list[bytes]:
        """Return the datagrams that came since the last time. nginx has sent them before the next request is read."""
        datagrams = []
        while True:
            try:
                datagrams.append(self._socket.recv(65_536))
            except BlockingIOError:
                return datagrams

    def close(self) -> None:
        self._socket.close()
        self._path.unlink()


@pytest.fixture
def place() -> Iterator[Path]:
    """A folder with a name that is short enough for a socket."""
    with tempfile.TemporaryDirectory(prefix="webpd-hints-") as name:
        yield Path(name)


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    return tmp_path / "www" / "upload" / "resize_cache"


@pytest.fixture
def nginx(tmp_path: Path, tree: Path, place: Path) -> Iterator[Nginx]:
    with Nginx(tmp_path / "nginx", *printed(tree, WEBPD_HINT_SOCKET=str(place / "hint.sock"))) as server:
        yield server


def settled(nginx: Nginx, receiver: Receiver) -> list[bytes]:
    """Return what the receiver was told of all requests so far: nginx logs a request before it begins another."""
    nginx.ask("/end")
    return receiver.told()


def test_a_hint_is_sent_for_an_original_that_a_browser_got_for_want_of_its_sidecar(
    nginx: Nginx, tree: Path, place: Path
) -> None:
    receiver = Receiver(place / "hint.sock")
    picture(tree / "a.jpg", sidecar=False)
    picture(tree / "b.jpg", sidecar=False)
    assert kind(nginx.ask(f"{URL}/a.jpg", **TAKES)) == "original"
    assert nginx.ask(f"{URL}/b.jpg?width=5", **TAKES, range="bytes=0-9").status == 206
    told = settled(nginx, receiver)
    for datagram in told:
        assert re.fullmatch(rb"<190>\w{3} [ \d]\d \d\d:\d\d:\d\d webpd: (\{.*\})", datagram)
    paths = [json.loads(datagram.partition(b"webpd: ")[2]) for datagram in told]
    assert paths == [{"path": f"{URL}/a.jpg"}, {"path": f"{URL}/b.jpg"}]
    receiver.close()


def test_an_image_that_many_ask_for_is_told_once_in_a_while_and_everybody_is_answered(
    nginx: Nginx, tree: Path, place: Path
) -> None:
    receiver = Receiver(place / "hint.sock")
    picture(tree / "a.jpg", sidecar=False)
    picture(tree / "b.jpg", sidecar=False)
    begun = time.monotonic()
    for _ in range(300):
        assert kind(nginx.ask(f"{URL}/a.jpg", **TAKES)) == "original"
    nginx.ask(f"{URL}/b.jpg", **TAKES)
    told = [json.loads(datagram.partition(b"webpd: ")[2])["path"] for datagram in settled(nginx, receiver)]
    assert told.count(f"{URL}/b.jpg") == 1
    assert 1 <= told.count(f"{URL}/a.jpg") <= 1 + (time.monotonic() - begun) / 10
    receiver.close()


def test_no_hint_is_sent_for_anything_else(nginx: Nginx, tree: Path, place: Path) -> None:
    receiver = Receiver(place / "hint.sock")
    picture(tree / "a.jpg", sidecar=False)
    picture(tree / "with.jpg")
    picture(tree / "gone.jpg").unlink()
    picture(tree / "a.gif", sidecar=False)
    picture(tree / ".hidden" / "a.jpg", sidecar=False)
    picture(tree / "webp" / "a.jpg", sidecar=False)
    etag = nginx.ask(f"{URL}/a.jpg").headers["ETag"]
    assert nginx.ask(f"{URL}/a.jpg", accept="image/*").status == 200
    assert nginx.ask(f"{URL}/a.jpg", "HEAD", **TAKES).status == 200
    assert nginx.ask(f"{URL}/a.jpg", "POST", **TAKES).status == 405
    assert nginx.ask(f"{URL}/a.jpg", **TAKES, if_none_match=etag).status == 304
    assert nginx.ask(f"{URL}/a.jpg", **TAKES, range="bytes=9999-").status == 416
    assert kind(nginx.ask(f"{URL}/with.jpg", **TAKES)) == "sidecar"
    for name in ("gone.jpg", "none.jpg", ".hidden/a.jpg", "", "a.gif", "webp/a.jpg"):
        nginx.ask(f"{URL}/{name}", **TAKES)
    assert settled(nginx, receiver) == []
    receiver.close()


@pytest.mark.parametrize(
    "name", ['qu"ote.jpg', "back\\slash.jpg", "line\nbreak.jpg", "фото.jpg", "a b.jpg", "a%2Fb.jpg"]
)
def test_the_path_of_a_hint_is_decoded_and_json(nginx: Nginx, tree: Path, place: Path, name: str) -> None:
    receiver = Receiver(place / "hint.sock")
    picture(tree / name, sidecar=False)
    assert nginx.ask(f"{URL}/" + "".join(f"%{byte:02X}" for byte in name.encode()), **TAKES).status == 200
    (datagram,) = settled(nginx, receiver)
    assert json.loads(datagram.partition(b"webpd: ")[2]) == {"path": f"{URL}/{name}"}
    receiver.close()


def test_while_the_service_is_away_requests_are_answered_and_when_it_is_back_it_is_told(
    nginx: Nginx, tree: Path, place: Path
) -> None:
    numbers = iter(range(1000))

    def ask() -> None:
        name = f"{next(numbers)}.jpg"
        picture(tree / name, sidecar=False)
        assert kind(nginx.ask(f"{URL}/{name}", **TAKES)) == "original"

    for _ in range(3):
        for _ in range(20):
            ask()
        receiver = Receiver(place / "hint.sock")
        ask()  # nginx may meet the old socket once more
        ask()
        assert settled(nginx, receiver)
        receiver.close()


def test_a_service_that_hangs_keeps_nobody_waiting(nginx: Nginx, tree: Path, place: Path) -> None:
    queue = int(Path("/proc/sys/net/unix/max_dgram_qlen").read_text("ascii"))
    receiver = Receiver(place / "hint.sock")  # and reads nothing: once its queue is full, who waits does so for ever
    requests = queue + 200
    for number in range(requests + 1):
        picture(tree / f"{number}.jpg", sidecar=False)
    for number in range(requests):
        assert kind(nginx.ask(f"{URL}/{number}.jpg", **TAKES)) == "original"
    assert 0 < len(settled(nginx, receiver)) < requests
    assert kind(nginx.ask(f"{URL}/{requests}.jpg", **TAKES)) == "original"
    assert settled(nginx, receiver)
    receiver.close()


def test_the_log_of_the_site_has_every_request_once(tmp_path: Path, tree: Path, place: Path) -> None:
    settings = load({}, {"WEBPD_HINT_SOCKET": str(place / "hint.sock")}).settings
    http, _ = printed(tree)
    log = tmp_path / "nginx" / "access.log"  # where the server's own access_log writes
    part = server_part(settings, [str(tree)], socket=settings.hint_socket, access_log=str(log))
    picture(tree / "a.jpg", sidecar=False)
    picture(tree / "with.jpg")
    asked = [f"{URL}/{name}" for name in ("a.jpg", "with.jpg", "none.jpg", "a.txt")]
    with Nginx(tmp_path / "nginx", http, part) as nginx:
        for path in asked:
            nginx.ask(path, **TAKES)
            nginx.ask(path)
        nginx.ask("/end")
        lines = re.findall(r'"GET (\S+) HTTP', log.read_text("utf-8"))
    assert [path for path in lines if path.startswith(URL)] == [path for path in asked for _ in range(2)]
