"""One service for all tests of the page, and one Chromium that looks at it."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.conftest import write
from tests.service.driver import Service
from tests.web import browser
from tests.web.browser import Visitors
from tests.web.site import TOKEN, Site, lay_out


@pytest.fixture(scope="session")
def site(tmp_path_factory: pytest.TempPathFactory, photograph: Callable[..., bytes]) -> Iterator[Site]:
    """The page on this host alone, once it has been through its tree."""
    folder = tmp_path_factory.mktemp("site")
    root = lay_out(folder, photograph)
    service = Service(folder, root, WEBPD_TOKEN=TOKEN)
    try:
        service.start()
        service.wait_until(lambda: len(list(root.rglob("*.webp"))) >= 8, "all that can be is converted")
        yield Site(service, root)
    finally:
        service.close()


@pytest.fixture(scope="session")
def exposed(tmp_path_factory: pytest.TempPathFactory, photograph: Callable[..., bytes]) -> Iterator[Site]:
    """The page where other hosts can reach it by a name."""
    folder = tmp_path_factory.mktemp("exposed")
    root = folder / "tree"
    write(root / "photo.jpg", photograph())
    service = Service(folder, root, WEBPD_TOKEN=TOKEN, WEBPD_ALLOWED_HOSTS="localhost,cdn.example")
    try:
        service.start()
        service.wait_until((root / "photo.jpg.webp").exists)
        yield Site(service, root)
    finally:
        service.close()


@pytest.fixture
def tree(tmp_path: Path, photograph: Callable[..., bytes]) -> Path:
    return lay_out(tmp_path, photograph)


@pytest.fixture(scope="session")
def visitors() -> Iterator[Visitors]:
    with browser.visitors() as all_:
        yield all_
