"""What ``webpd nginx`` prints: two files that nginx takes, and words where it can't be told."""

import re
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.conftest import Ended
from tests.nginx.server import Nginx, printed

Command = Callable[..., Ended]
ROOT = "/var/www/cdn/upload/resize_cache"


def test_the_parts_are_printed_apart_and_together(webpd: Command) -> None:
    http, server, both = (webpd("nginx", *part, ROOT) for part in (("--part", "http"), ("--part", "server"), ()))
    assert [ended.code for ended in (http, server, both)] == [0, 0, 0]
    assert http.out + server.out == re.sub("^# =====.*\n|^\n(?=# =====)", "", both.out, flags=re.MULTILINE)
    assert "/etc/nginx/conf.d/00-webpd.conf" in both.out
    assert "/etc/nginx/snippets/webpd.conf" in both.out
    assert both.err == ""


def test_what_is_printed_for_the_defaults_is_what_tests_serve(webpd: Command) -> None:
    ended = webpd("nginx", "--part", "server", "--access-log", "off")
    assert (webpd("nginx", "--part", "http").out, ended.out) == printed()
    assert f'root "{ROOT.removesuffix("/upload/resize_cache")}";' in ended.out


@pytest.mark.parametrize(
    ("roots", "environment"),
    [
        ((), {}),
        (("/srv/a/upload/resize_cache", "/srv/a/upload/iblock"), {"WEBPD_EXCLUDE": "[]"}),
        (("/home/bitrix/www/upload",), {"WEBPD_HINT_SOCKET": "off"}),
        (("/photos",), {}),
        (("/srv/photos",), {"WEBPD_DOCUMENT_ROOT": "/"}),
        (("/srv/with space/'quotes\"/фото",), {"WEBPD_EXCLUDE": "a*b,c?d/*,[x]/y,srv/*"}),
        ((), {"WEBPD_EXCLUDE": "resize_cache/webp,upload/resize_cache/webp,resize_cache/webp/x"}),
        (("/srv/.hidden/root",), {"WEBPD_HINT_SOCKET": "/run/other.sock"}),
    ],
)
def test_nginx_takes_it(tmp_path: Path, roots: tuple[str, ...], environment: dict[str, str]) -> None:
    nginx = Nginx(tmp_path, *printed(*map(Path, roots), **environment))
    assert nginx.check() == ""


def test_of_a_root_that_holds_more_than_thumbnails_it_says_where_its_part_must_stand(webpd: Command) -> None:
    ended = webpd("nginx", "--part", "server", "/srv/shop/upload", "/srv/shop/photos/resize_cache")
    assert "/srv/shop/upload: this is no resize_cache" in ended.err
    assert "photos" not in ended.err
    assert "MUST STAND ABOVE THE REGEX LOCATIONS" in ended.out
    assert webpd("nginx", "--part", "http", "/srv/shop/upload").err == ""
    assert "MUST STAND" not in webpd("nginx", "/srv/shop/photos/resize_cache").out


def test_a_file_is_no_folder_to_serve(webpd: Command, tmp_path: Path) -> None:
    (tmp_path / "a.jpg").touch()
    ended = webpd("nginx", str(tmp_path / "a.jpg"))
    assert (ended.code, ended.out) == (2, "")
    assert "this is a file" in ended.err


def test_parts_of_two_sites_stand_on_one_host(tmp_path: Path) -> None:
    http, shop = printed(Path("/srv/shop/upload/resize_cache"))
    _, blog = printed(Path("/srv/blog/upload/resize_cache"))
    nginx = Nginx(tmp_path, f"{http}\nserver {{ listen 127.0.0.1:1; server_name blog;\n{blog}\n}}", shop)
    assert nginx.check() == ""


def test_hints_are_told_of_where_there_is_a_socket(webpd: Command) -> None:
    hinting, without, off = (
        webpd("nginx", *options, **environment).out
        for options, environment in (
            (("--hints",), {"WEBPD_HINT_SOCKET": "/run/my.sock"}),
            (("--no-hints",), {}),
            ((), {"WEBPD_HINT_SOCKET": "off"}),
        )
    )
    assert "access_log syslog:server=unix:/run/my.sock,nohostname,tag=webpd webpd_hint if=$webpd_hint;" in hinting
    assert "log_format webpd_hint" in hinting
    assert without == off
    assert "access_log" not in off
    assert "webpd_hint" not in off


def test_the_log_of_the_site_is_named_beside_the_hints(webpd: Command) -> None:
    assert "    access_log /var/log/nginx/access.log;\n" in webpd("nginx").out
    given = webpd("nginx", "--access-log", "/var/log/nginx/shop.log main buffer=32k").out
    assert "    access_log /var/log/nginx/shop.log main buffer=32k;\n" in given
    assert webpd("nginx", "--access-log", "off").out.count("access_log ") == 1


@pytest.mark.parametrize(
    ("arguments", "environment", "words"),
    [
        (("/srv/$price",), {}, "nginx can't be told this path"),
        (("/srv/a\nb",), {}, "nginx can't be told this path"),
        (("/srv/a\udcff",), {}, "nginx can't be told this path"),
        (("/srv/a/upload/x", "/srv/b/upload/x"), {}, "both served as /upload/x"),
        (("/srv/a",), {"WEBPD_DOCUMENT_ROOT": "/var/www"}, "WEBPD_DOCUMENT_ROOT"),
        (("--hints",), {"WEBPD_HINT_SOCKET": "off"}, "WEBPD_HINT_SOCKET is off"),
        (("--access-log", "/var/log/x; } evil {"), {}, "--access-log"),
        (("--access-log", ""), {}, "--access-log"),
        (("--part", "main"), {}, "--part"),
    ],
)
def test_what_nginx_cannot_be_told_is_refused_in_words(
    webpd: Command, arguments: tuple[str, ...], environment: dict[str, str], words: str
) -> None:
    ended = webpd("nginx", *arguments, **environment)
    assert ended.code == 2
    assert ended.out == ""
    assert words in ended.err
