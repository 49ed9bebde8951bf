"""Colours: whatever profile or gamma the original names, Chromium shows the sidecar the same."""

import struct
import zlib
from collections.abc import Callable

import pytest
from PIL import Image

from tests import pictures
from tests.referee import Chromium
from webpd.convert import profile
from webpd.convert.converter import ImageConverter
from webpd.errors import FailedError, UnsuitedError

_SIZE = (201, 133)
# x and y of white, red, green and blue
_SRGB = (0.3127, 0.329, 0.64, 0.33, 0.30, 0.60, 0.15, 0.06)
_DISPLAY_P3 = (0.3127, 0.329, 0.68, 0.32, 0.265, 0.69, 0.15, 0.06)
_BT_2020 = (0.3127, 0.329, 0.708, 0.292, 0.17, 0.797, 0.131, 0.046)


def _cat() -> Image.Image:
    return pictures.pixels("chelsea.png", *_SIZE)


def _cut_out() -> Image.Image:
    picture = _cat().convert("RGBA")
    picture.putalpha(Image.radial_gradient("L").resize(_SIZE))
    return picture


def _jpeg(icc_profile: bytes, *options: str, part: int = 65_000) -> bytes:
    jpeg = pictures.cjpeg(_cat(), "-sample", "1x1", *options)
    return pictures.with_segments(jpeg, *pictures.icc_segments(icc_profile, part))


def _cmyk(icc_profile: bytes) -> bytes:
    jpeg = pictures.imagemagick(_cat(), "-colorspace", "CMYK", "-quality", "92", "jpg:-")
    return pictures.with_segments(jpeg, *pictures.icc_segments(icc_profile))


def _png(*chunks: bytes) -> bytes:
    return pictures.png(_SIZE, pictures.RGB, _cat().tobytes(), before=chunks)


def _grey_png(*chunks: bytes) -> bytes:
    return pictures.png(_SIZE, pictures.GREY, _cat().convert("L").tobytes(), before=chunks)


def _transparent_png(*chunks: bytes) -> bytes:
    return pictures.png(_SIZE, pictures.RGB_ALPHA, _cut_out().tobytes(), before=chunks)


def _cicp(*code_points: int) -> bytes:
    return pictures.chunk(b"cICP", bytes(code_points))


def _display_p3() -> bytes:
    return profile.rgb_profile(_DISPLAY_P3, 2.2)


def _linear() -> bytes:
    return profile.rgb_profile(_SRGB, 1.0)


_ICC: dict[str, Callable[[], bytes]] = {
    "sRGB": lambda: pictures.icc_profile("srgb"),
    "Adobe RGB": lambda: pictures.icc_profile("a98"),
    "Display P3": _display_p3,
    "ROMM": lambda: pictures.icc_profile("rommrgb"),
    "linear": _linear,
    "grey": lambda: pictures.icc_profile("sgray"),
    "linear grey": lambda: pictures.icc_profile("ps_gray"),
    "cmyk": lambda: pictures.icc_profile("default_cmyk"),
    "cut": lambda: pictures.icc_profile("a98")[:300],
    "garbage": lambda: b"garbage " * 300,
    "longer than it says": lambda: pictures.icc_profile("a98") + bytes(50),
}


_MAKERS: dict[str, Callable[[bytes], bytes]] = {
    "rgb jpeg": _jpeg,
    "grey jpeg": lambda icc: _jpeg(icc, "-grayscale"),
    "cmyk jpeg": _cmyk,
    "rgb png": lambda icc: _png(pictures.iccp(icc)),
    "grey png": lambda icc: _grey_png(pictures.iccp(icc)),
    "transparent png": lambda icc: _transparent_png(pictures.iccp(icc)),
}


@pytest.mark.parametrize("name", _ICC)
@pytest.mark.parametrize("kind", _MAKERS)
def test_a_picture_with_a_profile_looks_the_same_in_chromium(
    kind: str, name: str, chromium: Chromium, converter: ImageConverter
) -> None:
    original = _MAKERS[kind](_ICC[name]())
    verdict = chromium.compare(original, converter.convert(original).webp)
    # By a CMYK profile LittleCMS and Chromium differ by up to two levels in red.
    assert verdict.same(bias=2.5 if name == "cmyk" else 1.5), verdict


@pytest.mark.parametrize("name", ["Adobe RGB", "Display P3", "ROMM"])
def test_wide_gamut_is_as_wide_on_a_wide_gamut_screen(name: str, chromium: Chromium, converter: ImageConverter) -> None:
    original = _jpeg(_ICC[name]())
    verdict = chromium.compare(original, converter.convert(original).webp, space="display-p3")
    assert verdict.same(), verdict


def test_a_profile_is_left_out_by_its_numbers_not_by_its_name(converter: ImageConverter) -> None:
    srgb, adobe_rgb = pictures.icc_profile("srgb"), pictures.icc_profile("a98")
    assert b"sRGB" in srgb
    assert b"ICCP" not in converter.convert(_jpeg(srgb)).webp
    assert b"ICCP" not in converter.convert(_jpeg(srgb.replace(b"sRGB", b"xRGB"))).webp
    assert b"ICCP" in converter.convert(_jpeg(adobe_rgb)).webp
    assert b"ICCP" in converter.convert(_jpeg(profile.rgb_profile(_SRGB, 2.2))).webp


def test_a_profile_in_many_parts_and_any_order_counts(chromium: Chromium, converter: ImageConverter) -> None:
    jpeg = pictures.cjpeg(_cat(), "-sample", "1x1")
    parts = pictures.icc_segments(pictures.icc_profile("rommrgb"), 200)
    original = pictures.with_segments(jpeg, *reversed(parts))
    assert chromium.compare(original, converter.convert(original).webp).same()


def test_a_profile_that_lacks_a_part_counts_for_nothing(chromium: Chromium, converter: ImageConverter) -> None:
    jpeg = pictures.cjpeg(_cat(), "-sample", "1x1")
    original = pictures.with_segments(jpeg, *pictures.icc_segments(pictures.icc_profile("rommrgb"), 200)[1:])
    webp = converter.convert(original).webp
    assert b"ICCP" not in webp
    assert chromium.compare(original, webp).same()


_GAMMAS = (0, 1, 22_727, 43_000, 43_400, 45_000, 45_455, 47_700, 48_000, 55_555, 100_000, 200_000)
_PRIMARIES = {"sRGB": _SRGB, "Display P3": _DISPLAY_P3, "BT.2020": _BT_2020}
_CHUNKS: dict[str, list[bytes]] = {
    "sRGB": [pictures.chunk(b"sRGB", b"\0")],
    "sRGB before a gamma": [pictures.chunk(b"sRGB", b"\0"), pictures.gama(100_000)],
    "a profile before a gamma": [pictures.iccp(pictures.icc_profile("a98")), pictures.gama(100_000)],
    "a broken profile before a gamma": [pictures.iccp(bytes(500)), pictures.gama(100_000)],
    "a profile without a name": [pictures.chunk(b"iCCP", b"\0\0" + zlib.compress(pictures.icc_profile("a98")))],
    "a profile cut": [pictures.chunk(b"iCCP", b"p\0\0" + zlib.compress(pictures.icc_profile("a98"))[:-40])],
    "primaries alone": [pictures.chrm(*_DISPLAY_P3)],
    "two gammas": [pictures.gama(55_555), pictures.gama(100_000)],
    "code points before a profile": [_cicp(12, 13, 0, 1), pictures.iccp(pictures.icc_profile("rommrgb"))],
    "code points before a gamma": [_cicp(1, 13, 0, 1), pictures.gama(100_000)],
    **{f"gamma {gamma}": [pictures.gama(gamma)] for gamma in _GAMMAS},
    **{
        f"gamma {gamma} and the primaries of {name}": [pictures.gama(gamma), pictures.chrm(*_PRIMARIES[name])]
        for gamma in (45_455, 55_555, 100_000)
        for name in _PRIMARIES
    },
    **{
        f"code points {primaries} and {transfer}": [_cicp(primaries, transfer, 0, 1)]
        for primaries in (1, 9, 12)
        for transfer in (1, 4, 5, 6, 7, 11, 13, 14, 15, 16, 17, 18)
    },
}


@pytest.mark.parametrize("name", _CHUNKS)
def test_a_png_with_colour_chunks_looks_the_same_in_chromium(
    name: str, chromium: Chromium, converter: ImageConverter
) -> None:
    original = _png(*_CHUNKS[name])
    verdict = chromium.compare(original, converter.convert(original).webp)
    # The curves of PQ and HLG multiply what a lossy coder takes.
    steep = "and 16" in name or "and 18" in name
    assert verdict.same(mean=9, block=30, far=0.05) if steep else verdict.same(), verdict


@pytest.mark.parametrize(
    "name", ["gamma 100000", "gamma 55555 and the primaries of Display P3", "code points 12 and 13"]
)
@pytest.mark.parametrize("make", [_grey_png, _transparent_png], ids=["grey", "transparent"])
def test_other_pngs_with_colour_chunks_look_the_same_in_chromium(
    make: Callable[..., bytes], name: str, chromium: Chromium, converter: ImageConverter
) -> None:
    original = make(*_CHUNKS[name])
    verdict = chromium.compare(original, converter.convert(original).webp)
    assert verdict.same(), verdict


def test_a_palette_with_a_gamma_looks_the_same_in_chromium(chromium: Chromium, converter: ImageConverter) -> None:
    few = _cat().quantize(100)
    palette = pictures.chunk(b"PLTE", bytes((few.getpalette() or [])[:300]))
    original = pictures.png(_SIZE, pictures.PALETTE, few.tobytes(), before=[pictures.gama(100_000), palette])
    assert chromium.compare(original, converter.convert(original).webp).same()


@pytest.mark.parametrize(
    "chunks",
    [
        [_cicp(12, 13, 1, 1)],
        [_cicp(12, 13, 0, 0)],
        [_cicp(99, 99, 0, 1)],
        [_cicp(9, 8, 0, 1)],
        [pictures.gama(45_455), pictures.chrm(*[0.0] * 8)],
        [pictures.gama(45_455), pictures.chrm(0.3127, 0.329, 0.6, 0.3, 0.6, 0.3, 0.1, 0.1)],
        [pictures.gama(1), pictures.chrm(*_DISPLAY_P3)],
        [pictures.gama(45_455), pictures.chunk(b"cHRM", bytes(31))],
    ],
    ids=["matrix", "limited range", "unknown", "linear", "no primaries", "primaries on a line", "no gamma", "cut"],
)
def test_colours_that_a_webp_cannot_name_give_no_sidecar(chunks: list[bytes], converter: ImageConverter) -> None:
    with pytest.raises((UnsuitedError, FailedError)):
        converter.convert(_png(*chunks))


def test_a_cmyk_profile_of_an_unusual_kind_gives_no_sidecar(converter: ImageConverter) -> None:
    with pytest.raises(UnsuitedError, match="CMYK profile"):
        converter.convert(_cmyk(pictures.icc_profile("ps_cmyk")))


def test_a_profile_of_no_screen_counts_for_nothing_in_a_jpeg(chromium: Chromium, converter: ImageConverter) -> None:
    original = _jpeg(pictures.icc_profile("lab"))
    assert chromium.compare(original, converter.convert(original).webp).same()


def test_a_profile_of_no_screen_gives_no_sidecar_of_a_png(converter: ImageConverter) -> None:
    with pytest.raises(UnsuitedError, match="not one for pictures"):
        converter.convert(_png(pictures.iccp(pictures.icc_profile("lab"))))


def test_a_grey_profile_is_converted_and_dropped(converter: ImageConverter) -> None:
    webp = converter.convert(_grey_png(pictures.iccp(pictures.icc_profile("ps_gray")))).webp
    assert b"ICCP" not in webp


def test_an_adobe_rgb_profile_costs_no_more_than_its_size(converter: ImageConverter) -> None:
    adobe_rgb = pictures.icc_profile("a98")
    plain = converter.convert(pictures.cjpeg(_cat(), "-sample", "1x1")).webp
    kept = converter.convert(_jpeg(adobe_rgb)).webp
    assert adobe_rgb in kept
    assert len(kept) - len(plain) < len(adobe_rgb) + 40
    assert struct.unpack_from("<I", kept, 4)[0] == len(kept) - 8
