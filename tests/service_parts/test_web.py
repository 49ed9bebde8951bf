"""What the service answers over HTTP, asked over real sockets."""

import asyncio
import http.client
import json
import os
import signal
import socket
import stat
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import pytest
from prometheus_client.parser import text_string_to_metric_families

from tests.conftest import as_nobody
from tests.lab import wait_for
from webpd.errors import UnfitError
from webpd.model import Job, Outcome, Result
from webpd.telemetry.metrics import Metrics
from webpd.web import client
from webpd.web.app import control_app, health_app, metrics_app
from webpd.web.server import listen_unix, serving, serving_unix

T = TypeVar("T")


class Subject:
    """A service in this state of health."""

    def __init__(self, *, ready: bool) -> None:
        self.hindrances = [] if ready else ["root /srv/Ordner/ü: mount hung", "codecs: start"]
        self.root = "/srv/Ordner/ü"

    def health(self) -> Mapping[str, Any]:
        return {"status": "degraded" if self.hindrances else "ok", "roots": [{"root": self.root}]}


class Answer:
    """What one request was answered, once anybody answers there."""

    def __init__(self, address: tuple[str, int], path: str, method: str) -> None:
        connection = http.client.HTTPConnection(*address, timeout=30)
        wait_for(lambda: _connects(connection), f"somebody listens on {address}")
        connection.request(method, path)
        answer = connection.getresponse()
        self.status, self.body = answer.status, answer.read()
        self.headers = {name.lower(): value for name, value in answer.getheaders()}
        connection.close()


def _connects(connection: http.client.HTTPConnection) -> bool:
    try:
        connection.connect()
    except ConnectionRefusedError:
        return False
    return True


def ask(app: Any, path: str, method: str = "GET", host: str = "127.0.0.1") -> Answer:
    """Serve the app, and ask it once."""

    async def talk() -> Answer:
        async with serving(app, host, 0, "WEBPD_HEALTH_ADDRESS") as address:
            return await asyncio.to_thread(Answer, address, path, method)

    return asyncio.run(asyncio.wait_for(talk(), 30))


@pytest.mark.parametrize("ready", [True, False])
def test_it_is_alive_whenever_it_answers(ready: bool) -> None:
    answer = ask(health_app(Subject(ready=ready)), "/livez")
    assert (answer.status, answer.body) == (200, b"alive\n")


@pytest.mark.parametrize(("ready", "status"), [(True, 200), (False, 503)])
def test_readiness_is_told_by_the_status(ready: bool, status: int) -> None:
    assert ask(health_app(Subject(ready=ready)), "/readyz").status == status
    assert ask(health_app(Subject(ready=ready)), "/readyz", "HEAD").status == status


def test_what_is_not_ready_says_why_in_words() -> None:
    answer = ask(health_app(Subject(ready=False)), "/readyz")
    assert answer.body.decode() == "not ready\nroot /srv/Ordner/ü: mount hung\ncodecs: start\n"
    assert ask(health_app(Subject(ready=True)), "/readyz").body == b"ready\n"


@pytest.mark.parametrize(("ready", "status"), [(True, 200), (False, 503)])
def test_health_is_json_and_its_status_is_that_of_the_answer(ready: bool, status: int) -> None:
    answer = ask(health_app(Subject(ready=ready)), "/health")
    assert answer.status == status
    assert answer.headers["content-type"] == "application/json"
    assert json.loads(answer.body)["roots"] == [{"root": "/srv/Ordner/ü"}]


def test_what_is_not_there_and_what_is_not_meant_is_refused() -> None:
    app = health_app(Subject(ready=True))
    assert ask(app, "/").status == 404
    assert ask(app, "/livez", "POST").status == 405
    assert "server" not in ask(app, "/livez").headers


def test_metrics_are_what_prometheus_reads() -> None:
    metrics = Metrics()
    outcome = Outcome("/srv/a.jpg", Result.CONVERTED, source_bytes=100, webp_bytes=60)
    metrics.count(Job("/srv/a.jpg", "/srv", 100), outcome, "fresh")
    answer = ask(metrics_app(metrics.exposition), "/metrics")
    assert answer.status == 200
    assert answer.headers["content-type"].startswith("text/plain; version=")
    families = {family.name for family in text_string_to_metric_families(answer.body.decode())}
    assert {"webpd_images", "webpd_source_bytes"} <= families


def test_who_comes_as_soon_as_the_address_is_told_is_let_in() -> None:
    async def connect() -> None:
        async with serving(health_app(Subject(ready=True)), "127.0.0.1", 0, "WEBPD_HEALTH_ADDRESS") as address:
            with socket.create_connection(address, timeout=30):
                pass

    asyncio.run(asyncio.wait_for(connect(), 30))


def test_it_answers_on_ipv6_where_that_is_asked_for() -> None:
    assert ask(health_app(Subject(ready=True)), "/livez", host="::1").status == 200


def test_an_address_in_use_is_named_with_its_variable() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]

        async def try_it() -> None:
            async with serving(health_app(Subject(ready=True)), "127.0.0.1", port, "WEBPD_HEALTH_ADDRESS"):
                pass

        with pytest.raises(UnfitError, match=rf"WEBPD_HEALTH_ADDRESS=127\.0\.0\.1:{port}: .*in use"):
            asyncio.run(try_it())


@pytest.mark.parametrize("host", ["no-such-host.invalid", "192.0.2.1"])
def test_an_address_that_is_not_ours_is_named_with_its_variable(host: str) -> None:
    async def try_it() -> None:
        async with serving(health_app(Subject(ready=True)), host, 0, "WEBPD_METRICS_ADDRESS"):
            pass

    with pytest.raises(UnfitError, match=f"WEBPD_METRICS_ADDRESS={host}:0"):
        asyncio.run(try_it())


def test_a_host_that_is_none_is_named_with_its_variable() -> None:
    async def try_it() -> None:
        async with serving(health_app(Subject(ready=True)), "a..b", 0, "WEBPD_METRICS_ADDRESS"):
            pass

    with pytest.raises(UnfitError, match=r"WEBPD_METRICS_ADDRESS=a\.\.b:0"):
        asyncio.run(try_it())


def test_the_address_is_free_again_afterwards_though_somebody_keeps_a_connection_open() -> None:
    async def talk() -> None:
        app = health_app(Subject(ready=True))
        async with serving(app, "127.0.0.1", 0, "WEBPD_HEALTH_ADDRESS") as (host, port):
            await asyncio.to_thread(Answer, (host, port), "/livez", "GET")
            connection = http.client.HTTPConnection(host, port, timeout=30)
            await asyncio.to_thread(connection.request, "GET", "/livez")
            (await asyncio.to_thread(connection.getresponse)).read()
            idle = socket.create_connection((host, port))
        async with serving(app, host, port, "WEBPD_HEALTH_ADDRESS") as again:
            assert again[1] == port
            assert (await asyncio.to_thread(Answer, again, "/livez", "GET")).status == 200
        connection.close()
        idle.close()

    asyncio.run(asyncio.wait_for(talk(), 60))


def test_signals_stay_the_services_own() -> None:
    async def look() -> None:
        before = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
        async with serving(health_app(Subject(ready=True)), "127.0.0.1", 0, "X") as address:
            await asyncio.to_thread(Answer, address, "/livez", "GET")
            assert [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)] == before

    asyncio.run(asyncio.wait_for(look(), 30))


# The control socket


class Controlled(Subject):
    """A service that notes what it is to try again."""

    def __init__(self) -> None:
        super().__init__(ready=True)
        self.orders: list[list[str]] = []

    async def retry(self, paths: Sequence[str]) -> int:
        self.orders.append(list(paths))
        return 7


def control(subject: Controlled, path: Path, talk: Callable[[], T]) -> T:
    """Serve the control socket at the path, and return what ``talk`` does, which runs in a thread."""

    async def serve() -> T:
        async with serving_unix(control_app(subject), str(path)):
            return await asyncio.to_thread(talk)

    return asyncio.run(asyncio.wait_for(serve(), 60))


def post(path: Path, body: bytes) -> tuple[int, Any]:
    return client.ask(client.connect(str(path), 30), "POST", "/retry", body)


def test_the_socket_tells_the_health_and_takes_what_is_to_be_tried_again(tmp_path: Path) -> None:
    subject = Controlled()
    path = tmp_path / "control.sock"
    paths = ["/srv/a", os.fsdecode(b"/srv/\xe9t\xe9.jpg"), "/srv/ж \\udcff"]

    def talk() -> tuple[Any, int]:
        status, health = client.ask(client.connect(str(path), 30), "GET", "/health")
        return (status, health["status"]), client.retry(str(path), paths, 30)

    assert control(subject, path, talk) == ((200, "ok"), 7)
    assert subject.orders == [paths]


def test_a_path_longer_than_a_sockets_works(tmp_path: Path) -> None:
    folder = tmp_path / ("long" * 50) / ("Ordner-ü" * 10)
    folder.mkdir(parents=True)
    path = folder / client.SOCKET
    assert control(Controlled(), path, lambda: client.retry(str(path), [], 30)) == 7
    assert not path.exists()


@pytest.fixture
def open_to_all() -> Iterator[Path]:
    """A folder that other users may read; those of pytest are closed to them."""
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o755)
        yield Path(folder)


def test_another_user_may_not_connect_and_is_told_whom_to_be(open_to_all: Path) -> None:
    path = open_to_all / client.SOCKET

    def attempt() -> str:
        with pytest.raises(UnfitError) as raised:
            client.retry(str(path), [], 30)
        return str(raised.value)

    with listen_unix(str(path)):
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        assert f"{path}: can't be asked (Permission denied): run this as the user of the service" in as_nobody(attempt)


def test_what_a_killed_service_left_is_replaced_and_in_the_end_nothing_is_left(tmp_path: Path) -> None:
    path = tmp_path / "control.sock"
    with socket.socket(socket.AF_UNIX) as left:
        left.bind(str(path))
    with pytest.raises(ConnectionRefusedError):
        client.retry(str(path), [], 30)
    assert control(Controlled(), path, lambda: client.retry(str(path), [], 30)) == 7
    assert not path.exists()
    with pytest.raises(FileNotFoundError):
        client.retry(str(path), [], 30)


def test_where_no_socket_can_be_made_it_says_what_to_do(tmp_path: Path) -> None:
    path = tmp_path / "control.sock"
    path.mkdir()
    with pytest.raises(UnfitError, match=f"{path}: can't listen there .*WEBPD_STATE_DIR"):
        control(Controlled(), path, lambda: None)


@pytest.mark.parametrize(
    ("body", "told"),
    [
        (b"", "Expecting value"),
        (b"\xff", "Expecting value"),
        (b"[" * 100_000, "recursion"),
        (b"[]", "not of the form"),
        (b'{"paths": "/srv"}', "not of the form"),
        (b'{"paths": [1]}', "not of the form"),
        (b'{"paths": ["srv"]}', "not an absolute path: 'srv'"),
        (b'{"paths": ["/srv/\\u0000"]}', "not an absolute path"),
        (b'{"paths": ["/srv/\\ud800"]}', "surrogates not allowed"),
    ],
)
def test_an_order_that_is_none_is_refused_with_the_reason(tmp_path: Path, body: bytes, told: str) -> None:
    subject = Controlled()
    status, answer = control(subject, tmp_path / "s", lambda: post(tmp_path / "s", body))
    assert (status, subject.orders) == (400, [])
    assert told in answer["error"]


def test_an_order_too_long_is_refused_and_not_kept_in_memory(tmp_path: Path) -> None:
    subject = Controlled()
    path = tmp_path / "s"
    many = [f"/srv/{number:0100}" for number in range(12_000)]

    def talk() -> str:
        with pytest.raises(UnfitError) as raised:
            client.retry(str(path), many, 30)
        return str(raised.value)

    assert "the service refused: more than 1048576 bytes" in control(subject, path, talk)
    assert subject.orders == []


def test_a_service_that_fails_or_hangs_is_told_so(tmp_path: Path) -> None:
    path = str(tmp_path / "s")

    class Broken(Controlled):
        async def retry(self, paths: Sequence[str]) -> int:
            raise UnfitError(f"the ledger is closed: {paths}")

    def talk() -> str:
        with pytest.raises(UnfitError) as raised:
            client.retry(path, [], 30)
        return str(raised.value)

    assert "see its log" in control(Broken(), tmp_path / "s", talk)
    with socket.socket(socket.AF_UNIX) as mute:
        mute.bind(path)
        mute.listen()
        with pytest.raises(UnfitError, match=r"no answer within 0\.2 s"):
            client.retry(path, [], 0.2)
