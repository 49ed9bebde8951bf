"""How the sidecar is coded: quality, coder, alpha, and what other programs make of it."""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import pyvips
from PIL import Image, ImageDraw

from tests import pictures
from tests.referee import Chromium
from webpd.convert.choice import is_graphic
from webpd.convert.converter import ImageConverter
from webpd.model import Encoding

_SIZE = (200, 150)


def _photo() -> Image.Image:
    return pictures.pixels("coffee.png", *_SIZE)


def _sign() -> Image.Image:
    picture = Image.new("RGB", _SIZE, "white")
    draw = ImageDraw.Draw(picture)
    for number in range(12):
        draw.rectangle((10 + 15 * number, 20, 18 + 15 * number, 130 - 7 * number), fill=(20 * number, 60, 200))
    draw.text((20, 4), "Price list, autumn", fill="black")
    return picture


def test_a_jpeg_is_coded_at_the_set_quality_but_never_above_its_own() -> None:
    good, poor = (pictures.cjpeg(_photo(), quality=quality) for quality in (95, 40))
    sizes = {
        (name, quality): len(ImageConverter(Encoding(quality, 4), 10**6).convert(source).webp)
        for name, source in (("good", good), ("poor", poor))
        for quality in (60, 80, 95)
    }
    assert sizes["good", 60] < sizes["good", 80] < sizes["good", 95]
    assert sizes["poor", 60] == sizes["poor", 80] == sizes["poor", 95]


def test_the_method_trades_time_for_bytes() -> None:
    source = pictures.cjpeg(_photo(), quality=95)
    fast, small = (len(ImageConverter(Encoding(80, method), 10**6).convert(source).webp) for method in (0, 6))
    assert small < fast


def test_a_sign_is_coded_without_loss_and_a_photograph_with(chromium: Chromium, converter: ImageConverter) -> None:
    sign, photo = (pictures.imagemagick(picture, "png:-") for picture in (_sign(), _photo()))
    assert converter.convert(sign).picture.lossless
    # ImageMagick writes a gamma that is not quite that of sRGB; it is applied, and rounded.
    assert chromium.compare(sign, converter.convert(sign).webp).worst <= 1
    assert not converter.convert(photo).picture.lossless


def test_nothing_above_12_megapixels_is_coded_without_loss() -> None:
    converter = ImageConverter(Encoding(80, 0), 50_000_000)
    for size, lossless in (((4_000, 3_000), True), ((4_000, 3_001), False)):
        assert is_graphic(Image.new("L", size))
        assert (
            converter.convert(pictures.png(size, pictures.GREY, bytes(size[0] * size[1]))).picture.lossless is lossless
        )


def test_the_edges_of_a_cut_out_are_clean_on_black_and_on_white(chromium: Chromium) -> None:
    """Green under full transparency, as editors leave it, must not shine through at the edges."""
    mask = Image.new("L", (4 * _SIZE[0], 4 * _SIZE[1]))
    ImageDraw.Draw(mask).ellipse((60, 40, 740, 560), fill=255)
    mask = mask.resize(_SIZE, Image.Resampling.LANCZOS)
    picture = Image.composite(
        _photo(), Image.new("RGB", _SIZE, (0, 255, 0)), mask.point(lambda level: 255 * (level > 0))
    )
    picture.putalpha(mask)
    original = pictures.png(_SIZE, pictures.RGB_ALPHA, picture.tobytes())
    converted = ImageConverter(Encoding(80, 4), 10**6).convert(original)
    assert not converted.picture.lossless
    # The verdict takes the worse of both grounds for every pixel.
    verdict = chromium.compare(original, converted.webp)
    assert verdict.same(far=0.004), verdict
    assert verdict.alpha == 0


_SOURCES: dict[str, Callable[[], bytes]] = {
    "photograph": lambda: pictures.cjpeg(_photo(), "-sample", "1x1"),
    "photograph with Adobe RGB": lambda: pictures.with_segments(
        pictures.cjpeg(_photo()), *pictures.icc_segments(pictures.icc_profile("a98"))
    ),
    "sign": lambda: pictures.imagemagick(_sign(), "png:-"),
    "cut-out": lambda: pictures.png(_SIZE, pictures.RGB_ALPHA, _photo().convert("RGBA").tobytes()),
}


@pytest.mark.parametrize("name", _SOURCES)
def test_other_programs_read_the_sidecar(name: str, converter: ImageConverter, tmp_path: Path) -> None:
    source = _SOURCES[name]()
    webp = converter.convert(source).webp
    (tmp_path / "picture.webp").write_bytes(webp)
    info = subprocess.run(["webpinfo", tmp_path / "picture.webp"], capture_output=True, check=True, text=True).stdout
    assert "No error detected." in info
    ppm = subprocess.run(
        ["dwebp", "-ppm", "-quiet", tmp_path / "picture.webp", "-o", "-"], capture_output=True, check=True
    ).stdout
    by_dwebp = pyvips.Image.new_from_buffer(ppm, "")
    by_libvips = pyvips.Image.new_from_buffer(webp, "")
    assert (by_dwebp - by_libvips[:3]).abs().max() == 0
    assert (pyvips.Image.new_from_buffer(source, "")[:3] - by_libvips[:3]).abs().avg() < 5


def test_inspecting_a_sidecar_tells_what_it_is(converter: ImageConverter) -> None:
    frames = [pictures.frame(pictures.pixels(name, 64, 48)) for name in pictures.PNG_PHOTOS[:3]]
    for source, lossless, count in (
        (pictures.cjpeg(_photo()), False, 1),
        (_SOURCES["photograph with Adobe RGB"](), False, 1),
        (pictures.imagemagick(_sign(), "png:-"), True, 1),
        (pictures.apng(frames, (64, 48)), False, 3),
    ):
        converted = converter.convert(source)
        found = converter.inspect(converted.webp)
        assert (found.format, found.lossless, found.frames) == ("webp", lossless, count)
        assert (found.width, found.height) == (converted.picture.width, converted.picture.height)


_NOTHING_MAY_BE_OPENED = """
import sys
from webpd.convert.converter import ImageConverter
from webpd.errors import FailedError, RefusedError
from webpd.model import Encoding
sources = []
while size := int.from_bytes(sys.stdin.buffer.read(4), "big"):
    sources.append(sys.stdin.buffer.read(size))
modules = set(sys.modules)
def refuse(event, arguments):
    if event in {"open", "import", "os.listdir", "os.scandir", "subprocess.Popen", "socket.__new__"}:
        if event != "import" or arguments[0] not in modules:
            raise RuntimeError(f"{event}: {arguments}")
sys.addaudithook(refuse)
converter = ImageConverter(Encoding(80, 4), 10_000_000)
for source in sources:
    try:
        converter.inspect(converter.convert(source).webp)
    except (FailedError, RefusedError):
        pass
sys.stdout.write("done")
"""


def test_a_converter_opens_and_imports_nothing_once_it_is_imported() -> None:
    """So it runs in a process that may open nothing at all; and no decoder beyond those three can ever be loaded."""
    photo = _photo()
    sources = [
        *(make() for make in _SOURCES.values()),
        *map(pictures.photo, pictures.JPEG_PHOTOS),
        pictures.imagemagick(photo, "-colorspace", "CMYK", "jpg:-"),
        pictures.with_segments(
            pictures.imagemagick(photo, "-colorspace", "CMYK", "jpg:-"),
            *pictures.icc_segments(pictures.icc_profile("default_cmyk")),
        ),
        pictures.with_segments(pictures.cjpeg(photo), pictures.exif_segment(pictures.tiff(6))),
        pictures.with_chunks(pictures.imagemagick(photo, "png:-"), pictures.chunk(b"eXIf", pictures.tiff(6))),
        pictures.with_chunks(pictures.imagemagick(_sign(), "-colors", "8", "png8:-"), pictures.gama(100_000)),
        pictures.apng([pictures.frame(photo), pictures.frame(_sign())], _SIZE),
        pictures.photo("rocket.jpg")[:2_000],
        b"GIF89a" + bytes(100),
        b"\x89PNG\r\n\x1a\n" + bytes(100),
    ]
    given = b"".join(len(source).to_bytes(4, "big") + source for source in sources) + bytes(4)
    done = subprocess.run(
        [sys.executable, "-c", _NOTHING_MAY_BE_OPENED],
        input=given,
        capture_output=True,
        check=False,
        env={**os.environ, "PYTHONDONTWRITEBYTECODE": "1"},
    )
    assert done.stdout == b"done", done.stderr.decode()
