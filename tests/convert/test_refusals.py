"""What is not to be converted is refused from its header; bombs cost next to nothing."""

import json
import struct
import subprocess
import sys
import zlib
from collections.abc import Callable
from typing import Any

import pytest

from tests import pictures
from webpd.convert.converter import ImageConverter
from webpd.errors import FailedError, RefusedError
from webpd.model import Encoding, Failure, Skip


def _refusal(converter: ImageConverter, source: bytes) -> Skip:
    with pytest.raises(RefusedError) as caught:
        converter.convert(source)
    return caught.value.reason


def _png_header(width: int, height: int, depth: int = 8, colour: int = pictures.RGB) -> bytes:
    return pictures.chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0))


def _jpeg_of_size(width: int, height: int) -> bytes:
    jpeg = pictures.cjpeg(pictures.pixels("chelsea.png", 64, 48))
    frame = jpeg.index(b"\xff\xc0")
    return jpeg[: frame + 5] + struct.pack(">HH", height, width) + jpeg[frame + 9 :]


def test_an_empty_file_is_empty(converter: ImageConverter) -> None:
    assert _refusal(converter, b"") is Skip.EMPTY


@pytest.mark.parametrize(
    "content",
    [
        b"<!doctype html><html><body>404</body></html>",
        b"GIF89a" + bytes(100),
        b"RIFF\0\0\0\0WEBPVP8 " + bytes(100),
        b"BM" + bytes(100),
        b"\0\0\0\x1cftypavif" + bytes(100),
        b"II*\0" + bytes(100),
        b"<svg xmlns='http://www.w3.org/2000/svg'/>",
        b"\xff",
        b"\x89PNG",
        bytes(1_000),
    ],
    ids=["html", "gif", "webp", "bmp", "avif", "tiff", "svg", "one byte", "four bytes", "zeros"],
)
def test_what_is_neither_jpeg_nor_png_is_no_image(content: bytes, converter: ImageConverter) -> None:
    assert _refusal(converter, content) is Skip.NOT_AN_IMAGE


def test_the_content_decides_not_the_name(converter: ImageConverter) -> None:
    picture = pictures.pixels("chelsea.png", 64, 48)
    assert converter.convert(pictures.cjpeg(picture)).picture.format == "jpeg"
    assert converter.convert(pictures.imagemagick(picture, "png:-")).picture.format == "png"


@pytest.mark.parametrize("size", [(16_384, 1), (1, 16_384), (65_000, 65_000)])
def test_more_than_webp_can_hold_is_too_large(size: tuple[int, int], converter: ImageConverter) -> None:
    assert _refusal(converter, _jpeg_of_size(*size)) is Skip.TOO_LARGE
    assert _refusal(converter, pictures.png_of(_png_header(*size))) is Skip.TOO_LARGE


def test_the_largest_side_that_webp_can_hold_is_converted(converter: ImageConverter) -> None:
    original = pictures.png((16_383, 1), pictures.GREY, bytes(16_383))
    assert converter.convert(original).picture.width == 16_383


def test_the_limit_of_pixels_is_exact() -> None:
    picture = pictures.pixels("chelsea.png", 64, 48)
    for original in (pictures.cjpeg(picture), pictures.imagemagick(picture, "png:-")):
        assert ImageConverter(Encoding(80, 4), 64 * 48).convert(original).picture.width == 64
        assert _refusal(ImageConverter(Encoding(80, 4), 64 * 48 - 1), original) is Skip.TOO_LARGE


def test_the_limit_of_pixels_counts_every_frame() -> None:
    frames = [pictures.frame(pictures.pixels(name, 64, 48)) for name in pictures.PNG_PHOTOS[:3]]
    original = pictures.apng(frames, (64, 48))
    assert ImageConverter(Encoding(80, 4), 3 * 64 * 48).convert(original).picture.frames == 3
    assert _refusal(ImageConverter(Encoding(80, 4), 3 * 64 * 48 - 1), original) is Skip.TOO_LARGE
    # A false announcement does not hide the frames that there are.
    announced = original.index(b"acTL")
    lying = original[: announced + 4] + struct.pack(">I", 1) + original[announced + 8 :]
    assert _refusal(ImageConverter(Encoding(80, 4), 2 * 64 * 48), lying) is Skip.TOO_LARGE


def _zeros(mebibytes: int, start: bytes = b"") -> bytes:
    packer = zlib.compressobj(9)
    packed = packer.compress(start) + b"".join(packer.compress(bytes(1 << 20)) for _ in range(mebibytes))
    return packed + packer.flush()


def _small_png(*chunks: bytes) -> bytes:
    return pictures.with_chunks(pictures.png((64, 64), pictures.RGB, bytes(range(192)) * 64), *chunks)


def _animated_bomb() -> bytes:
    chunks = [_png_header(4_000, 4_000), pictures.chunk(b"acTL", struct.pack(">II", 10_000, 0))]
    for number in range(10_000):
        control = struct.pack(">IIIIIHHBB", max(0, 2 * number - 1), 4_000, 4_000, 0, 0, 1, 10, 0, 0)
        chunks.append(pictures.chunk(b"fcTL", control))
        chunks.append(
            pictures.chunk(b"fdAT", struct.pack(">I", 2 * number) + bytes(40))
            if number
            else pictures.chunk(b"IDAT", b"x")
        )
    return pictures.png_of(*chunks)


_BOMBS: dict[str, tuple[Callable[[], bytes], str]] = {
    "a PNG of 1 Gpx": (
        lambda: pictures.png_of(_png_header(31_623, 31_623, 1, pictures.GREY), pictures.chunk(b"IDAT", _zeros(119))),
        "too_large",
    ),
    "a narrower PNG of 1 Gpx": (
        lambda: pictures.png_of(_png_header(16_000, 16_000, 1, pictures.GREY), pictures.chunk(b"IDAT", _zeros(119))),
        "too_large",
    ),
    "a JPEG of 65,000 x 65,000": (lambda: _jpeg_of_size(65_000, 65_000), "too_large"),
    "an APNG of 10,000 large frames": (_animated_bomb, "too_large"),
    "200 MB in zTXt": (lambda: _small_png(pictures.chunk(b"zTXt", b"k\0\0" + _zeros(200))), "too_large"),
    "200 MB in iTXt": (lambda: _small_png(pictures.chunk(b"iTXt", b"k\0\1\0\0\0" + _zeros(200))), "too_large"),
    "200 MB in iCCP": (lambda: _small_png(pictures.chunk(b"iCCP", b"k\0\0" + _zeros(200))), "too_large"),
    "200 MB in iCCP that begin well": (
        lambda: _small_png(pictures.chunk(b"iCCP", b"k\0\0" + _zeros(200, bytes(36) + b"acsp" + bytes(88)))),
        "too_large",
    ),
    "3 MB in each of 70 zTXt": (
        lambda: _small_png(*[pictures.chunk(b"zTXt", b"k\0\0" + _zeros(3))] * 70),
        "too_large",
    ),
    "200 MB in IDAT": (
        lambda: pictures.png_of(_png_header(64, 64), pictures.chunk(b"IDAT", _zeros(200))),
        "converted",
    ),
}

# One second of processor time and 200 MB of address space beyond those of the interpreter and Pillow's libraries.
_IN_A_TIGHT_SPOT = """
import json, resource, sys
from webpd.convert.converter import ImageConverter
from webpd.errors import FailedError, RefusedError
from webpd.model import Encoding
source = sys.stdin.buffer.read()
with open("/proc/self/statm") as statm:
    space = int(statm.read().split()[0]) * resource.getpagesize() + 200_000_000
spent = resource.getrusage(resource.RUSAGE_SELF)
resource.setrlimit(resource.RLIMIT_AS, (space, space))
try:
    ImageConverter(Encoding(80, 4), 50_000_000).convert(source)
    outcome = "converted"
except (FailedError, RefusedError) as error:
    outcome = error.reason
after = resource.getrusage(resource.RUSAGE_SELF)
seconds = after.ru_utime + after.ru_stime - spent.ru_utime - spent.ru_stime
print(json.dumps({"outcome": outcome, "seconds": seconds}))
"""


def _in_a_tight_spot(source: bytes) -> dict[str, Any]:
    command = [sys.executable, "-c", _IN_A_TIGHT_SPOT]
    answer: dict[str, Any] = json.loads(subprocess.run(command, input=source, capture_output=True, check=True).stdout)
    return answer


@pytest.mark.parametrize("name", _BOMBS)
def test_a_bomb_ends_in_a_second_of_processor_time_and_200_mb(name: str) -> None:
    make, outcome = _BOMBS[name]
    answer = _in_a_tight_spot(make())
    assert answer["outcome"] == outcome
    assert answer["seconds"] < 1


def test_the_tight_spot_is_tight() -> None:
    answer = _in_a_tight_spot(pictures.png((7_000, 7_000), pictures.RGB, bytes(3 * 7_000 * 7_000)))
    assert answer["outcome"] == Failure.MEMORY


def test_a_picture_that_needs_too_much_memory_says_so() -> None:
    # Enough to decode 42 Mpx, but not to code them, which libwebp reports in its own way.
    original = pictures.png((6_500, 6_500), pictures.RGB, bytes(3 * 6_500 * 6_500))
    assert _in_a_tight_spot(original)["outcome"] == Failure.MEMORY


def test_a_webp_that_does_not_decode_is_damaged(converter: ImageConverter) -> None:
    webp = converter.convert(pictures.photo("rocket.jpg")).webp
    for broken in (b"", b"RIFF", webp[:20], webp[: len(webp) // 2], pictures.photo("rocket.jpg")):
        with pytest.raises(FailedError) as caught:
            converter.inspect(broken)
        assert caught.value.reason is Failure.DAMAGED
