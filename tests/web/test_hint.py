"""Who may give hints by HTTP, and what is said to who may not."""

import asyncio
import contextlib
import http.client
import json
from collections.abc import Sequence

import pytest
from starlette.applications import Starlette

from tests.web.site import TOKEN, Answer, Site
from webpd.errors import UnfitError
from webpd.settings import load
from webpd.web.access import access_of
from webpd.web.hint import hint_routes
from webpd.web.server import serving

BODY = json.dumps({"paths": ["/upload/resize_cache/a.jpg"]}).encode()


def hint(site: Site, body: bytes = BODY, /, *, host: str = "localhost", **headers: str) -> Answer:
    """Give a hint, as a program with the token does unless the headers say otherwise."""
    given = {"Authorization": f"Bearer {TOKEN}", "Content_Type": "application/json", **headers}
    return site.ask("/hint", "POST", body, host=host, **{name: value for name, value in given.items() if value})


def test_a_hint_is_taken_and_counted(site: Site) -> None:
    paths = ["/upload/resize_cache/iblock/0/480_480_1/photo0.jpg", "/elsewhere.jpg", "no path", "\udcff.jpg"]
    answer = hint(site, json.dumps({"paths": paths}).encode())
    assert (answer.status, json.loads(answer.body)) == (202, {"taken": 1})
    assert json.loads(hint(site, b'{"paths": []}').body) == {"taken": 0}


def test_bytes_that_are_no_utf8_may_be_sent_as_they_are(site: Site) -> None:
    raw = b'{"paths": ["/upload/resize_cache/iblock/\xd4\xee\xf2\xee/\xff.jpg"]}'
    answer = hint(site, raw)
    assert (answer.status, json.loads(answer.body)) == (202, {"taken": 1})


@pytest.mark.parametrize("host", ["localhost", "webpd", "cdn.internal", "10.0.0.7", "evil.example"])
def test_a_program_with_the_token_may_call_it_by_any_name(site: Site, host: str) -> None:
    assert hint(site, host=host).status == 202
    assert hint(site, host=host, Authorization="").status == 401


@pytest.mark.parametrize(
    ("host", "headers", "status"),
    [
        ("localhost", {"Sec_Fetch_Site": "same-origin"}, 202),
        ("localhost", {"Sec_Fetch_Site": "cross-site"}, 403),
        ("localhost", {"Origin": "http://evil.example"}, 403),
        ("evil.example", {"Sec_Fetch_Site": "same-origin"}, 421),
        ("evil.example", {"Origin": "http://evil.example"}, 421),
    ],
)
def test_a_browser_may_do_no_more_than_on_the_page(site: Site, host: str, headers: dict[str, str], status: int) -> None:
    assert hint(site, host=host, **headers).status == status


@pytest.mark.parametrize("token", ["", "Bearer", "Bearer wrong-but-long-enough", "Basic abc", "Bearer \xff"])
def test_without_the_token_nothing_is_taken(site: Site, token: str) -> None:
    answer = hint(site, Authorization=token)
    assert (answer.status, answer.headers["www-authenticate"]) == (401, "Bearer")
    assert "WEBPD_TOKEN" in answer.text


@pytest.mark.parametrize(
    ("body", "status", "words"),
    [
        (b"", 400, 'char 0)): send {"paths": ["/'),
        (b"[]", 400, '{"paths": ["/'),
        (b'{"paths": "/a.jpg"}', 400, '{"paths": ["/'),
        (b'{"paths": [1]}', 400, '{"paths": ["/'),
        (b'{"paths": ["/a.jpg"]} x', 400, "Extra data"),
        (b"[" * 20_000, 400, ""),
        (b'{"paths": ["' + b"x" * (64 << 10) + b'"]}', 413, "65536 bytes"),
        (json.dumps({"paths": ["/a.jpg"] * 1001}).encode(), 413, "1000 paths"),
    ],
)
def test_what_is_no_hint_is_refused_in_words(site: Site, body: bytes, status: int, words: str) -> None:
    answer = hint(site, body)
    assert answer.status == status
    assert words in answer.text


def test_only_json_is_read_and_only_when_posted(site: Site) -> None:
    assert hint(site, Content_Type="application/json; charset=utf-8").status == 202
    for kind in ("text/plain", "application/x-www-form-urlencoded", ""):
        assert hint(site, Content_Type=kind).status == 415
    assert site.ask("/hint", Authorization=f"Bearer {TOKEN}").status == 405


class _Worker:
    """A host that finds no work."""

    def hint(self, paths: Sequence[str]) -> int:  # noqa: ARG002 - of the protocol
        raise UnfitError("this host has the role work")


@pytest.mark.parametrize(
    ("environment", "status", "words"),
    [({}, 403, "set WEBPD_TOKEN"), ({"WEBPD_TOKEN": TOKEN}, 409, "the role work")],
)
def test_who_takes_no_hints_says_why(environment: dict[str, str], status: int, words: str) -> None:
    app = Starlette(routes=hint_routes(_Worker(), access_of(load({}, environment).settings)))

    def ask(host: str, port: int) -> tuple[int, str]:
        connection = http.client.HTTPConnection(host, port, timeout=60)
        headers = {"Authorization": f"Bearer {TOKEN}", "Content-Type": "application/json"}
        with contextlib.closing(connection):
            connection.request("POST", "/hint", BODY, headers)
            answer = connection.getresponse()
            return answer.status, answer.read().decode()

    async def play() -> tuple[int, str]:
        async with serving(app, "127.0.0.1", 0, "WEBPD_HEALTH_ADDRESS") as address:
            return await asyncio.to_thread(ask, *address)

    told = asyncio.run(play())
    assert told[0] == status
    assert words in told[1]
