"""A converter as the service has it."""

import pytest

from webpd.convert.converter import ImageConverter
from webpd.model import Encoding


@pytest.fixture(scope="session")
def converter() -> ImageConverter:
    return ImageConverter(Encoding(quality=90, method=4), max_pixels=50_000_000)
