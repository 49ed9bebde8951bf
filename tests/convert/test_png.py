"""PNG: what Chromium shows of the original, it shows of the sidecar; losslessly, pixel for pixel."""

import random
import struct
import zlib
from collections.abc import Callable
from functools import partial

import pytest
import pyvips
from PIL import Image

from tests import pictures
from tests.referee import Chromium
from webpd.convert.converter import ImageConverter
from webpd.errors import FailedError
from webpd.model import Failure

_SIZE = (97, 63)


def _cat() -> Image.Image:
    return pictures.pixels("chelsea.png", *_SIZE)


def _cut_out() -> Image.Image:
    picture = _cat().convert("RGBA")
    picture.putalpha(Image.radial_gradient("L").resize(_SIZE))
    return picture


def _by_imagemagick(colour: int, depth: int, *options: str) -> bytes:
    grey = ("-colorspace", "Gray") if colour == pictures.GREY else ()
    kind = ("-define", f"png:color-type={colour}", "-define", f"png:bit-depth={depth}")
    return pictures.imagemagick(_cat(), *grey, *options, *kind, "png:-")


def _interlaced(colour: int, depth: int) -> bytes:
    return _by_imagemagick(colour, depth, "-interlace", "PNG")


def _palette_by_libvips(depth: int, **options: bool) -> bytes:
    picture = pyvips.Image.new_from_memory(_cat().tobytes(), *_SIZE, 3, "uchar").copy(interpretation="srgb")
    made: bytes = picture.pngsave_buffer(palette=True, bitdepth=depth, **options)
    assert made[24:26] == bytes((depth, pictures.PALETTE))
    return made


def _palette(entries: int, alphas: bytes = b"", indexes: bytes = b"") -> bytes:
    few = _cat().quantize(200)
    colours = bytes((few.getpalette() or [])[: 3 * entries])
    before = [pictures.chunk(b"PLTE", colours)] + ([pictures.chunk(b"tRNS", alphas)] if alphas else [])
    return pictures.png(_SIZE, pictures.PALETTE, indexes or few.tobytes(), before=before)


def _grey_keyed(depth: int, key: int) -> bytes:
    samples = random.Random(depth).randbytes(64 * 40 * depth // 8)
    before = [pictures.chunk(b"tRNS", struct.pack(">H", key))]
    return pictures.png((64, 40), pictures.GREY, samples, depth=depth, before=before)


def _deep_grey_keyed() -> bytes:
    """Neighbouring 16-bit values, of which only one is transparent: their upper bytes are the same."""
    samples = b"".join(struct.pack(">H", value) for value in range(0x1230, 0x1230 + 64 * 4))
    return pictures.png(
        (64, 4), pictures.GREY, samples, depth=16, before=[pictures.chunk(b"tRNS", struct.pack(">H", 0x1255))]
    )


def _deep_rgb_keyed() -> bytes:
    samples = b"".join(struct.pack(">HHH", 0x8000 + value, 0x4000 + value % 7, value * 7) for value in range(64 * 64))
    key = struct.pack(">HHH", 0x8000 + 1234, 0x4000 + 1234 % 7, 1234 * 7)
    return pictures.png((64, 64), pictures.RGB, samples, depth=16, before=[pictures.chunk(b"tRNS", key)])


def _deep(colour: int, picture: Image.Image) -> bytes:
    samples = b"".join(bytes((value, value ^ 0x5A)) for value in picture.tobytes())
    return pictures.png(_SIZE, colour, samples, depth=16)


def _split(step: int) -> bytes:
    data = pictures.deflated(_SIZE, pictures.RGB, _cat().tobytes())
    parts = [pictures.chunk(b"IDAT", data[start : start + step]) for start in range(0, len(data), step)]
    return pictures.png_of(_plain()[8:33], *parts, pictures.chunk(b"IDAT"))


def _plain() -> bytes:
    return pictures.png(_SIZE, pictures.RGB, _cat().tobytes())


_CRUSH = (
    'folder=$(mktemp -d) && cat > "$folder/in.png" && pngcrush -q -brute "$folder/in.png" "$folder/out.png"'
    ' && cat "$folder/out.png" && rm -r "$folder"'
)


def _crushed() -> bytes:
    return pictures.run("sh", "-c", _CRUSH, given=pictures.imagemagick(_cat(), "-colors", "16", "png:-"))


_KINDS: dict[str, Callable[[], bytes]] = {
    **{f"grey {depth} bit": partial(_by_imagemagick, pictures.GREY, depth) for depth in (1, 2, 4, 8, 16)},
    **{f"grey {depth} bit interlaced": partial(_interlaced, pictures.GREY, depth) for depth in (1, 2, 4, 8, 16)},
    **{f"rgb {depth} bit": partial(_by_imagemagick, pictures.RGB, depth) for depth in (8, 16)},
    **{f"rgb {depth} bit interlaced": partial(_interlaced, pictures.RGB, depth) for depth in (8, 16)},
    **{f"palette {depth} bit": partial(_palette_by_libvips, depth) for depth in (1, 2, 4, 8)},
    **{
        f"palette {depth} bit interlaced": partial(_palette_by_libvips, depth, interlace=True) for depth in (1, 2, 4, 8)
    },
    **{f"grey {depth} bit keyed": partial(_grey_keyed, depth, 1) for depth in (1, 2, 4, 8)},
    "rgb with alpha": lambda: pictures.png(_SIZE, pictures.RGB_ALPHA, _cut_out().tobytes()),
    "grey with alpha": lambda: pictures.png(_SIZE, pictures.GREY_ALPHA, _cut_out().convert("LA").tobytes()),
    "rgb with alpha 16 bit": lambda: _deep(pictures.RGB_ALPHA, _cut_out()),
    "grey with alpha 16 bit": lambda: _deep(pictures.GREY_ALPHA, _cut_out().convert("LA")),
    "grey keyed beyond its bits": lambda: _grey_keyed(8, 0x1234),
    "grey 16 bit keyed": _deep_grey_keyed,
    "rgb keyed": lambda: pictures.with_chunks(
        _plain(), pictures.chunk(b"tRNS", struct.pack(">HHH", *_cat().tobytes()[300:303]))
    ),
    "rgb 16 bit keyed": _deep_rgb_keyed,
    "palette with alphas": lambda: _palette(200, bytes(range(200))),
    "palette with fewer alphas": lambda: _palette(200, bytes(range(0, 200, 4))),
    "palette with more alphas": lambda: _palette(200, bytes(range(250))),
    "palette shorter than its indexes": lambda: _palette(100),
    "palette shorter than its indexes with alphas": lambda: _palette(100, bytes(range(200))),
    "pixels in many chunks": lambda: _split(97),
    "text after the pixels": lambda: _plain()[:-12] + pictures.chunk(b"tEXt", b"a\0b") + _plain()[-12:],
    "text with a wrong sum": lambda: pictures.with_chunks(_plain(), pictures.chunk(b"tEXt", b"a\0b")[:-1] + b"!"),
    "data after the end": lambda: _plain() + bytes(3_000),
    "by pngcrush": _crushed,
}


@pytest.mark.parametrize("kind", _KINDS)
def test_a_png_looks_the_same_in_chromium(kind: str, chromium: Chromium, converter: ImageConverter) -> None:
    original = _KINDS[kind]()
    converted = converter.convert(original)
    verdict = chromium.compare(original, converted.webp)
    assert verdict.same(), verdict
    # Alpha is coded without loss in either case; colours only in one.
    assert verdict.alpha == 0
    if converted.picture.lossless:
        assert verdict.worst <= 1
    assert converted.picture.format == "png"


@pytest.mark.parametrize("orientation", range(10))
def test_the_orientation_in_a_png_is_turned_as_chromium_turns_it(
    orientation: int, chromium: Chromium, converter: ImageConverter
) -> None:
    original = pictures.with_chunks(_plain(), pictures.chunk(b"eXIf", pictures.tiff(orientation)))
    verdict = chromium.compare(original, converter.convert(original).webp)
    assert verdict.same(), verdict


def test_an_orientation_after_the_pixels_counts_for_nothing(chromium: Chromium, converter: ImageConverter) -> None:
    original = _plain()[:-12] + pictures.chunk(b"eXIf", pictures.tiff(6)) + _plain()[-12:]
    assert chromium.compare(original, converter.convert(original).webp).same()


def _short_of_rows(missing: int) -> bytes:
    rows = _SIZE[1] - missing
    data = pictures.deflated((_SIZE[0], rows), pictures.RGB, _cat().tobytes()[: 3 * _SIZE[0] * rows])
    return pictures.png_of(_plain()[8:33], pictures.chunk(b"IDAT", data))


def _unknown_filter() -> bytes:
    stride = 3 * _SIZE[0]
    rows = [_cat().tobytes()[row * stride : (row + 1) * stride] for row in range(_SIZE[1])]
    data = zlib.compress(b"".join((b"\x09" if row == 30 else b"\0") + pixels for row, pixels in enumerate(rows)))
    return pictures.png_of(_plain()[8:33], pictures.chunk(b"IDAT", data))


def _two_pieces() -> bytes:
    data = pictures.deflated(_SIZE, pictures.RGB, _cat().tobytes())
    first, second = (pictures.chunk(b"IDAT", part) for part in (data[:500], data[500:]))
    return pictures.png_of(_plain()[8:33], first, pictures.chunk(b"tEXt", b"a\0b"), second)


_DAMAGED: dict[str, Callable[[], bytes]] = {
    "cut in its header": lambda: _plain()[:20],
    "cut in its pixels": lambda: _plain()[:-400],
    "cut before its end": lambda: _plain()[:-12],
    "a wrong sum of its header": lambda: _plain()[:32] + b"!" + _plain()[33:],
    "a wrong sum of its pixels": lambda: _plain()[:-13] + b"!" + _plain()[-12:],
    "a wrong sum of its gamma": lambda: pictures.with_chunks(_plain(), pictures.gama(100_000)[:-1] + b"!"),
    "one row missing": lambda: _short_of_rows(1),
    "half of the rows missing": lambda: _short_of_rows(30),
    "an unknown filter": _unknown_filter,
    "pixels in two pieces": _two_pieces,
    "no pixels": lambda: pictures.png_of(_plain()[8:33]),
    "two headers": lambda: pictures.with_chunks(_plain(), _plain()[8:33]),
    "an unknown critical chunk": lambda: pictures.with_chunks(_plain(), pictures.chunk(b"ABCD", b"x")),
    "no palette": lambda: pictures.png(_SIZE, pictures.PALETTE, _cat().convert("L").tobytes()),
    "a palette cut": lambda: pictures.png(
        _SIZE, pictures.PALETTE, _cat().convert("L").tobytes(), before=[pictures.chunk(b"PLTE", bytes(31))]
    ),
    "no size": lambda: pictures.png_of(pictures.chunk(b"IHDR", struct.pack(">IIBBBBB", 0, 5, 8, 2, 0, 0, 0))),
    "a depth that its colours do not have": lambda: pictures.png(_SIZE, pictures.RGB, _cat().tobytes(), depth=4),
}


@pytest.mark.parametrize("fault", _DAMAGED)
def test_a_damaged_png_gives_no_sidecar(fault: str, converter: ImageConverter) -> None:
    with pytest.raises(FailedError) as caught:
        converter.convert(_DAMAGED[fault]())
    assert caught.value.reason is Failure.DAMAGED


def test_rows_that_are_really_black_are_no_damage(chromium: Chromium, converter: ImageConverter) -> None:
    picture = _cat().copy()
    picture.paste((0, 0, 0), (0, 40, *_SIZE))
    original = pictures.png(_SIZE, pictures.RGB, picture.tobytes())
    assert chromium.compare(original, converter.convert(original).webp).same()


def test_metadata_do_not_survive(converter: ImageConverter) -> None:
    secret = b"59.9386N 30.3141E"
    original = pictures.with_chunks(
        _plain(),
        pictures.chunk(b"tEXt", b"Comment\0" + secret),
        pictures.chunk(b"iTXt", b"XML:com.adobe.xmp\0\0\0\0\0" + secret),
        pictures.chunk(b"eXIf", pictures.tiff(1) + secret),
    )
    webp = converter.convert(original).webp
    assert secret not in webp
    assert not any(name in webp for name in (b"EXIF", b"XMP ", b"ICCP"))
