"""Real nginx: with the configuration that webpd prints all is well, also behind a cache that honours Vary."""

import shutil
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.conftest import WEBPD, write
from tests.delivery.visit import bad, check, found, look, verdicts
from tests.nginx.server import Nginx, printed
from webpd.delivery.browsers import OLD_SAFARI
from webpd.delivery.client import Client, target_of

PHOTO = "/upload/resize_cache/iblock/abc/200_200_1/photo.jpg"
BARE = "/upload/resize_cache/iblock/abc/200_200_1/bare.jpg"  # has no sidecar


@dataclass(frozen=True)
class Shop:
    """A web server as ``webpd nginx`` sets it up, over a tree with a photograph with a sidecar and one without."""

    nginx: Nginx
    document_root: Path

    @property
    def url(self) -> str:
        return f"{self.nginx.url}{PHOTO}"


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory, photograph: Callable[..., bytes]) -> Iterator[Shop]:
    folder = tmp_path_factory.mktemp("shop")
    document_root = folder / "www"
    root = document_root / "upload" / "resize_cache"
    write(Path(f"{document_root}{PHOTO}"), photograph(200))
    subprocess.run([*WEBPD, "convert", str(root)], check=True, capture_output=True)
    write(Path(f"{document_root}{BARE}"), photograph(200, "coffee.png"))
    with Nginx(folder / "nginx", *printed(root, WEBPD_HINT_SOCKET="off")) as nginx:
        yield Shop(nginx, document_root)


@contextmanager
def cache(folder: Path, shop: Shop, options: str = "") -> Iterator[str]:
    """Put nginx before the shop, as a cache that starts empty; give the URL of the photograph."""
    http = f"proxy_cache_path {folder}/kept keys_zone=kept:1m;"
    server = f"""
        location / {{
            proxy_pass {shop.nginx.url};
            proxy_cache kept;
            proxy_cache_valid 200 1h;
            add_header X-Cache-Status $upstream_cache_status;
            {options}
        }}
    """
    with Nginx(folder, http, server) as nginx:
        yield f"{nginx.url}{PHOTO}"


def test_with_the_configuration_that_webpd_prints_nothing_is_amiss(shop: Shop) -> None:
    assert bad(look(shop.url, fresh=True)) == {}
    findings = found(check("--json", shop.url))
    assert {each["verdict"] for each in findings.values()} == {"ok"}
    assert "saved" in findings["delivery.saved"]["detail"]


def test_an_image_without_a_sidecar_is_no_fault_and_what_to_do_is_said(shop: Shop) -> None:
    findings = look(f"{shop.nginx.url}{BARE}")
    assert verdicts(bad(findings).values()) == {"webp": "warning"}
    assert "ask again in a minute" in findings["delivery.webp"].cure


def test_an_image_that_is_gone_is_told_as_such_though_its_sidecar_is_still_there(shop: Shop) -> None:
    sidecar = Path(f"{shop.document_root}{PHOTO}.webp")
    left = sidecar.with_name("gone.jpg.webp")
    shutil.copy2(sidecar, left)
    findings = look(f"{shop.nginx.url}{PHOTO.replace('photo', 'gone')}")
    left.unlink()
    assert findings["delivery.answer"].detail == "status 404"


def test_nginx_without_that_configuration_is_found_not_to_be_set_up(shop: Shop, tmp_path: Path) -> None:
    with Nginx(tmp_path, server=f"location / {{ root {shop.document_root}; }}") as plain:
        findings = look(f"{plain.url}{PHOTO}")
    assert findings["delivery.webp"].verdict == "fault"
    assert "`webpd nginx`" in findings["delivery.webp"].cure


def test_webp_by_try_files_for_all_is_a_fault_for_those_who_can_not_read_it(shop: Shop, tmp_path: Path) -> None:
    server = f"location / {{ root {shop.document_root}; try_files $uri.webp $uri =404; }}"
    with Nginx(tmp_path, server=server) as naive:
        findings = look(f"{naive.url}{PHOTO}")
    assert findings["delivery.original"].verdict == "fault"
    assert findings["delivery.vary"].verdict == "fault"


def test_the_usual_recipe_with_a_date_is_found_to_keep_browsers_at_the_original(shop: Shop, tmp_path: Path) -> None:
    http = 'map $http_accept $suffix { default ""; "~*webp" ".webp"; }'
    server = f"""
        location / {{
            root {shop.document_root};
            add_header Vary Accept;
            expires 30d;
            try_files $uri$suffix $uri =404;
        }}
    """
    with Nginx(tmp_path, http, server) as usual:
        findings = look(f"{usual.url}{PHOTO}")
    # A sidecar carries its original's time: halves of the two look as if they belonged together.
    assert verdicts(bad(findings).values()) == {"original": "warning", "dates": "warning"}
    assert "If-Range" in findings["delivery.dates"].detail


# Caches


def test_behind_a_cache_that_honours_vary_nothing_is_amiss_and_what_it_says_is_told(shop: Shop, tmp_path: Path) -> None:
    with cache(tmp_path, shop) as url:
        findings = look(url, fresh=True)
        again = look(url)
    assert bad(findings) == bad(again) == {}
    assert "X-Cache-Status: MISS" in findings["delivery.between"].detail
    assert "X-Cache-Status: HIT" in again["delivery.between"].detail


def test_a_proxy_that_packs_images_is_told_so_and_its_unpacked_parts_are_no_fault(shop: Shop, tmp_path: Path) -> None:
    server = (
        f"location / {{ proxy_pass {shop.nginx.url}; gzip on; gzip_proxied any; gzip_types image/jpeg image/webp; }}"
    )
    with Nginx(tmp_path, server=server) as packing:
        findings = look(f"{packing.url}{PHOTO}")
    assert verdicts(bad(findings).values()) == {"encoding": "warning"}
    assert findings["delivery.ranges"].verdict == "ok"


def test_a_cache_that_ignores_vary_is_found_once_it_has_webp(shop: Shop, tmp_path: Path) -> None:
    with cache(tmp_path, shop, "proxy_ignore_headers Vary;") as url:
        findings = look(url)
    finding = findings["delivery.original"]
    assert finding.verdict == "fault"
    assert "a cache of nginx (X-Cache-Status: HIT)" in finding.detail
    assert "proxy_ignore_headers" in finding.cure


def test_a_cache_that_ignores_vary_is_found_though_it_has_the_original(shop: Shop, tmp_path: Path) -> None:
    with cache(tmp_path, shop, "proxy_ignore_headers Vary;") as url:
        Client().ask(target_of(url), OLD_SAFARI.headers)
        findings = look(url, fresh=True)
    assert findings["delivery.webp"].verdict == "warning"
    assert "--fresh" in findings["delivery.webp"].cure
    assert findings["delivery.fresh"].verdict == "fault"
    assert "ignores `Vary: Accept`" in findings["delivery.fresh"].detail


def test_a_cache_that_hides_vary_from_browsers_is_found(shop: Shop, tmp_path: Path) -> None:
    with cache(tmp_path, shop, "proxy_hide_header Vary;") as url:
        findings = look(url)
    assert findings["delivery.vary"].verdict == "fault"


def test_the_web_server_behind_a_cache_can_be_asked_alone(shop: Shop, tmp_path: Path) -> None:
    with cache(tmp_path, shop, "proxy_ignore_headers Vary;") as url:
        assert check(url).returncode == 3
        assert check("--via", f"127.0.0.1:{shop.nginx.port}", url).returncode == 0
