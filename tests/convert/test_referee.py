"""The comparison itself: it must be able to say no."""

from collections.abc import Callable
from typing import Any

import pytest
from PIL import Image, ImageEnhance, ImageOps

from tests import pictures
from tests.convert.animations import differences
from tests.referee import Chromium
from webpd.convert.converter import ImageConverter

_SIZE = (160, 120)


def _photo() -> Image.Image:
    return pictures.pixels("coffee.png", *_SIZE)


def _with_garbage_block() -> Image.Image:
    spoilt = _photo().copy()
    spoilt.paste((127, 127, 127), (64, 64, 72, 72))
    return spoilt


_WRONG: dict[str, Callable[[], Image.Image]] = {
    "turned by 180 degrees": lambda: _photo().rotate(180),
    "mirrored": lambda: ImageOps.mirror(_photo()),
    "shifted by two pixels": lambda: _photo().transform(_SIZE, Image.Transform.AFFINE, (1, 0, 2, 0, 1, 2)),
    "of inverted colours": lambda: ImageOps.invert(_photo()),
    "with red and blue exchanged": lambda: Image.merge("RGB", _photo().split()[::-1]),
    "a little too bright": lambda: ImageEnhance.Brightness(_photo()).enhance(1.03),
    "of a gamma slightly off": lambda: _photo().point([round(255 * (v / 255) ** 0.95) for v in range(256)] * 3),
    "with one grey block": _with_garbage_block,
    "of another size": lambda: _photo().resize((159, 120)),
}


@pytest.mark.parametrize("fault", _WRONG)
def test_the_referee_refuses_a_sidecar(fault: str, chromium: Chromium, converter: ImageConverter) -> None:
    original = pictures.imagemagick(_photo(), "png:-")
    wrong = converter.convert(pictures.imagemagick(_WRONG[fault](), "png:-")).webp
    assert not chromium.compare(original, wrong).same()


def test_the_referee_accepts_the_right_sidecar(chromium: Chromium, converter: ImageConverter) -> None:
    original = pictures.imagemagick(_photo(), "png:-")
    assert chromium.compare(original, converter.convert(original).webp).same()


@pytest.mark.parametrize(
    "segments",
    [
        [pictures.exif_segment(pictures.tiff(3))],
        [pictures.exif_segment(pictures.tiff(6))],
        pictures.icc_segments(pictures.icc_profile("a98")),
        pictures.icc_segments(pictures.icc_profile("esrgb")),
    ],
    ids=["turn by 180 degrees", "turn by 90 degrees", "Adobe RGB", "extended sRGB"],
)
def test_the_referee_refuses_a_sidecar_that_has_lost_its(
    segments: list[bytes], chromium: Chromium, converter: ImageConverter
) -> None:
    plain = pictures.cjpeg(_photo(), "-sample", "1x1")
    original = pictures.with_segments(plain, *segments)
    assert not chromium.compare(original, converter.convert(plain).webp).same()


@pytest.mark.parametrize("gamma", [43_000, 48_000, 55_555, 100_000])
def test_the_referee_refuses_a_sidecar_that_has_lost_its_gamma(
    gamma: int, chromium: Chromium, converter: ImageConverter
) -> None:
    plain = pictures.png(_SIZE, pictures.RGB, _photo().tobytes())
    original = pictures.with_chunks(plain, pictures.gama(gamma))
    assert not chromium.compare(original, converter.convert(plain).webp).same()


def test_the_referee_sees_lost_transparency(chromium: Chromium, converter: ImageConverter) -> None:
    cut_out = _photo().convert("RGBA")
    cut_out.putalpha(Image.radial_gradient("L").resize(_SIZE))
    original = pictures.png(_SIZE, pictures.RGB_ALPHA, cut_out.tobytes())
    opaque = converter.convert(pictures.imagemagick(_photo(), "png:-")).webp
    assert not chromium.compare(original, opaque).same()
    assert chromium.compare(original, converter.convert(original).webp).same()


def test_the_referee_sees_nothing_where_nothing_decodes(chromium: Chromium) -> None:
    verdict = chromium.compare(pictures.cjpeg(_photo()), b"RIFF\0\0\0\0WEBP")
    assert verdict.original_shown
    assert not verdict.sidecar_shown
    assert not verdict.same()


_FRAMES = ("chelsea.png", "coffee.png", "astronaut.png")


def _animation(*, names: tuple[str, ...] = _FRAMES, delay: int = 10, plays: int = 0, shift: int = 0) -> bytes:
    frames = [pictures.frame(pictures.pixels(name, *_SIZE), delay=(delay, 100)) for name in names]
    frames.append(pictures.frame(_photo().resize((40, 32)), (40 + shift, 40), delay=(delay, 100)))
    return pictures.apng(frames, _SIZE, plays=plays)


@pytest.mark.parametrize(
    "wrong",
    [
        {"names": _FRAMES[::-1]},
        {"names": _FRAMES[:2]},
        {"delay": 11},
        {"plays": 3},
        {"shift": 2},
    ],
    ids=["frames in another order", "a frame lost", "another delay", "another loop count", "a frame shifted"],
)
def test_the_referee_refuses_an_animation(wrong: dict[str, Any], chromium: Chromium, converter: ImageConverter) -> None:
    original = chromium.play(_animation())
    right = chromium.play(converter.convert(_animation()).webp)
    sidecar = chromium.play(converter.convert(_animation(**wrong)).webp)
    assert original is not None
    assert right is not None
    assert sidecar is not None
    assert differences(original, right) == []
    assert differences(original, sidecar) != []
