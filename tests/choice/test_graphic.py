"""Text, logos and charts stay exact; photographs stay small."""

import io
import os
from collections import Counter
from collections.abc import Callable

import pytest
from PIL import Image

from webpd.convert.choice import is_graphic

from .corpus import (
    SIZES,
    Sample,
    cut_out,
    drawn_samples,
    icon,
    on_white,
    photo_samples,
    photographs,
    screenshot_samples,
    through_jpeg,
    thumbnail,
)

SIDES = SIZES if os.environ.get("PROVE") == "1" else (120, 300)


def webp_bytes(image: Image.Image, *, lossless: bool) -> int:
    """The size of the picture as WebP, lossy at quality 80."""
    buffer = io.BytesIO()
    mode = "RGBA" if image.has_transparency_data else "RGB"
    image.convert(mode).save(buffer, "WEBP", lossless=lossless, quality=80)
    return buffer.tell()


def wrong(samples: list[Sample]) -> Counter[str]:
    """How many of each kind were called what they are not."""
    return Counter(s.kind for s in samples if s.graphic is not None and is_graphic(s.image) != s.graphic)


DITHERED = "photo, palette of 256, dithered"


def test_photographs_are_coded_lossy_also_on_white_cut_out_noisy_and_from_palettes() -> None:
    samples = [s for s in photo_samples(SIDES) if s.kind != DITHERED]
    missed = wrong(samples)
    assert missed.total() <= 0.03 * len(samples), missed


def test_most_photographs_dithered_to_a_palette_of_their_own_are_coded_lossy() -> None:
    samples = [s for s in photo_samples(SIDES) if s.kind == DITHERED]
    assert wrong(samples).total() <= 0.3 * len(samples)


def test_graphics_that_pillow_draws_are_coded_lossless_in_every_mode() -> None:
    samples = list(drawn_samples(SIDES))
    missed = wrong(samples)
    assert missed.total() <= 0.12 * len(samples), missed


def test_pages_that_chromium_draws_are_coded_lossless_at_their_own_size() -> None:
    samples = [s for s in screenshot_samples(()) if not s.kind.startswith("css button")]
    assert wrong(samples) == Counter()


def test_the_choice_costs_few_bytes_over_the_smaller_coder_for_photographs() -> None:
    chosen = smaller = 0
    for sample in photo_samples((150,)):
        lossless, lossy = (webp_bytes(sample.image, lossless=way) for way in (True, False))
        chosen += lossless if is_graphic(sample.image) else lossy
        smaller += min(lossless, lossy)
    assert chosen <= 1.05 * smaller


@pytest.mark.parametrize(
    "convert",
    [
        lambda image: image,
        lambda image: image.convert("L"),
        lambda image: through_jpeg(image, 85),
        lambda image: on_white(image, 0.7),
        lambda image: on_white(image, 0.4),
        cut_out,
        lambda image: cut_out(image).convert("LA"),
        lambda image: image.quantize(256),
        lambda image: on_white(image, 0.7).quantize(128),
    ],
    ids=["RGB", "L", "from a JPEG", "on white", "small on white", "RGBA", "LA", "P", "P on white"],
)
def test_a_photograph_is_none_the_less_one_whatever_its_mode(
    convert: Callable[[Image.Image], Image.Image],
) -> None:
    image = thumbnail(photographs()["astronaut"], 300)
    assert not is_graphic(convert(image))


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA"])
def test_a_logo_is_a_graphic_in_every_mode(mode: str) -> None:
    logo = icon(200, 0)
    white = Image.alpha_composite(Image.new("RGBA", logo.size, "white"), logo)
    assert is_graphic((logo if mode in {"LA", "RGBA"} else white.convert("RGB")).convert(mode))


@pytest.mark.parametrize("size", [(1, 1), (1, 500), (500, 1), (2, 2), (16383, 3)])
@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA"])
def test_plain_pictures_of_any_shape_are_graphics(size: tuple[int, int], mode: str) -> None:
    assert is_graphic(Image.new(mode, size))


def test_colours_under_full_transparency_do_not_matter() -> None:
    noise = Image.effect_noise((200, 200), 100)
    hidden = Image.merge("RGBA", (noise, noise, noise, Image.new("L", noise.size, 0)))
    assert is_graphic(hidden)
    assert not is_graphic(hidden.convert("RGB"))


def test_a_palette_with_a_transparent_colour_is_judged_by_what_shows() -> None:
    logo = icon(100, 0).quantize(64)
    assert logo.has_transparency_data
    assert is_graphic(logo)


def test_a_big_picture_is_judged_by_all_its_regions() -> None:
    page = Image.new("RGB", (4000, 3000), "white")
    assert is_graphic(page)
    photo = thumbnail(photographs()["coffee"], 2600)
    page.paste(photo, (700, 600))
    assert not is_graphic(page)
