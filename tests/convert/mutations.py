"""Images spoilt at random, from a seed: bits flipped, ends cut, headers rewritten, lengths changed, pieces moved."""

import random
import struct
import zlib
from collections.abc import Callable, Iterator

from PIL import Image

from tests import pictures

_Mutator = Callable[[random.Random, bytearray], None]


def originals() -> list[bytes]:
    """Small whole images of every kind that a mutation may turn into another."""
    cat = pictures.pixels("chelsea.png", 97, 61)
    coffee = pictures.pixels("coffee.png", 64, 48)
    grey = cat.convert("L")
    adobe_rgb = pictures.icc_profile("a98")
    cut_out = cat.convert("RGBA")
    cut_out.putalpha(Image.radial_gradient("L").resize(cat.size))
    few = cat.quantize(60)
    palette = [
        pictures.chunk(b"PLTE", bytes((few.getpalette() or [])[:180])),
        pictures.chunk(b"tRNS", bytes(range(60))),
    ]
    baseline = pictures.cjpeg(cat)
    return [
        baseline,
        pictures.cjpeg(cat, "-progressive"),
        pictures.cjpeg(coffee, "-sample", "1x1", "-restart", "2"),
        pictures.cjpeg(grey),
        pictures.cjpeg(coffee, "-sample", "2x1", "-optimize", quality=60),
        pictures.with_segments(baseline, pictures.exif_segment(pictures.tiff(6)), *pictures.icc_segments(adobe_rgb)),
        pictures.imagemagick(cat, "-colorspace", "CMYK", "jpg:-"),
        pictures.png(cat.size, pictures.RGB, cat.tobytes(), before=[pictures.gama(55_000)]),
        pictures.imagemagick(cat, "-interlace", "PNG", "png:-"),
        pictures.png(cut_out.size, pictures.RGB_ALPHA, cut_out.tobytes(), before=[pictures.iccp(adobe_rgb)]),
        pictures.png(few.size, pictures.PALETTE, few.tobytes(), before=palette),
        pictures.png((48, 61), pictures.GREY, cat.tobytes()[: 2 * 48 * 61], depth=16),
        pictures.imagemagick(grey, "-monochrome", "png:-"),
        pictures.with_chunks(pictures.imagemagick(coffee, "png:-"), pictures.chunk(b"eXIf", pictures.tiff(3))),
        pictures.apng(
            [
                pictures.frame(coffee),
                pictures.frame(cut_out.resize((30, 20)), (9, 7), blend=1),
                pictures.frame(cut_out.resize((20, 30)), (5, 5), blend=1, dispose=2),
            ],
            coffee.size,
        ),
    ]


def mutated(source: bytes, chance: random.Random) -> bytes:
    """The image with one to three random faults; a PNG's check sums are made right again in two of three."""
    data = bytearray(source)
    for _ in range(chance.choice((1, 1, 2, 3))):
        chance.choice(_MUTATORS)(chance, data)
    if source.startswith(b"\x89PNG") and chance.random() < 0.67:
        return _with_right_sums(bytes(data))
    return bytes(data)


def _flip_bits(chance: random.Random, data: bytearray) -> None:
    for _ in range(chance.choice((1, 2, 8))):
        if data:
            data[chance.randrange(len(data))] ^= 1 << chance.randrange(8)


def _rewrite_header(chance: random.Random, data: bytearray) -> None:
    for _ in range(chance.choice((1, 2, 4))):
        if data:
            data[chance.randrange(min(len(data), 700))] = chance.choice(
                (0, 1, 2, 3, 8, 127, 128, 255, chance.randrange(256))
            )


def _rewrite_pixels(chance: random.Random, data: bytearray) -> None:
    start = chance.randrange(len(data) // 2, len(data)) if len(data) > 1 else 0
    data[start : start + 16] = chance.randbytes(chance.randrange(1, 32))


def _rewrite_field(chance: random.Random, data: bytearray) -> None:
    """One or two bytes of a PNG's chunk, mostly not of its pixels; of a JPEG, of its header."""
    bodies = [(start, end) for start, end in _bodies(bytes(data)) if end > start]
    small = [(start, end) for start, end in bodies if end - start < 800]
    if not bodies:
        _rewrite_header(chance, data)
        return
    start, end = chance.choice(small or bodies)
    for _ in range(chance.choice((1, 1, 2))):
        data[chance.randrange(start, end)] = chance.choice((0, 1, 2, 3, 255, chance.randrange(256)))


def _cut(chance: random.Random, data: bytearray) -> None:
    del data[chance.randrange(len(data) + 1) :]


def _cut_and_close(chance: random.Random, data: bytearray) -> None:
    end = b"\xff\xd9" if data[:1] == b"\xff" else pictures.chunk(b"IEND")
    _cut(chance, data)
    data += end


def _change_length(chance: random.Random, data: bytearray) -> None:
    if data[:1] == b"\xff":
        places = [
            index + 2 for index in range(2, min(len(data), 900) - 4) if data[index] == 0xFF and data[index + 1] > 0xBF
        ]
    else:
        places = [start - 6 for start, _ in _bodies(bytes(data))]
    places = [place for place in places if place + 2 <= len(data)]
    if places:
        place = chance.choice(places)
        (length,) = struct.unpack_from(">H", data, place)
        changed = length + chance.choice((-4, -1, 1, 3, 256)) if chance.random() < 0.8 else chance.randrange(1 << 16)
        struct.pack_into(">H", data, place, changed & 0xFFFF)


def _drop_piece(chance: random.Random, data: bytearray) -> None:
    start = chance.randrange(len(data) + 1)
    del data[start : start + chance.randrange(1, 200)]


def _move_piece(chance: random.Random, data: bytearray) -> None:
    start = chance.randrange(len(data) + 1)
    piece = data[start : start + chance.randrange(1, 400)]
    place = chance.randrange(len(data) + 1)
    data[place:place] = piece


def _mark(chance: random.Random, data: bytearray) -> None:
    """A JPEG marker in the middle of something."""
    place = chance.randrange(len(data) + 1)
    data[place : place + 2] = bytes((0xFF, chance.choice((0x00, 0xC4, 0xD0, 0xD3, 0xD8, 0xD9, 0xDA, 0xDB, 0xDD, 0xFE))))


_MUTATORS: tuple[_Mutator, ...] = (
    _flip_bits,
    _rewrite_header,
    _rewrite_field,
    _rewrite_field,
    _rewrite_pixels,
    _cut,
    _cut_and_close,
    _change_length,
    _drop_piece,
    _move_piece,
    _mark,
)


def _bodies(source: bytes) -> Iterator[tuple[int, int]]:
    position = 8
    while position + 12 <= len(source):
        (length,) = struct.unpack_from(">I", source, position)
        start, end = position + 8, position + 8 + length
        if end + 4 > len(source):
            return
        yield start, end
        position = end + 4


def _with_right_sums(source: bytes) -> bytes:
    data = bytearray(source)
    for start, end in _bodies(source):
        struct.pack_into(">I", data, end, zlib.crc32(data[start - 4 : end]))
    return bytes(data)
