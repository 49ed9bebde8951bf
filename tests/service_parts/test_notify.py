"""What systemd hears, over a real datagram socket."""

import os
import socket
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from webpd.service.notify import notify, watchdog_interval

Listen = Callable[[str], socket.socket]


@pytest.fixture
def listen(monkeypatch: pytest.MonkeyPatch) -> Iterator[Listen]:
    """Return a function that listens as systemd does, and tells the service where."""
    opened: list[socket.socket] = []

    def start(address: str) -> socket.socket:
        listener = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        opened.append(listener)
        listener.settimeout(30)
        listener.bind("\0" + address[1:] if address.startswith("@") else address)
        monkeypatch.setenv("NOTIFY_SOCKET", address)
        return listener

    yield start
    for listener in opened:
        listener.close()


@pytest.mark.parametrize("abstract", [False, True])
def test_states_arrive_one_by_one(abstract: bool, listen: Listen, tmp_path: Path) -> None:
    listener = listen(f"@webpd-test-{os.getpid()}" if abstract else str(tmp_path / "notify"))
    notify("READY=1")
    notify("STOPPING=1")
    assert [listener.recv(100), listener.recv(100)] == [b"READY=1", b"STOPPING=1"]


@pytest.mark.parametrize("value", [None, ""])
def test_nothing_is_said_where_nobody_listens(value: str | None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NOTIFY_SOCKET", raising=False)
    if value is not None:
        monkeypatch.setenv("NOTIFY_SOCKET", value)
    notify("READY=1")


def test_a_listener_that_has_gone_does_not_end_the_service(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "gone"))
    notify("READY=1")


@pytest.mark.parametrize(
    ("microseconds", "pid", "interval"),
    [
        ("30000000", None, 15.0),
        pytest.param("30000000", str(os.getpid()), 15.0, id="own"),  # workers agree on the names of tests
        ("30000000", "1", None),
        ("", None, None),
        (None, None, None),
        ("soon", None, None),
    ],
)
def test_the_watchdog_is_fed_twice_as_often_as_it_asks_and_only_by_whom_it_asks(
    microseconds: str | None, pid: str | None, interval: float | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in (("WATCHDOG_USEC", microseconds), ("WATCHDOG_PID", pid)):
        monkeypatch.delenv(name, raising=False)
        if value is not None:
            monkeypatch.setenv(name, value)
    assert watchdog_interval() == interval
