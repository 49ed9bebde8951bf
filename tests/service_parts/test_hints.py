"""What nginx's datagrams say, which files a hint means, and when an image that was not there is looked at again."""

import asyncio
import os
import socket
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.lab import wait_for
from webpd.errors import UnfitError
from webpd.reconcile.glance import Seen
from webpd.service import hints as hints_module
from webpd.service import root_hints
from webpd.service.front import served
from webpd.service.hint_socket import open_socket, path_in
from webpd.service.hints import Hints
from webpd.service.root_hints import RootHints, Source
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
    with pytest.raises(UnfitError, match=r"can't listen there .*WEBPD_HINT_SOCKET"):
        open_socket(str(path / "hint.sock"))  # below a file
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
        self.hints = self
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
        (f"{A}/\udcc3\udcbc.jpg", (A,), [f"{A}/ü.jpg"]),  # JSON may write the bytes one by one
        (f"{A}/\udcd4.jpg", (A,), [f"{A}/\udcd4.jpg"]),
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


def test_a_path_that_nginx_told_of_is_left_alone_for_a_while(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hints_module, "_MOST_RECENT", 2)
    found: list[str] = []
    hints = Hints(load({}, {}).settings, Metrics())
    hints.begin([Desk(A, found)])  # type: ignore[list-item]

    async def hear(*names: str) -> None:
        for name in names:
            hints.hear(f"{A}/{name}.jpg")

    asyncio.run(hear("a", "a", "b", "a"))
    assert found == [f"{A}/a.jpg", f"{A}/b.jpg"]
    asyncio.run(hear("c", "a"))  # more than are kept in mind
    assert found[2:] == [f"{A}/c.jpg", f"{A}/a.jpg"]


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
        self.knows = False
        self.fails: Exception | None = None
        self.looks: list[float] = []
        self.folders: list[str] = []
        self.told: list[str] = []
        self.sick = False
        self._clock = clock

    def is_known(self, _: str) -> bool:
        return self.knows

    def look(self, _: str) -> Seen:
        self.looks.append(self._clock.now)
        if self.fails:
            raise self.fails
        return self.sees

    def news(self, folder: str) -> bool:
        self.folders.append(folder)
        return True

    def tell(self, path: str, detail: str) -> None:
        self.told.append(f"{path}: {detail}")

    def halted(self) -> bool:
        return self.sick

    def blame(self, _: OSError) -> bool:
        return self.sick


class Desks:
    """Makes ends of hints, and lets time pass for them."""

    def __init__(self, clock: Clock) -> None:
        self.clock = clock
        self.metrics = Metrics()
        self.made: list[RootHints] = []

    def make(self, eye: Eye, cache: float) -> RootHints:
        one = RootHints(eye, eye, eye, self.metrics, cache=cache)  # type: ignore[arg-type]
        self.made.append(one)
        return one

    def pass_by(self, seconds: float) -> None:
        """Let the time pass, a quarter of a second after the other, and all be done that is due by then."""
        self._let_all_be_done()
        for _ in range(int(4 * seconds)):
            self.clock.now += 0.25
            self._let_all_be_done()

    def _let_all_be_done(self) -> None:
        for one in self.made:
            with one._turn:
                one._turn.notify_all()
            wait_for(lambda one=one: self._rests(one), "all that is due is done")  # type: ignore[misc]

    def _rests(self, one: RootHints) -> bool:
        with one._turn:
            return one._idle == len(one._threads) and not (one._due and one._due[0][0] <= self.clock.now)

    def counted(self, source: str, result: str) -> float:
        return float(self.metrics._hints.labels(source, result)._value.get())


@pytest.fixture
def desks(monkeypatch: pytest.MonkeyPatch) -> Iterator[Desks]:
    clock = Clock()
    monkeypatch.setattr(root_hints, "time", clock)
    made = Desks(clock)
    yield made
    for one in made.made:
        one.stop()
        monkeypatch.undo()
        assert one.join(time.monotonic() + 30)


def test_what_is_not_there_is_looked_at_ever_more_rarely_until_the_cache_is_over(desks: Desks) -> None:
    eye = Eye(desks.clock)
    one = desks.make(eye, 20.0)
    assert one.take("/tree/a.jpg", Source.NGINX)
    desks.pass_by(30)
    assert [at - eye.looks[0] for at in eye.looks] == [0, 1, 3, 7, 15, 21]
    assert desks.counted("nginx", "refused") == 1
    assert not one._due
    assert not one._hints


def test_without_a_cache_one_look_tells_all(desks: Desks) -> None:
    eye = Eye(desks.clock)
    desks.make(eye, 0.0).take("/tree/a.jpg", Source.HTTP)
    desks.pass_by(30)
    assert desks.counted("http", "refused") == len(eye.looks) == 1


def test_the_folder_of_many_that_are_gone_is_looked_at_once_and_once_more_after_the_cache(desks: Desks) -> None:
    eye = Eye(desks.clock)
    eye.sees = Seen.ORPHAN
    one = desks.make(eye, 20.0)
    for number in range(60):
        one.take(f"/tree/a/{number}.jpg", Source.HTTP)
    desks.pass_by(5)
    assert (len(eye.looks), eye.folders) == (60, ["/tree/a"])
    desks.pass_by(25)
    assert (len(eye.looks), eye.folders) == (120, ["/tree/a"] * 2)
    assert desks.counted("http", "taken") == 60


@pytest.mark.parametrize(("source", "looks"), [(Source.HTTP, 2), (Source.NGINX, 1)])
def test_news_of_an_image_that_seems_as_it_was_is_checked_after_the_cache(
    desks: Desks, source: Source, looks: int
) -> None:
    eye = Eye(desks.clock)
    eye.sees = Seen.NOTHING
    desks.make(eye, 20.0).take("/tree/a.jpg", source)
    desks.pass_by(30)
    assert desks.counted(source, "known") == 1
    assert len(eye.looks) == looks


@pytest.mark.parametrize(("source", "looks"), [(Source.HTTP, 1), (Source.NGINX, 0)])
def test_what_is_known_to_stay_as_it_is_is_looked_at_on_news_alone(desks: Desks, source: Source, looks: int) -> None:
    eye = Eye(desks.clock)
    eye.sees, eye.knows = Seen.NOTHING, True
    desks.make(eye, 0.0).take("/tree/a.jpg", source)
    desks.pass_by(1)
    assert desks.counted(source, "known") == 1
    assert len(eye.looks) == looks


def test_news_of_an_image_that_waits_for_another_look_is_looked_at_now(desks: Desks) -> None:
    eye = Eye(desks.clock)
    one = desks.make(eye, 3600.0)
    one.take("/tree/a.jpg", Source.HTTP)
    desks.pass_by(0.25)
    eye.sees = Seen.OFFERED
    one.take("/tree/a.jpg", Source.HTTP)
    desks.pass_by(0.25)
    assert (desks.counted("http", "known"), desks.counted("http", "taken")) == (1, 1)
    assert not one._later
    desks.pass_by(30)
    assert len(eye.looks) == 2


def test_while_the_mount_is_sick_nothing_is_looked_at(desks: Desks) -> None:
    eye = Eye(desks.clock)
    eye.sick = True
    assert not desks.make(eye, 20.0).take("/tree/a.jpg", Source.NGINX)
    assert desks.counted("nginx", "dropped") == 1
    assert not eye.looks


@pytest.mark.parametrize(
    ("fails", "sick", "result", "told"),
    [
        (PermissionError(13, "Permission denied"), False, "refused", []),
        (OSError(107, "not connected"), True, "dropped", []),
        (UnfitError("the database is gone"), False, "dropped", ["/tree/a.jpg: not looked at: the database is gone"]),
    ],
)
def test_a_look_that_fails_is_counted_and_the_next_hint_is_taken(
    desks: Desks, fails: Exception, sick: bool, result: str, told: list[str]
) -> None:
    eye = Eye(desks.clock)
    eye.fails = fails
    one = desks.make(eye, 20.0)
    eye.blame = lambda _: sick  # type: ignore[method-assign]
    one.take("/tree/a.jpg", Source.HTTP)
    desks.pass_by(0.25)
    assert (desks.counted("http", result), eye.told) == (1, told)
    eye.fails, eye.sees = None, Seen.OFFERED
    one.take("/tree/b.jpg", Source.HTTP)
    desks.pass_by(0.25)
    assert desks.counted("http", "taken") == 1


def test_no_more_wait_than_there_is_room_for(desks: Desks, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(root_hints, "_MOST", 3)
    eye = Eye(desks.clock)
    one = desks.make(eye, 20.0)
    with one._turn:  # so that none is looked at before all have come
        taken = [one.take(f"/tree/{number}.jpg", Source.NGINX) for number in range(5)]
    assert taken == [True, True, True, False, False]
    desks.pass_by(0.25)
    assert one._later == 3
    one.take("/tree/another.jpg", Source.NGINX)
    desks.pass_by(0.25)
    assert one._later == 3  # there is no room for one more to be looked at again
    assert (desks.counted("nginx", "dropped"), desks.counted("nginx", "refused")) == (2, 1)


# A single pass


def test_a_single_pass_listens_to_nobody(tmp_path: Path) -> None:
    path = tmp_path / "run" / "hint.sock"
    settings = load({}, {"WEBPD_HINT_SOCKET": str(path)}).settings
    nobody: Any = None

    async def pass_once() -> None:
        async with served(nobody, nobody, nobody, settings, Metrics(), once=True):
            assert not path.parent.exists()

    asyncio.run(pass_once())
