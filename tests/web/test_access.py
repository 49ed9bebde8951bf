"""Who may ask what, as the network sees it. The page of another site must learn nothing and change nothing."""

import json
import urllib.parse
from pathlib import Path

import pytest
from starlette.requests import Request

from tests.web.site import SECRET, TOKEN, Site
from webpd.settings import load
from webpd.web.access import HEADERS, Need, access_of

SHELL = ("/", "/static/page.css", "/static/page.js")
READ = ("/events", "/leftovers?kind=foreign", "/picture?root=%2F&path=a.jpg&kind=webp")
ALL = json.dumps({"all": True}).encode()


# By which name


@pytest.mark.parametrize("host", ["localhost", "127.0.0.1", "[::1]", "LOCALHOST"])
def test_the_page_answers_by_its_own_names(site: Site, host: str) -> None:
    assert site.ask("/", host=host).status == 200
    assert site.ask("/leftovers?kind=foreign", host=host).status == 200


@pytest.mark.parametrize(
    "host", ["evil.example", "localhost.evil.example", "127.0.0.1.evil.example", "localhost.", "0", ""]
)
def test_any_other_name_is_refused_everywhere_but_for_health(site: Site, host: str) -> None:
    for target in (*SHELL, *READ):
        answer = site.ask(target, host=host, Authorization=f"Bearer {TOKEN}")
        assert answer.status == 421
        english, russian = answer.text.splitlines()
        assert f"does not answer by the name '{host}'" in english
        assert f"не отвечает по имени '{host}'" in russian
        assert "WEBPD_ALLOWED_HOSTS" in english
    assert site.ask("/retry", "POST", ALL, host=host, Authorization=f"Bearer {TOKEN}").status == 421
    assert site.ask("/livez", host=host).status == 200


def test_a_request_without_a_host_is_refused(site: Site) -> None:
    assert site.ask("/", host=None).status == 400  # HTTP/1.1 demands one


# From which site


@pytest.mark.parametrize(
    "headers",
    [
        {"Sec_Fetch_Site": "cross-site"},
        {"Sec_Fetch_Site": "same-site"},
        {"Sec_Fetch_Site": "anything"},
        {"Origin": "http://evil.example"},
        {"Origin": "null"},
        {"Origin": "http://localhost:1"},
        {"Sec_Fetch_Site": "same-origin", "Origin": "http://evil.example"},
    ],
)
def test_what_another_site_asks_is_refused_even_with_the_token(site: Site, headers: dict[str, str]) -> None:
    assert site.retry(ALL, **headers).status == 403
    for target in READ:
        assert site.ask(target, Authorization=f"Bearer {TOKEN}", **headers).status == 403


def test_what_the_page_itself_asks_is_answered(site: Site) -> None:
    headers = {"Sec_Fetch_Site": "same-origin", "Origin": site.url}
    assert site.retry(ALL, **headers).status == 200
    assert site.ask("/leftovers?kind=orphans", **headers).status == 200


def test_no_preflight_of_another_site_is_granted(site: Site) -> None:
    for target in ("/retry", "/events", "/picture"):
        answer = site.ask(target, "OPTIONS", Origin="http://evil.example", Access_Control_Request_Method="POST")
        assert answer.status == 405
        assert not [name for name in answer.headers if name.startswith("access-control")]


# With which token


@pytest.mark.parametrize(
    "given", ["", "Bearer", "Bearer ", "Bearer wrong", f"Basic {TOKEN}", f"Bearer {TOKEN}x", "Bearer ё"]
)
def test_nothing_is_changed_without_the_token(site: Site, given: str) -> None:
    answer = site.retry(ALL, Authorization=given)
    assert answer.status == 401
    assert answer.headers["www-authenticate"] == "Bearer"
    assert TOKEN not in answer.text


def test_a_form_can_change_nothing(site: Site) -> None:
    for media_type in ("application/x-www-form-urlencoded", "text/plain", "multipart/form-data; boundary=x", ""):
        assert site.retry(ALL, Content_Type=media_type).status == 415
    assert site.ask("/retry").status == 405


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"[]",
        b"{}",
        b'{"all": false}',
        b'{"refs": []}',
        b'{"refs": [7]}',
        b'{"refs": ["root=/&path=etc/passwd"]}',
        b'{"refs": ["path=a.jpg"]}',
        b"\xff",
        b"[" * 60_000,
    ],
)
def test_an_order_that_is_none_is_refused(site: Site, body: bytes) -> None:
    assert site.retry(body).status == 400


def test_an_order_that_leads_out_of_the_root_is_refused(site: Site) -> None:
    root = urllib.parse.quote(str(site.root), safe="")
    for path in ("", "..", "../secret.jpg", "a/../../secret.jpg", "%2e%2e/secret.jpg", "/etc", "a%00.jpg"):
        assert site.retry(json.dumps({"refs": [f"root={root}&path={path}"]}).encode()).status == 400


def test_an_order_that_is_too_long_is_refused(site: Site) -> None:
    assert site.retry(json.dumps({"refs": ["x" * 100_000]}).encode()).status == 413


# What every answer bears


def test_every_answer_says_what_a_browser_may_do_with_it(site: Site) -> None:
    answers = [site.ask(target) for target in (*SHELL, *READ, "/static/none")]
    answers += [site.ask("/", host="evil.example"), site.retry(ALL, Authorization=""), site.ask("/events", "HEAD")]
    for answer in answers:
        assert {name: answer.headers[name.lower()] for name in HEADERS} == HEADERS
        assert "set-cookie" not in answer.headers
        assert "server" not in answer.headers
    policy = answers[0].headers["content-security-policy"]
    for directive in ("default-src 'none'", "script-src 'self'", "style-src 'self'", "frame-ancestors 'none'"):
        assert directive in policy
    assert "unsafe" not in policy


def test_the_shell_tells_nothing_of_the_tree(site: Site) -> None:
    for target in SHELL:
        answer = site.ask(target)
        assert answer.status == 200
        assert str(site.root) not in answer.text
        assert TOKEN not in answer.text


# What is not there


@pytest.mark.parametrize(
    "target",
    [
        "/static/../routes.py",
        "/static/%2e%2e/routes.py",
        "/static/..%2froutes.py",
        "/static/%252e%252e%252froutes.py",
        "/static/..%5croutes.py",
        "/static/page.css%00",
        "/static/",
        "//etc/passwd",
        "/../../etc/passwd",
        "/etc/passwd",
    ],
)
def test_no_file_but_those_of_the_page_is_served(site: Site, target: str) -> None:
    assert site.ask(target).status == 404


# Pictures


def test_an_original_and_its_sidecar_are_served_as_what_they_are(site: Site) -> None:
    for path, media_type in (("iblock/0/480_480_1/photo0.jpg", "image/jpeg"), ("iblock/0/logo.png", "image/png")):
        original, sidecar = site.picture(path, "original"), site.picture(path, "webp")
        assert (original.status, original.headers["content-type"]) == (200, media_type)
        assert original.body == (site.root / path).read_bytes()
        assert (sidecar.status, sidecar.headers["content-type"]) == (200, "image/webp")
        assert sidecar.body == (site.root / f"{path}.webp").read_bytes()
        assert original.headers["cache-control"] == "private, no-store"


def test_names_that_are_not_utf8_and_capitals_are_served_too(site: Site) -> None:
    assert site.picture(b"iblock/\xd4\xee\xf2\xee/\xff.jpg").status == 200
    assert site.picture("iblock/0/UPPER.JPG").status == 200


@pytest.mark.parametrize(
    "path",
    [
        "../secret.jpg",
        "../../secret.jpg",
        "iblock/../../../secret.jpg",
        "iblock/./damaged.jpg",
        "iblock//damaged.jpg",
        "/iblock/damaged.jpg",
        "iblock/damaged.jpg/",
        "iblock/damaged.jpg\0",
        "iblock/damaged.jpg\0.png",
        "iblock\\damaged.jpg",
        "",
        ".",
        "iblock",
        "iblock/notes.txt",
        "iblock/none.jpg",
        "iblock/link.jpg",
        "iblock/absolute.jpg",
        "iblock/elsewhere/secret.jpg",
        "iblock/folder.jpg",
        "iblock/pipe.jpg",
        "iblock/notes.txt/x.jpg",
        "x" * 300 + ".jpg",
        "%2e%2e/secret.jpg",
        "..%2fsecret.jpg",
        "%252e%252e%252fsecret.jpg",
    ],
)
def test_nothing_but_an_image_below_the_root_is_served(site: Site, path: str) -> None:
    for kind in ("original", "webp"):
        answer = site.picture(path, kind)
        assert answer.status == 404
        assert SECRET not in answer.body


def test_encoded_dots_and_slashes_lead_nowhere_else(site: Site) -> None:
    root = urllib.parse.quote(str(site.root), safe="")
    for path in (
        "..%2f..%2fsecret.jpg",
        "%2e%2e%2f%2e%2e%2fsecret.jpg",
        "..%252f..%252fsecret.jpg",
        "%c0%ae%c0%ae/secret.jpg",
    ):
        assert site.ask(f"/picture?root={root}&path={path}&kind=original").status == 404


def test_no_folder_but_a_root_is_one(site: Site) -> None:
    for root in (site.root.parent, site.root / "iblock", Path(f"{site.root}/"), Path("/")):
        assert site.picture("0/480_480_1/photo0.jpg", "original", root).status == 404
    assert site.ask("/picture").status == site.ask(f"/picture?{'a=b&' * 50}").status == 404
    assert site.picture("iblock/0/logo.png", "page").status == 404


def test_a_page_that_is_named_like_an_image_is_not_served(site: Site) -> None:
    assert site.picture("iblock/page.jpg", "original").status == 415


# Other hosts


def test_reading_takes_the_token_where_others_can_reach_the_page_and_the_log_says_so(exposed: Site) -> None:
    (warning,) = exposed.service.said("other hosts can reach the page")
    assert warning["level"] == "warning"
    assert TOKEN not in str(exposed.service.lines)
    for host in ("localhost", "cdn.example"):
        assert "Other hosts can reach this page" in exposed.ask("/", host=host).text
        for target in READ:
            assert exposed.ask(target, host=host).status == 401
        assert exposed.picture("photo.jpg", host=host).status == 401
        assert exposed.picture("photo.jpg", host=host, Authorization=f"Bearer {TOKEN}").status == 200
        assert exposed.ask("/events", host=host, Authorization=f"Bearer {TOKEN}").status == 200
    assert exposed.ask("/", host="127.0.0.1").status == 421


@pytest.mark.parametrize(
    ("variables", "by_others"),
    [
        ({}, False),
        ({"WEBPD_HEALTH_ADDRESS": "[::1]:8088"}, False),
        ({"WEBPD_HEALTH_ADDRESS": "127.0.0.2:8088"}, False),
        ({"WEBPD_HEALTH_ADDRESS": "localhost:8088"}, False),
        ({"WEBPD_HEALTH_ADDRESS": "off"}, False),
        ({"WEBPD_HEALTH_ADDRESS": "0.0.0.0:8088"}, True),
        ({"WEBPD_HEALTH_ADDRESS": "[::]:8088"}, True),
        ({"WEBPD_HEALTH_ADDRESS": "cdn.example:8088"}, True),
        ({"WEBPD_ALLOWED_HOSTS": "localhost,cdn.example"}, True),
        ({"WEBPD_ALLOWED_HOSTS": "10.0.0.1"}, True),
    ],
)
def test_the_page_is_this_hosts_own_only_where_both_address_and_names_are(
    variables: dict[str, str], by_others: bool
) -> None:
    assert access_of(load({}, variables).settings).exposed is by_others


def test_without_a_token_an_exposed_page_shows_nothing_and_no_page_changes_anything() -> None:
    own = access_of(load({}, {}).settings)
    exposed = access_of(load({}, {"WEBPD_HEALTH_ADDRESS": "0.0.0.0:8088"}).settings)
    for bearer in (b"Bearer ", b"Bearer none", b"Bearer None"):
        headers = [(b"host", b"localhost:8088"), (b"authorization", bearer)]
        request = Request({"type": "http", "headers": headers})
        assert own.refusal(request, Need.READ) is None
        for access, need in ((own, Need.WRITE), (exposed, Need.READ), (exposed, Need.WRITE)):
            refusal = access.refusal(request, need)
            assert refusal is not None
            assert refusal.status_code == 403
            assert b"WEBPD_TOKEN" in refusal.body
