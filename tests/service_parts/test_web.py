"""What the service answers over HTTP, asked over real sockets."""

import asyncio
import http.client
import json
import signal
import socket
from collections.abc import Mapping
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families

from tests.lab import wait_for
from webpd.errors import UnfitError
from webpd.model import Outcome, Result
from webpd.telemetry.metrics import Metrics
from webpd.web.app import health_app, metrics_app
from webpd.web.server import serving


class Subject:
    """A service in this state of health."""

    def __init__(self, *, ready: bool) -> None:
        self.ready = ready
        self.root = "/srv/Ordner/ü"

    def health(self) -> Mapping[str, Any]:
        return {"status": "ok" if self.ready else "degraded", "roots": [{"root": self.root}]}


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
    metrics.count(Outcome("/srv/a.jpg", Result.CONVERTED, source_bytes=100, webp_bytes=60))
    answer = ask(metrics_app(metrics.exposition), "/metrics")
    assert answer.status == 200
    assert answer.headers["content-type"].startswith("text/plain; version=")
    families = {family.name for family in text_string_to_metric_families(answer.body.decode())}
    assert {"webpd_images", "webpd_source_bytes", "webpd_mount_well"} <= families


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
