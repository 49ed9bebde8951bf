"""What clients of the health page may take of it, asked by raw sockets; and that others are answered meanwhile."""

import asyncio
import contextlib
import re
import socket
import time
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import pytest
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response, StreamingResponse
from starlette.routing import Route

from tests.lab import wait_for
from webpd.web import connection
from webpd.web.app import control_app, health_app
from webpd.web.server import serving

T = TypeVar("T")
Address = tuple[str, int]

ASK = b"GET /livez HTTP/1.1\r\nHost: localhost\r\n\r\n"
LAST = b"GET /livez HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"
SHORT = 0.3
"""Seconds that stand for those a client has in earnest."""


class Subject:
    """A service that is well, and counts what it is told."""

    hindrances: Sequence[str] = ()

    def __init__(self) -> None:
        self.retried = 0

    def health(self) -> dict[str, Any]:
        return {"status": "ok"}

    async def retry(self, paths: Sequence[str]) -> int:
        self.retried += 1
        return len(paths)


async def large(_: Request) -> Response:
    return PlainTextResponse("x" * (64 << 20))


async def endless(_: Request) -> Response:
    async def parts() -> Any:
        while True:
            yield b"data: 1\n\n"
            await asyncio.sleep(0.05)

    return StreamingResponse(parts())


async def failing(_: Request) -> Response:
    raise RuntimeError("a secret of the program")


EXTRA = [Route("/large", large), Route("/endless", endless), Route("/failing", failing)]


def with_server(talk: Callable[[Address], T], app: Any = None) -> T:
    """Serve health, and what else the tests need, and return what ``talk`` does, which runs in a thread."""

    async def serve() -> T:
        served = health_app(Subject(), EXTRA) if app is None else app
        async with serving(served, "127.0.0.1", 0, "WEBPD_HEALTH_ADDRESS") as address:
            return await asyncio.to_thread(talk, address)

    return asyncio.run(asyncio.wait_for(serve(), 60))


def connect(address: Address) -> socket.socket:
    return socket.create_connection(address, timeout=20)


def answer_to(address: Address, request: bytes) -> bytes:
    """Return all that comes back until the server closes."""
    with connect(address) as client:
        client.sendall(request)
        return rest_of(client)


def rest_of(client: socket.socket) -> bytes:
    """Return what still comes until the server closes or cuts the connection."""
    found = b""
    with contextlib.suppress(ConnectionResetError):
        while part := client.recv(1 << 16):
            found += part
    return found


def is_alive(address: Address) -> bool:
    return answer_to(address, LAST).startswith(b"HTTP/1.1 200 OK\r\n")


def is_cut(client: socket.socket, seconds: float = 20) -> bool:
    """Tell whether the server closes or cuts the connection within that time, and says nothing before."""
    client.settimeout(seconds)
    try:
        return client.recv(1) == b""
    except ConnectionResetError:
        return True
    except TimeoutError:
        return False


@pytest.fixture
def short(monkeypatch: pytest.MonkeyPatch) -> None:
    """The times that clients have, made short."""
    monkeypatch.setattr(connection, "REQUEST_TIME", SHORT)
    monkeypatch.setattr(connection, "UNREAD_TIME", SHORT)


# Size


@pytest.mark.parametrize(
    "head",
    [
        b"GET /livez HTTP/1.1\r\nHost: localhost\r\nX-Long: " + b"x" * (1 << 20),
        b"GET /" + b"x" * (1 << 20),
        b"GET /livez HTTP/1.1\r\nHost: localhost\r\n" + b"".join(b"X-%d: 1\r\n" % number for number in range(100_000)),
    ],
    ids=["a header", "the path", "many headers"],
)
def test_huge_heads_are_refused_and_not_kept(head: bytes) -> None:
    def talk(address: Address) -> None:
        with connect(address) as client:
            with contextlib.suppress(ConnectionError):
                client.sendall(head)
            assert rest_of(client).startswith((b"HTTP/1.1 400 ", b""))
        assert is_alive(address)

    with_server(talk)


def test_a_head_of_usual_length_is_taken() -> None:
    cookie = b"Cookie: " + b"x" * 8000 + b"\r\n"
    assert b" 200 OK" in with_server(lambda address: answer_to(address, LAST.replace(b"Host", cookie + b"Host")))


def test_a_body_announced_as_too_long_is_refused_before_it_comes() -> None:
    def talk(address: Address) -> bytes:
        head = b"POST /retry HTTP/1.1\r\nHost: localhost\r\nContent-Length: 100000000000\r\n\r\n"
        with connect(address) as client:
            client.sendall(head)
            return client.recv(1 << 16)

    subject = Subject()
    assert with_server(talk, control_app(subject)).startswith(b"HTTP/1.1 413 ")
    assert not subject.retried


@pytest.mark.parametrize("path", [b"/livez", b"/retry"])
def test_a_body_without_end_is_not_taken_in(path: bytes, short: None) -> None:
    chunk = b"10000\r\n" + b"x" * (1 << 16) + b"\r\n"

    def talk(address: Address) -> int:
        sent = 0
        with connect(address) as client:
            client.sendall(b"POST " + path + b" HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n")
            with contextlib.suppress(ConnectionError):
                while sent < 1 << 34:
                    client.sendall(chunk)
                    sent += len(chunk)
        return sent

    subject = Subject()
    assert with_server(talk, control_app(subject)) < 1 << 34
    assert not subject.retried


# Time


@pytest.mark.parametrize(
    "beginning",
    [
        b"",
        b"GET /livez HT",
        b"GET /livez HTTP/1.1\r\nHost: localhost\r\nX-Slow: ",
        b"POST /livez HTTP/1.1\r\nHost: localhost\r\nContent-Length: 10\r\n\r\n12",
        ASK + b"GET /liv",
    ],
    ids=["nothing", "a line begun", "a header begun", "a body begun", "a second request begun"],
)
def test_who_does_not_end_his_request_is_cut_off(beginning: bytes, short: None) -> None:
    def talk(address: Address) -> None:
        with connect(address) as client:
            client.sendall(beginning)
            rest_of(client)  # ends only when the server does

    with_server(talk)


def test_who_sends_a_byte_now_and_then_is_cut_off_all_the_same(short: None) -> None:
    def talk(address: Address) -> float:
        begun = time.monotonic()
        with connect(address) as client, contextlib.suppress(ConnectionError):
            client.sendall(b"GET /livez HTTP/1.1\r\nX-Slow: ")
            while time.monotonic() < begun + 20:
                client.sendall(b"x")
                if is_cut(client, SHORT / 10):
                    break
        return time.monotonic() - begun

    assert with_server(talk) < 20


def test_a_connection_that_is_kept_may_ask_again_and_each_request_has_its_own_time(short: None) -> None:
    def talk(address: Address) -> None:
        with connect(address) as client:
            begun = time.monotonic()
            while time.monotonic() < begun + 3 * SHORT:
                for half in (ASK[:10], ASK[10:]):
                    client.sendall(half)
                told = b""
                while not told.endswith(b"alive\n"):
                    told += (part := client.recv(1 << 16))
                    assert part

    with_server(talk)


def test_who_does_not_read_his_answer_is_cut_off(short: None) -> None:
    def talk(address: Address) -> None:
        with connect(address) as client:
            client.sendall(b"GET /large HTTP/1.1\r\nHost: localhost\r\n\r\n")
            wait_for(lambda: _is_reset(client), "it is cut")

    with_server(talk)


def _is_reset(client: socket.socket) -> bool:
    """Tell whether the server has cut the connection, without reading what it sent."""
    return bool(client.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR))


def test_who_reads_his_answer_slowly_has_it_whole(short: None) -> None:
    def talk(address: Address) -> int:
        with connect(address) as client:
            client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 16)
            client.sendall(b"GET /large HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
            length, begun = 0, time.monotonic()
            while part := client.recv(1 << 20):
                length += len(part)
                while time.monotonic() - begun < length / (64 << 20) * 4 * SHORT:
                    time.sleep(0.001)
            return length

    assert with_server(talk) > 64 << 20


# Number


def test_as_many_connections_as_there_may_be_and_more_do_not_shut_others_out() -> None:
    def talk(address: Address) -> None:
        with contextlib.ExitStack() as stack:
            idle = [stack.enter_context(connect(address)) for _ in range(connection.MOST_CONNECTIONS)]
            slow = [stack.enter_context(connect(address)) for _ in range(connection.MOST_CONNECTIONS)]
            for client in slow:
                client.sendall(b"GET /livez HTTP/1.1\r\nX-Slow: ")
            assert is_alive(address)
            assert is_cut(idle[0])

    with_server(talk)


def test_the_last_that_came_is_answered_however_many_listen_to_events() -> None:
    def talk(address: Address) -> None:
        with contextlib.ExitStack() as stack:
            for _ in range(connection.MOST_CONNECTIONS + 10):
                client = stack.enter_context(connect(address))
                client.sendall(b"GET /endless HTTP/1.1\r\nHost: localhost\r\n\r\n")
                assert client.recv(1 << 16).startswith(b"HTTP/1.1 200 OK")
            assert is_alive(address)

    with_server(talk)


def test_who_listens_to_events_keeps_his_place_while_others_idle() -> None:
    def talk(address: Address) -> None:
        with connect(address) as listener, contextlib.ExitStack() as stack:
            listener.sendall(b"GET /endless HTTP/1.1\r\nHost: localhost\r\n\r\n")
            assert listener.recv(1 << 16).startswith(b"HTTP/1.1 200 OK")
            for _ in range(2 * connection.MOST_CONNECTIONS):
                stack.enter_context(connect(address))
            assert is_alive(address)
            for _ in range(20):
                assert b"data: 1" in listener.recv(1 << 16)

    with_server(talk)


# Order


def test_pipelined_requests_are_answered_in_order() -> None:
    asked = b"".join(b"GET /%s HTTP/1.1\r\nHost: localhost\r\n\r\n" % path for path in (b"livez", b"none", b"readyz"))
    told = with_server(lambda address: answer_to(address, asked + LAST))
    assert re.findall(rb"HTTP/1\.1 (\d+)", told) == [b"200", b"404", b"200", b"200"]


def test_a_flood_of_pipelined_requests_does_not_shut_others_out() -> None:
    def talk(address: Address) -> None:
        with connect(address) as flood:
            flood.setblocking(False)
            for _ in range(20):
                with contextlib.suppress(BlockingIOError):
                    flood.send(ASK * 10_000)
                assert is_alive(address)

    with_server(talk)


@pytest.mark.parametrize(
    "nonsense",
    [
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
        b"GET\r\n\r\n",
        b"GET /livez HTTP/1.1\r\n\r\n",
        b"GET /livez HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n",
        b"GET /livez HTTP/1.1\r\nHost: a\r\nContent-Length: -1\r\n\r\n",
        b"POST /retry HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\nnonsense\r\n",
        ASK + b"\0\0\0\r\n\r\n",
    ],
)
def test_what_is_not_http_is_refused_and_ends_the_connection(nonsense: bytes) -> None:
    def talk(address: Address) -> bytes:
        told = answer_to(address, nonsense)
        assert is_alive(address)
        return told

    told = with_server(talk, health_app(Subject(), control_app(Subject()).routes))  # type: ignore[arg-type]
    assert b"HTTP/1.1 400 " in told or not told
    assert told.count(b"HTTP/1.1 200 ") == nonsense.count(ASK)


def test_clients_that_vanish_in_the_middle_leave_nothing_in_the_log(caplog: pytest.LogCaptureFixture) -> None:
    def talk(address: Address) -> None:
        for beginning in (
            b"GET /li",
            b"POST /retry HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\n1",
            b"POST /retry HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\nnonsense\r\n",
            b"GET /livez HTTP/1.1\r\nHost: a\r\nUpgrade: websocket\r\nConnection: upgrade\r\n\r\n",
        ):
            with connect(address) as client:
                client.sendall(beginning)
        assert is_alive(address)

    with_server(talk, health_app(Subject(), control_app(Subject()).routes))  # type: ignore[arg-type]
    assert not caplog.records


# What is told of us


@pytest.mark.parametrize(
    "request_", [LAST, LAST.replace(b"/livez", b"/none"), LAST.replace(b"GET", b"PUT"), b"nonsense\r\n\r\n"]
)
def test_no_answer_tells_what_it_was_made_by(request_: bytes) -> None:
    told = with_server(lambda address: answer_to(address, request_)).lower()
    assert told.startswith(b"http/1.1 ")
    for word in (b"server:", b"x-powered-by", b"uvicorn", b"starlette", b"python", b"webpd"):
        assert word not in told


def test_an_error_of_ours_tells_nothing_of_the_program() -> None:
    told = with_server(lambda address: answer_to(address, LAST.replace(b"/livez", b"/failing")))
    assert told.startswith(b"HTTP/1.1 500 ")
    assert b"secret" not in told
    assert b"Traceback" not in told


def test_health_is_only_to_be_read() -> None:
    def talk(address: Address) -> None:
        for path in (b"/livez", b"/readyz", b"/health"):
            for method in (b"POST", b"PUT", b"DELETE", b"PATCH", b"OPTIONS", b"TRACE", b"BREW"):
                told = answer_to(address, LAST.replace(b"GET", method).replace(b"/livez", path))
                assert told.startswith(b"HTTP/1.1 405 "), (method, path)
            assert answer_to(address, LAST.replace(b"GET", b"HEAD").replace(b"/livez", path)).startswith(
                b"HTTP/1.1 200 "
            )

    with_server(talk)
