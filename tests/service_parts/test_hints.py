"""What nginx's datagrams say, which files a hint means, and when an image that was not there is looked at again."""

import os
import socket
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.lab import wait_for
from webpd.errors import UnfitError
from webpd.reconcile.glance import Seen
from webpd.service import hinted as hinted_module
from webpd.service.hint_socket import open_socket, path_in
from webpd.service.hinted import Hinted, Source
from webpd.service.hints import Hints
from webpd.settings import load
from webpd.telemetry.metrics import Metrics

HEAD = b"<190>Nov 24 17:22:24 webpd: "


def as_nginx(path: bytes) -> bytes:
    """Return the path as ``escape=json`` writes it (ngx_escape_json)."""
    short = {ord('"'): b'\\"', ord("\\"): b"\\\\", 8: b"\\b", 9: b"\\t", 10: b"\\n", 12: b"\\f", 13: b"\\r"}
    return b"".join(short.get(one) or (b"\\u%04X" % one if one < 32 else bytes([one])) for one in path)


@given(st.binary(max_size=200))
def test_every_path_that_nginx_can_tell_of_is_read_as_it_is(path: bytes) -> None:
    told = path_in(HEAD + b'{"path": "' + as_nginx(path) + b'"}')
    assert told is not None
    assert os.fsencode(told) == path


@given(
    st.one_of(st.binary(), st.binary().map(lambda data: HEAD + data), st.binary().map(lambda data: HEAD + b"{" + data))
)
def test_nothing_that_is_sent_does_any_harm(data: bytes) -> None:
    assert isinstance(path_in(data), (str, type(None)))


@given(st.integers(min_value=0, max_value=80))
def test_a_datagram_cut_short_is_no_hint(length: int) -> None:
    whole = HEAD + b'{"path": "/upload/resize_cache/iblock/abc/photo.jpg"}'
    assert path_in(whole[: min(length, len(whole) - 1)]) is None


# The socket


def test_a_socket_replaces_one_that_nobody_has_and_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "run" / "hint.sock"
    with open_socket(str(path)), pytest.raises(UnfitError, match=f"{path}: another process listens there: "):
        open_socket(str(path))
    open_socket(str(path)).close()
    path.unlink()
    path.write_bytes(b"somebody's")
    with pytest.raises(UnfitError, match="no socket: remove it, "):
        open_socket(str(path))
    assert path.read_bytes() == b"somebody's"
    path.unlink()
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as other:
        other.bind(str(path))
        other.listen()
        with pytest.raises(UnfitError, match="another process listens there"):
            open_socket(str(path))


# Which files


class Desk:
    """Stands for the roots' own ends: keeps what it is given."""

    def __init__(self, root: str, taken: list[str]) -> None:
        self.root = root
        self.poller = self
        self.hinted = self
        self._taken = taken

    def take(self, path: str, _: Source) -> bool:
        self._taken.append(path)
        return True


def taken(path: str, *roots: str, **environment: str) -> list[str]:
    """Return the files that a hint of the path has looked at."""
    found: list[str] = []
    hints = Hints(load({}, environment).settings, Metrics())
    hints.begin([Desk(root, found) for root in roots])  # type: ignore[misc]
    hints.hint([path])
    return found


A, B = "/var/www/a/upload/resize_cache", "/var/www/b/upload/resize_cache"


@pytest.mark.parametrize(
    ("path", "roots", "files"),
    [
        ("/upload/resize_cache/x/y.jpg", (A,), [f"{A}/x/y.jpg"]),
        ("/upload/resize_cache/x/y.jpg", (A, B), [f"{A}/x/y.jpg", f"{B}/x/y.jpg"]),
        (f"{B}/x/y.jpg", (A, B), [f"{B}/x/y.jpg"]),
        (f"{A}/mount/y.jpg", (A, f"{A}/mount"), [f"{A}/mount/y.jpg"]),
        ("/upload/resize_cache2/y.jpg", (A,), []),
        (f"{A}2/y.jpg", (A,), []),
    ],
)
def test_a_path_means_each_file_that_it_may_lead_to(path: str, roots: tuple[str, ...], files: list[str]) -> None:
    assert taken(path, *roots) == files


def test_the_inner_root_is_told_of_what_is_in_it() -> None:
    heard: dict[str, list[str]] = {A: [], f"{A}/mount": []}
    hints = Hints(load({}, {}).settings, Metrics())
    hints.begin([Desk(root, files) for root, files in heard.items()])  # type: ignore[misc]
    hints.hint(["/upload/resize_cache/mount/y.jpg", "/upload/resize_cache/z.jpg"])
    assert heard == {A: [f"{A}/z.jpg"], f"{A}/mount": [f"{A}/mount/y.jpg"]}


def test_while_the_service_starts_hints_are_dropped() -> None:
    metrics = Metrics()
    assert Hints(load({}, {}).settings, metrics).hint([f"{A}/y.jpg"]) == 0
    assert metrics._hints.labels("http", "dropped")._value.get() == 1


def test_outside_of_the_document_root_paths_of_files_are_taken_all_the_same() -> None:
    assert taken(f"{A}/y.jpg", A, WEBPD_DOCUMENT_ROOT="/srv") == [f"{A}/y.jpg"]
    assert taken("/upload/resize_cache/y.jpg", A, WEBPD_DOCUMENT_ROOT="/srv") == []


# When


class Clock:
    """The monotonic clock that hints are timed by, put forward."""

    def __init__(self) -> None:
        self.now = 1000.0

    def monotonic(self) -> float:
        return self.now


class Eye:
    """Stands for the looks: sees what it is set to, and keeps when it looked."""

    def __init__(self, clock: Clock) -> None:
        self.sees = Seen.ABSENT
        self.looks: list[float] = []
        self.folders: list[str] = []
        self.sick = False
        self._clock = clock

    def is_known(self, _: str) -> bool:
        return False

    def look(self, _: str) -> Seen:
        self.looks.append(self._clock.now)
        return self.sees

    def news(self, folder: str) -> bool:
        self.folders.append(folder)
        return True

    def halted(self) -> bool:
        return self.sick


class Desks:
    """Makes ends of hints, and lets time pass for them."""

    def __init__(self, clock: Clock) -> None:
        self.clock = clock
        self.metrics = Metrics()
        self.made: list[Hinted] = []

    def make(self, eye: Eye, cache: float) -> Hinted:
        one = Hinted(eye, eye, eye, self.metrics, cache=cache)  # type: ignore[arg-type]
        self.made.append(one)
        return one

    def pass_by(self, seconds: float) -> None:
        """Let the time pass, a quarter of a second after the other."""
        for _ in range(int(4 * seconds)):
            self.clock.now += 0.25
            for one in self.made:
                with one._turn:
                    one._turn.notify_all()
            time.sleep(0.002)

    def counted(self, source: str, result: str) -> float:
        return float(self.metrics._hints.labels(source, result)._value.get())


@pytest.fixture
def desks(monkeypatch: pytest.MonkeyPatch) -> Iterator[Desks]:
    clock = Clock()
    monkeypatch.setattr(hinted_module, "time", clock)
    made = Desks(clock)
    yield made
    for one in made.made:
        one.stop()
        monkeypatch.undo()
        assert one.join(time.monotonic() + 30)


def test_what_is_not_there_is_looked_at_ever_more_rarely_until_the_cache_is_over(desks: Desks) -> None:
    eye = Eye(desks.clock)
    assert desks.make(eye, 20.0).take("/tree/a.jpg", Source.NGINX)
    wait_for(lambda: eye.looks, "the first look")
    desks.pass_by(30)
    wait_for(lambda: desks.counted("nginx", "refused"), "it is given up")
    since = [at - eye.looks[0] for at in eye.looks]
    assert since[-1] >= 20
    assert 4 <= len(since) <= 7
    desks.pass_by(60)
    assert len(eye.looks) == len(since)


def test_without_a_cache_one_look_tells_all(desks: Desks) -> None:
    eye = Eye(desks.clock)
    desks.make(eye, 0.0).take("/tree/a.jpg", Source.HTTP)
    wait_for(lambda: desks.counted("http", "refused"), "it is refused")
    desks.pass_by(30)
    assert len(eye.looks) == 1


def test_the_folder_of_many_that_are_gone_is_looked_at_once_and_once_more_after_the_cache(desks: Desks) -> None:
    eye = Eye(desks.clock)
    eye.sees = Seen.ORPHAN
    one = desks.make(eye, 20.0)
    for number in range(60):
        one.take(f"/tree/a/{number}.jpg", Source.HTTP)
    wait_for(lambda: len(eye.looks) == 60, "all are looked at")
    desks.pass_by(5)
    wait_for(lambda: eye.folders == ["/tree/a"], "their folder is looked at")
    desks.pass_by(25)
    wait_for(lambda: eye.folders == ["/tree/a"] * 2, "and again when the cache is over")
    wait_for(lambda: desks.counted("http", "taken") == 60, "each counts once")


@pytest.mark.parametrize(("source", "looks"), [(Source.HTTP, 2), (Source.NGINX, 1)])
def test_news_of_an_image_that_seems_as_it_was_is_checked_after_the_cache(
    desks: Desks, source: Source, looks: int
) -> None:
    eye = Eye(desks.clock)
    eye.sees = Seen.NOTHING
    desks.make(eye, 20.0).take("/tree/a.jpg", source)
    wait_for(lambda: eye.looks, "the first look")
    desks.pass_by(30)
    wait_for(lambda: desks.counted(source, "known"), "nothing is to be done")
    assert len(eye.looks) == looks


def test_news_of_an_image_that_waits_for_another_look_is_looked_at_now(desks: Desks) -> None:
    eye = Eye(desks.clock)
    one = desks.make(eye, 3600.0)
    one.take("/tree/a.jpg", Source.HTTP)
    wait_for(lambda: one._later, "it waits")
    eye.sees = Seen.OFFERED
    one.take("/tree/a.jpg", Source.HTTP)
    wait_for(lambda: desks.counted("http", "taken"), "it is looked at")
    assert not one._later


def test_while_the_mount_is_sick_nothing_is_looked_at(desks: Desks) -> None:
    eye = Eye(desks.clock)
    eye.sick = True
    assert not desks.make(eye, 20.0).take("/tree/a.jpg", Source.NGINX)
    assert desks.counted("nginx", "dropped") == 1
    assert not eye.looks
