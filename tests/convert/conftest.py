"""One Chromium for the whole session, and a converter as the service has it."""

from collections.abc import Iterator

import pytest

from tests.referee import Chromium, open_chromium
from webpd.convert.converter import ImageConverter
from webpd.model import Encoding


@pytest.fixture(scope="session")
def chromium() -> Iterator[Chromium]:
    with open_chromium() as browser:
        yield browser


@pytest.fixture(scope="session")
def converter() -> ImageConverter:
    return ImageConverter(Encoding(quality=90, method=4), max_pixels=50_000_000)
