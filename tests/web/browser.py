"""The page in a real Chromium, which nobody else's page or request may get into."""

import os
from collections.abc import Callable, Iterator
from concurrent.futures import Executor, ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

from PIL import Image
from playwright.sync_api import Browser, Page, sync_playwright

from tests.referee import CHROMIUM

T = TypeVar("T")

_ROOT = "/var/www/cdn/upload/resize_cache"
_DOCS = Path(__file__).parents[2] / "docs"


class Visitors:
    """People who look at the page, each with a browser of their own language and colours.

    Playwright lives in one thread of its own: it keeps an event loop running, which no other test must find in its way.
    """

    def __init__(self, thread: Executor, browser: Browser) -> None:
        self._thread = thread
        self._browser = browser

    def look(
        self,
        url: str,
        work: Callable[[Page], T],
        *,
        width: int = 1440,
        height: int = 900,
        lang: str = "en-US",
        scheme: Any = "light",
        complaints: bool = False,
    ) -> T:
        """Return what ``work`` returns, called with the page once it shows what the service told.

        Fails where the browser complained of anything in its console (unless ``complaints``), or asked another host.
        """
        return self._thread.submit(self._look, url, work, width, height, lang, scheme, complaints).result()

    def _look(
        self, url: str, work: Callable[[Page], T], width: int, height: int, lang: str, scheme: Any, complaints: bool
    ) -> T:
        context = self._browser.new_context(
            viewport={"width": width, "height": height}, locale=lang, color_scheme=scheme, reduced_motion="reduce"
        )
        said: list[str] = []
        asked: list[str] = []
        try:
            page = context.new_page()
            page.on("console", lambda message: said.append(f"{message.type}: {message.text}"))
            page.on("pageerror", lambda error: said.append(str(error)))
            page.on("request", lambda request: asked.append(request.url))
            page.goto(url)
            result = work(page)
        finally:
            context.close()
        origin = "/".join(url.split("/")[:3]) + "/"
        assert [url for url in asked if not url.startswith((origin, f"blob:{origin}"))] == []
        assert complaints or said == []
        return result


@contextmanager
def visitors() -> Iterator[Visitors]:
    """Start a headless Chromium, Debian's."""
    with ThreadPoolExecutor(max_workers=1) as thread:
        playwright = thread.submit(sync_playwright().start).result()
        try:
            launch = playwright.chromium.launch
            arguments = ["--no-sandbox", "--disable-gpu", "--force-color-profile=srgb"]
            yield Visitors(thread, thread.submit(launch, executable_path=CHROMIUM, args=arguments).result())
        finally:
            thread.submit(playwright.stop).result()


def take(page: Page, name: str) -> None:
    """Keep a picture of the page for the documents, where SCREENSHOTS=1 asks for it."""
    if os.environ.get("SCREENSHOTS") != "1":
        return
    page.locator("#recent button").filter(has_text="photo1.jpg").click()
    page.wait_for_selector("#shown-path:has-text('photo1.jpg')")
    path = _DOCS / f"page-{name}.png"
    page.evaluate(
        """root => {
          const name = document.querySelector("[data-key^=root] .subject").firstChild;
          name.data = name.data.replace(/\\/.*/, root);
          scrollTo(0, 0);
        }""",
        _ROOT,
    )
    page.screenshot(path=path)
    with Image.open(path) as picture:
        small = picture.convert("RGB").quantize(128)  # a third of the size, and looks the same
    small.save(path, optimize=True)
