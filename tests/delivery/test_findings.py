"""What a site does wrong is found, each by itself, and nothing else is said of it."""

import gzip
import re
from collections.abc import Callable
from email.utils import formatdate
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

import webpd.delivery
from tests.delivery.site import ORIGINAL, WEBP, Reply, Request, Site, running
from tests.delivery.visit import bad, look, verdicts
from webpd.delivery.answer import Answer, Kind, kind_of
from webpd.delivery.client import Client, target_of
from webpd.delivery.examination import examine

DOCS = Path(__file__).parents[2] / "docs"

Change = Callable[[Request, Reply], None]
DATE = formatdate(1_600_000_000, usegmt=True)


def test_a_site_that_does_all_right_has_nothing_but_ok_and_is_told_what_it_saves() -> None:
    with running(Site()) as site:
        findings = look(site.url, fresh=True)
    assert bad(findings) == {}
    assert {"webp", "original", "vary", "saved", "etags", "unchanged", "ranges", "head", "fresh"} <= {
        *verdicts(findings.values())
    }
    assert f"{1 - len(WEBP) / len(ORIGINAL):.0%} saved" in findings["delivery.saved"].detail


def test_browsers_are_asked_as_they_ask_and_the_old_one_after_the_new_one_and_before() -> None:
    with running(Site()) as site:
        look(site.url)
        accepts = [request.headers.get("accept") for request in site.asked if request.method == "GET"]
    assert len({*accepts}) == 7
    assert None in accepts
    taking = [request.takes_webp for request in site.asked[:9]]
    assert {(True, False), (False, True)} <= {*pairwise(taking)}
    assert {request.headers["referer"] for request in site.asked} == {f"http://127.0.0.1:{site.port}/"}
    assert len(site.asked) < 24


def change(**headers: str | None) -> Change:
    """Return what sets these headers of all answers; None takes one away."""

    def to(request: Request, reply: Reply) -> None:
        for name, value in headers.items():
            reply.headers.pop(name.replace("_", "-"), None)
            if value is not None:
                reply.headers[name.replace("_", "-")] = value

    return to


def only(when: Callable[[Request, Reply], bool], then: Change) -> Change:
    """Return what changes some answers only."""
    return lambda request, reply: then(request, reply) if when(request, reply) else None


def is_webp(request: Request, reply: Reply) -> bool:
    return reply.body.startswith(b"RIFF")


def is_original(request: Request, reply: Reply) -> bool:
    return reply.body.startswith(b"\xff\xd8")


def forbid(request: Request, reply: Reply) -> None:
    reply.status, reply.body = 403, b"no"


def grow(request: Request, reply: Reply) -> None:
    reply.body += b"x" * len(ORIGINAL)


def empty(request: Request, reply: Reply) -> None:
    reply.body = b""


def limit(request: Request, reply: Reply) -> None:
    reply.status, reply.body = 429, b"slower"


def pack(request: Request, reply: Reply) -> None:
    reply.body = gzip.compress(reply.body)
    reply.headers["Content-Encoding"] = "gzip"


def curl(request: Request, reply: Reply) -> bool:
    return request.headers["user-agent"].startswith("curl")


def date_then_glue(request: Request, reply: Reply) -> None:
    reply.headers["Last-Modified"] = DATE
    del reply.headers["ETag"]


def same_for_all(request: Request, reply: Reply) -> None:
    """Answer 304 whatever the ETag is."""
    if "if-none-match" in request.headers:
        reply.status, reply.body = 304, b""


def glue(request: Request, reply: Reply) -> None:
    """Give the rest of the picture whatever If-Range says."""
    if "if-range" in request.headers and reply.status == 200:
        reply.status, reply.body = 206, reply.body[1:]


def cut_the_original(request: Request, reply: Reply) -> None:
    reply.body = ORIGINAL[: len(reply.body)]


def headless(request: Request, reply: Reply) -> None:
    reply.headers["Content-Type"] = "text/html"


def always_whole(request: Request, reply: Reply) -> None:
    request.headers.pop("if-none-match", None)
    request.headers.pop("range", None)


def two_dates(request: Request, reply: Reply) -> None:
    reply.headers["Last-Modified"] = DATE if is_original(request, reply) else formatdate(1_700_000_000, usegmt=True)


@pytest.mark.parametrize(
    ("site", "expected"),
    [
        pytest.param(Site(describe=only(curl, forbid)), {"answer": "fault"}, id="one is refused"),
        pytest.param(Site(describe=only(curl, empty)), {"answer": "fault"}, id="one is given nothing"),
        pytest.param(
            Site(describe=only(is_webp, change(Content_Type="image/jpeg"))), {"type": "warning"}, id="WebP called JPEG"
        ),
        pytest.param(
            Site(describe=only(is_webp, change(Content_Type="application/octet-stream"))),
            {"type": "fault"},
            id="WebP called bytes",
        ),
        pytest.param(
            Site(describe=only(is_original, change(Content_Type="image/png"))),
            {"type": "warning"},
            id="JPEG called PNG",
        ),
        pytest.param(Site(choose=lambda _: True), {"original": "fault"}, id="WebP for all"),
        pytest.param(
            Site(choose=lambda request: "webp" in request.headers.get("accept", "")), {"original": "warning"}, id="q=0"
        ),
        pytest.param(
            Site(choose=lambda request: request.headers.get("accept", "").startswith("image/webp,")),
            {"webp": "warning"},
            id="WebP for those only who name it first",
        ),
        pytest.param(
            Site(choose=lambda _: False, describe=change(Cache_Control="max-age=60")),
            {"webp": "warning"},
            id="no sidecar",
        ),
        pytest.param(
            Site(choose=lambda _: False), {"webp": "warning", "lifetime": "warning"}, id="no sidecar, kept long"
        ),
        pytest.param(Site(choose=lambda _: False, describe=change(Vary=None)), {"webp": "fault"}, id="not set up"),
        pytest.param(
            Site(describe=change(Vary="Accept-Encoding")), {"vary": "fault", "unchanged": "warning"}, id="Vary"
        ),
        pytest.param(
            Site(describe=only(is_original, change(Vary=None))),
            {"vary": "warning", "unchanged": "warning"},
            id="no Vary on the original",
        ),
        pytest.param(
            Site(finish=only(lambda _, reply: reply.status == 304, change(Vary=None))),
            {"unchanged": "warning"},
            id="no Vary on 304",
        ),
        pytest.param(Site(describe=only(is_webp, grow)), {"saved": "warning"}, id="WebP is larger"),
        pytest.param(Site(describe=change(Cache_Control=None)), {"lifetime": "warning"}, id="no Cache-Control"),
        pytest.param(
            Site(describe=change(Cache_Control=None, Date=DATE, Expires=formatdate(1_700_000_000, usegmt=True))),
            {},
            id="Expires alone",
        ),
        pytest.param(
            Site(describe=change(Cache_Control=None, Expires="0")), {"lifetime": "warning"}, id="expired for ever"
        ),
        pytest.param(Site(describe=change(Cache_Control="no-store")), {"lifetime": "warning"}, id="never kept"),
        pytest.param(Site(describe=change(Last_Modified=DATE)), {"dates": "warning"}, id="one date for both"),
        pytest.param(Site(describe=date_then_glue), {"dates": "fault", "etags": "warning"}, id="a date and no ETag"),
        pytest.param(Site(describe=two_dates), {}, id="a date for each is no harm"),
        pytest.param(Site(describe=change(ETag='"one"')), {"etags": "fault"}, id="one ETag for both"),
        pytest.param(Site(describe=change(ETag=None)), {"etags": "warning"}, id="no ETag"),
        pytest.param(Site(finish=same_for_all), {"unchanged": "fault"}, id="304 by the other ETag"),
        pytest.param(Site(finish=glue), {"ranges": "fault"}, id="halves of two pictures"),
        pytest.param(
            Site(finish=only(lambda _, reply: reply.status == 206, cut_the_original)),
            {"ranges": "fault"},
            id="a part of the other picture",
        ),
        pytest.param(
            Site(describe=only(lambda request, _: "if-none-match" in request.headers, limit)),
            {"unchanged": "fault"},
            id="asking for news is refused",
        ),
        pytest.param(
            Site(describe=only(lambda request, _: "range" in request.headers, limit)),
            {"ranges": "fault"},
            id="asking for a part is refused",
        ),
        pytest.param(Site(describe=always_whole), {"unchanged": "warning"}, id="always whole"),
        pytest.param(
            Site(describe=only(lambda request, _: request.method == "HEAD", headless)),
            {"head": "warning"},
            id="HEAD",
        ),
        pytest.param(Site(describe=only(is_webp, pack)), {"encoding": "warning"}, id="packed once more"),
    ],
)
def test_what_is_wrong_is_found_and_nothing_else_is_said(site: Site, expected: dict[str, str]) -> None:
    with running(site):
        findings = look(site.url)
    assert verdicts(bad(findings).values()) == expected


def test_of_those_who_were_refused_nothing_else_is_said() -> None:
    site = Site()
    site.describe = only(lambda *_: len(site.asked) > 1, limit)
    with running(site):
        findings = look(site.url)
    assert bad(findings).keys() == {"delivery.answer"}
    assert "status 429 for Safari 13" in findings["delivery.answer"].detail
    assert not {"delivery.webp", "delivery.original"} & findings.keys()


def test_who_ends_the_connection_is_told_by_what_question_it_was() -> None:
    def hang_up(request: Request, reply: Reply) -> None:
        raise ConnectionAbortedError

    with running(Site(finish=only(lambda request, _: "range" in request.headers, hang_up))) as site:
        *_, last = examine(Client(timeout=10), target_of(site.url))
    assert (last.id, last.verdict) == ("delivery.answer", "fault")
    assert "(asked by GET with Range" in last.detail


# What the site gives is no image to compare


@pytest.mark.parametrize(
    ("described", "word"),
    [
        (forbid, "403"),
        (lambda _, reply: _give(reply, b"<html>", "text/html"), "html"),
        (lambda _, reply: _give(reply, b""), "empty"),
        (lambda _, reply: _give(reply, b"GIF89a" + bytes(10)), "GIF instead of a JPEG or PNG"),
        (lambda _, reply: _give(reply, b"<html>", "image/jpeg"), "bytes that are no image (Content-Type image/jpeg)"),
    ],
)
def test_what_is_no_image_is_said_once_with_what_came_instead(described: Change, word: str) -> None:
    with running(Site(describe=described)) as site:
        findings = look(site.url)
        assert len(site.asked) == 1
    assert verdicts(findings.values()) == {"answer": "fault"}
    assert word in findings["delivery.answer"].detail
    assert bad(findings)


def test_a_sidecar_asked_for_by_its_own_name_is_not_taken_for_a_fault_of_the_site() -> None:
    with running(Site(choose=lambda _: True)) as site:
        findings = look(f"{site.url}.webp")
    assert [*findings] == ["delivery.answer"]
    assert "URL of the JPEG" in findings["delivery.answer"].cure


def test_webp_that_is_made_while_it_is_asked_for_is_no_fault() -> None:
    late = Site(choose=lambda request: request.takes_webp and len(late.asked) > 3)
    with running(late):
        findings = look(late.url)
    assert bad(findings) == {}
    assert "Chrome, Firefox, Safari" in findings["delivery.webp"].detail


def test_an_avif_is_taken_for_what_it_is_and_only_for_those_who_take_it() -> None:
    def avif(request: Request, reply: Reply) -> None:
        reply.headers |= {"Content-Type": "image/avif", "ETag": '"avif"'}
        reply.body = b"\0\0\0\x1cftypavif" + reply.body

    with running(Site(describe=only(is_webp, avif))) as site:
        findings = look(site.url)
    assert bad(findings) == {}
    assert "AVIF" in findings["delivery.webp"].detail


def _give(reply: Reply, body: bytes, kind: str = "image/gif") -> None:
    reply.body, reply.headers["Content-Type"] = body, kind


# What stands between tells of itself


@pytest.mark.parametrize(
    ("headers", "name", "cure"),
    [
        ({"Server": "cloudflare", "CF-RAY": "8f-DME", "CF-Cache-Status": "HIT"}, "Cloudflare", "Vary for Images"),
        ({"Server": "BunnyCDN-DE1-722", "CDN-PullZone": "1", "CDN-Cache": "HIT"}, "Bunny", "Vary Cache"),
        (
            {"Via": "1.1 f.cloudfront.net (CloudFront)", "X-Amz-Cf-Id": "x", "X-Cache": "Hit from cloudfront"},
            "CloudFront",
            "Accept",
        ),
        ({"Via": "1.1 varnish", "X-Served-By": "cache-fra-etou1", "X-Cache": "HIT"}, "Fastly", "VCL"),
        ({"Server": "AkamaiGHost"}, "Akamai", "cache ID"),
        ({"X-Varnish": "32770 3", "Via": "1.1 shop (Varnish/7.1)", "Age": "12"}, "Varnish", "VCL"),
        ({"X-Cache-Status": "HIT"}, "nginx", "proxy_ignore_headers"),
        ({"Age": "12"}, "a cache", "honour `Vary: Accept`"),
    ],
)
def test_a_cdn_that_gives_webp_to_all_is_named_with_its_own_cure(headers: dict[str, str], name: str, cure: str) -> None:
    with running(Site(choose=lambda _: True, finish=lambda _, reply: reply.headers.update(headers))) as site:
        finding = look(site.url)["delivery.original"]
    assert finding.verdict == "fault"
    assert name in finding.detail
    assert cure in finding.cure


def test_an_original_out_of_a_cache_is_not_blamed_on_the_web_server() -> None:
    with running(Site(choose=lambda _: False, describe=change(X_Cache="HIT", Cache_Control="max-age=60"))) as site:
        findings = look(site.url)
    assert verdicts(bad(findings).values()) == {"webp": "warning"}
    assert "X-Cache: HIT" in findings["delivery.webp"].detail
    assert "--fresh" in findings["delivery.webp"].cure


def test_a_cached_original_without_vary_may_be_older_than_the_configuration_of_the_web_server() -> None:
    with running(Site(choose=lambda _: False, describe=change(X_Cache="HIT", Vary=None))) as site:
        finding = look(site.url)["delivery.webp"]
    assert finding.verdict == "fault"
    assert "X-Cache: HIT" in finding.detail
    assert "--via" in finding.cure


@pytest.mark.parametrize(
    ("name", "value", "kept"),
    [
        ("X-Cache", "TCP_HIT from a23-1.deploy.example (AkamaiGHost)", True),
        ("X-Cache", "RefreshHit from cloudfront", True),
        ("X-Cache", "MISS, HIT", True),
        ("Cache-Status", "edge; hit", True),
        ("CF-Cache-Status", "REVALIDATED", True),
        ("X-Cache-Status", "STALE", True),
        ("Age", "3", True),
        ("Age", "0", False),
        ("X-Cache", "TCP_MISS from a23-1.deploy.example (AkamaiGHost)", False),
        ("CF-Cache-Status", "DYNAMIC", False),
        ("X-Cache-Status", "EXPIRED", False),
    ],
)
def test_what_comes_out_of_a_cache_is_known_by_the_words_of_each(name: str, value: str, kept: bool) -> None:
    assert Answer("http://shop.example/a.jpg", (), 200, ((name, value),)).from_cache == kept


@given(st.binary(max_size=40))
def test_no_bytes_are_too_strange_to_be_told_apart(data: bytes) -> None:
    assert (kind_of(data) is Kind.EMPTY) == (not data)


def test_all_that_may_be_found_is_in_the_documents() -> None:
    sources = Path(webpd.delivery.__file__).parent.glob("*.py")
    found = {name for source in sources for name in re.findall(r'"(delivery\.[a-z_]+)"', source.read_text())}
    told = re.findall(r"^\| `(delivery\.[a-z_]+)` \|", (DOCS / "check.md").read_text(), re.MULTILINE)
    assert sorted(told) == sorted(found)
