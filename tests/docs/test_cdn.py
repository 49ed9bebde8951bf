"""docs/cdn.md: a caching nginx with the lines of the page, before an nginx with the configuration that webpd prints."""

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conftest import write
from tests.docs.pages import CHECKOUT
from tests.nginx.server import Nginx, printed

CHROME = "image/avif,image/webp,image/apng,image/svg+xml,image/*,*/*;q=0.8"
FIREFOX = "image/webp,*/*"
OLD = "image/png,image/svg+xml,image/*;q=0.8,*/*;q=0.5"
REFUSES = "image/webp;q=0,image/*"
PHOTO = "/upload/resize_cache/a/one.jpg"


@pytest.fixture
def origin(tmp_path: Path) -> Iterator[Nginx]:
    root = tmp_path / "cdn" / "upload" / "resize_cache"
    write(root / "a" / "one.jpg", b"the original")
    write(root / "a" / "one.jpg.webp", b"WebP")
    with Nginx(tmp_path / "origin", *printed(root, WEBPD_HINT_SOCKET="off")) as server:
        yield server


def cache(folder: Path, origin: Nginx, lines: str) -> Nginx:
    path = f"proxy_cache_path {folder}/cache keys_zone=images:1m use_temp_path=off;"
    http = f"{path}\n{printed(folder / 'upload', WEBPD_HINT_SOCKET='off')[0]}"
    seen = "add_header X-Cache $upstream_cache_status; proxy_cache_valid 200 1h;"
    return Nginx(folder, http, f"location / {{ {lines.replace('http://127.0.0.1:8080', origin.url)} {seen} }}")


def documented() -> str:
    text = (CHECKOUT / "docs" / "cdn.md").read_text("utf-8")
    found = re.search(r"^```nginx\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
    assert found
    return found[1]


def test_the_lines_of_the_page_keep_two_copies_and_mix_nothing(tmp_path: Path, origin: Nginx) -> None:
    with cache(tmp_path / "cache", origin, documented()) as between:
        got = [(between.ask(PHOTO, accept=accept)) for accept in (CHROME, OLD, FIREFOX, REFUSES, CHROME)]
        assert [answer.body for answer in got] == [b"WebP", b"the original", b"WebP", b"the original", b"WebP"]
        assert [answer.headers["X-Cache"] for answer in got] == ["MISS", "MISS", "HIT", "HIT", "HIT"]
        assert {answer.headers["Vary"] for answer in got} == {"Accept"}
        kept = [path for path in Path(between.folder / "cache").rglob("*") if path.is_file()]
        assert len(kept) == 2


def test_a_cache_that_honours_vary_mixes_nothing_and_keeps_a_copy_for_each_spelling(
    tmp_path: Path, origin: Nginx
) -> None:
    lines = f"proxy_cache images; proxy_cache_key $scheme$host$request_uri; proxy_pass {origin.url};"
    with cache(tmp_path / "cache", origin, lines) as between:
        got = [between.ask(PHOTO, accept=accept) for accept in (CHROME, OLD, FIREFOX, CHROME)]
        assert [answer.body for answer in got] == [b"WebP", b"the original", b"WebP", b"WebP"]
        assert [answer.headers["X-Cache"] for answer in got][:3] == ["MISS", "MISS", "MISS"]


def test_a_cache_that_ignores_vary_mixes_them(tmp_path: Path, origin: Nginx) -> None:
    lines = "proxy_cache images; proxy_cache_key $scheme$host$request_uri; proxy_ignore_headers Vary;"
    with cache(tmp_path / "cache", origin, f"{lines} proxy_pass {origin.url};") as between:
        assert between.ask(PHOTO, accept=CHROME).body == b"WebP"
        assert between.ask(PHOTO, accept=OLD).body == b"WebP"
