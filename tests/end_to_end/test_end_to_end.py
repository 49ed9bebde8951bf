"""All parts together and real: from what Bitrix writes on another host to what a visitor's browser shows."""

import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Page

from tests.conftest import write
from tests.delivery.visit import bad, look
from tests.lab import sshfs_lab, wait_for
from tests.nginx.server import Nginx, printed
from tests.service import writers
from tests.service.driver import Service
from tests.web import browser
from tests.web.browser import Visitors
from webpd.delivery.browsers import CHROME, OLD_SAFARI

PHOTO = "/upload/resize_cache/iblock/000/100_100_1/0.jpg"
PAGE = '<!doctype html><link rel="icon" href="data:,"><title>Shop</title><img id="photo" alt="">'


@pytest.fixture
def visitors() -> Iterator[Visitors]:
    with browser.visitors() as all_:
        yield all_


def show(page: Page) -> tuple[int, str | None, bytes]:
    """Let the page show the photograph; return its width as shown, and what the network log says came."""
    with page.expect_response(f"**{PHOTO}") as came:
        page.evaluate("path => { document.getElementById('photo').src = path }", PHOTO)
    page.wait_for_function("document.getElementById('photo').complete")
    width: int = page.evaluate("document.getElementById('photo').naturalWidth")
    return width, came.value.header_value("content-type"), came.value.body()


def test_a_thumbnail_of_bitrix_reaches_browsers_as_webp_over_a_mount_and_leaves_with_its_original(
    tmp_path: Path, photograph: Callable[..., bytes], visitors: Visitors
) -> None:
    full_size = write(tmp_path / "full.jpg", photograph(400))
    hints = str(tmp_path / "hint.sock")
    with sshfs_lab(tmp_path / "lab", options=("dcache_timeout=1", "ServerAliveInterval=15")) as lab:
        root = lab.mnt / "upload" / "resize_cache"
        (lab.origin / "upload" / "resize_cache").mkdir(parents=True)
        # Polling is far too slow to find anything here: what is converted was hinted at.
        service = Service(tmp_path, root, WEBPD_HINT_SOCKET=hints, WEBPD_POLL_INTERVAL="1h")
        nginx = Nginx(tmp_path / "nginx", *printed(root, WEBPD_HINT_SOCKET=hints))
        write(nginx.folder / "site" / "page.html", PAGE.encode())
        try:
            service.start()
            with nginx:
                # Nobody serves the service's socket for now: it stands still.
                service.signal(signal.SIGSTOP)
                writers.finish(writers.start("bitrix", full_size, lab.origin / "upload" / "resize_cache", 1, 0.2))
                original = Path(f"{lab.origin}{PHOTO}").read_bytes()
                assert len(original) < full_size.stat().st_size
                first = nginx.ask_with(PHOTO, CHROME.headers)
                assert (first.status, first.type, first.body) == (200, "image/jpeg", original)
                sidecar = Path(f"{lab.origin}{PHOTO}.webp")
                assert not sidecar.exists()

                service.signal(signal.SIGCONT)
                wait_for(sidecar.exists, "the visitor's hint brings a sidecar")
                assert service.metrics()['webpd_hints_total{result="taken",source="nginx"}'] >= 1

                width, type_, body = visitors.look(f"{nginx.url}/page.html", show)
                assert (type_, body) == ("image/webp", sidecar.read_bytes())
                assert width == 100
                old = nginx.ask_with(PHOTO, OLD_SAFARI.headers)
                assert (old.status, old.type, old.body) == (200, "image/jpeg", original)
                assert bad(look(f"{nginx.url}{PHOTO}")) == {}

                Path(f"{lab.origin}{PHOTO}").unlink()
                both = (CHROME, OLD_SAFARI)
                wait_for(
                    lambda: [nginx.ask_with(PHOTO, each.headers).status for each in both] == [404, 404],
                    "404 for both, once the mount has forgotten the original",
                )
                assert sidecar.exists()
        finally:
            service.close()
