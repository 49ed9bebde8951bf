"""PNG: its chunks, read and checked by ourselves, and its pixels, by Pillow fed with nothing but pixels.

Text, previews and profiles never reach Pillow: what a file holds of them compressed is inflated only up to a limit.
"""

import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import reduce
from io import BytesIO

from PIL import Image, ImageChops, ImageFile, PngImagePlugin

from webpd.errors import FailedError, RefusedError, UnsuitedError
from webpd.model import Failure, Skip

SIGNATURE = b"\x89PNG\r\n\x1a\n"

_GREY, _RGB, _PALETTE, _GREY_ALPHA, _RGB_ALPHA = 0, 2, 3, 4, 6
# Colour types and the bit depths that each may have (PNG, third edition, table 12).
_DEPTHS = {_GREY: (1, 2, 4, 8, 16), _RGB: (8, 16), _PALETTE: (1, 2, 4, 8), _GREY_ALPHA: (8, 16), _RGB_ALPHA: (8, 16)}
_CRITICAL = frozenset({b"IHDR", b"PLTE", b"IDAT", b"IEND"})
# Chunks that change what is shown; of each the first counts, and only before the pixels, as in Chromium.
_MEANINGFUL = frozenset({b"PLTE", b"tRNS", b"cICP", b"iCCP", b"sRGB", b"gAMA", b"cHRM", b"eXIf", b"acTL"})
_PIXELS_AND_FRAMES = frozenset({b"IDAT", b"fcTL", b"fdAT"})
# First column and row of the seven passes of interlacing, and their steps (PNG, 8.1).
_ADAM7 = ((0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2))
# The most that a file's texts and colour profile may inflate to, in bytes: real profiles (CMYK tables of printers) end
# at some 3 MB.
_MAX_INFLATED = 4 << 20


@dataclass(frozen=True, slots=True)
class Png:
    """A PNG's parts: sizes in pixels as stored, and chunk contents (``bytes`` of the source, CRC checked).

    ``sequence`` holds, in file order, the chunks that carry pixels or describe frames: IDAT, fcTL, fdAT.
    """

    width: int
    height: int
    depth: int
    colour: int
    interlaced: bool
    facts: dict[bytes, bytes]
    sequence: list[tuple[bytes, bytes]]

    @property
    def is_grey(self) -> bool:
        return self.colour in {_GREY, _GREY_ALPHA}

    @property
    def pixels(self) -> list[bytes]:
        """The compressed pixels of the still picture."""
        return [data for name, data in self.sequence if name == b"IDAT"]

    def resized(self, width: int, height: int) -> "Png":
        """The same kind of picture at another size, for one frame of an animation."""
        return replace(self, width=width, height=height)


def read_size(source: bytes) -> tuple[int, int]:
    """Width and height in pixels, from the very first chunk.

    Raises:
        FailedError: ``DAMAGED`` where the file is cut before them, or they are zero.
    """
    if len(source) < 33 or source[12:16] != b"IHDR":
        raise damaged("it ends inside its header")
    width, height = struct.unpack_from(">II", source, 16)
    if not width or not height:
        raise damaged("its header gives it no size")
    return width, height


def read_frames(source: bytes) -> int:
    """How many frames the file announces or describes, whichever is more; at least 1. Reads no chunk's content."""
    frames = 1
    described = 0
    for name, start, _ in _chunks(source):
        if name == b"acTL":
            frames = max(frames, int.from_bytes(source[start : start + 4], "big"))
        described += name == b"fcTL"
    return max(frames, described)


def check_inflated(source: bytes) -> None:
    """Refuses a file whose texts and profile inflate to more than 4 MiB: a bomb for whoever opens it.

    Raises:
        RefusedError: ``TOO_LARGE``.
    """
    left = _MAX_INFLATED
    for name, start, end in _chunks(source):
        if name not in {b"zTXt", b"iTXt", b"iCCP"}:
            continue
        inflater = zlib.decompressobj()
        try:
            left -= len(inflater.decompress(memoryview(source)[_packed_from(source, name, start, end) : end], left + 1))
        except zlib.error:
            continue  # nobody can inflate it
        if left < 0:
            what = f"what its {name.decode()} chunk holds inflates to more than {_MAX_INFLATED >> 20} MiB"
            raise RefusedError(Skip.TOO_LARGE, f"{what}; the original is served")


def read(source: bytes) -> Png:
    """Reads the chunks and checks the sums of those that shape the picture.

    Raises:
        FailedError: ``DAMAGED`` where a chunk is cut, out of place or does not agree with its sum.
    """
    chunks = list(_checked(source))
    names = [name for name, _ in chunks]
    if names[0] != b"IHDR" or len(chunks[0][1]) != 13 or b"IDAT" not in names:
        raise damaged("it has no header or no pixels")
    if any(names.count(name) > 1 for name in (b"IHDR", b"PLTE")):
        raise damaged("it has two headers or two palettes")
    first = names.index(b"IDAT")
    if set(names[first : first + names.count(b"IDAT")]) != {b"IDAT"}:
        raise damaged("its pixels are not in one piece")
    facts: dict[bytes, bytes] = {}
    for name, body in chunks[:first]:
        if name in _MEANINGFUL:
            facts.setdefault(name, body)
    width, height, depth, colour, compression, filtering, interlace = struct.unpack(">IIBBBBB", chunks[0][1])
    if depth not in _DEPTHS.get(colour, ()) or compression or filtering or interlace > 1:
        raise damaged("its header describes no kind of PNG")
    if colour == _PALETTE:
        _fill_palette(facts, depth)
    sequence = [chunk for chunk in chunks if chunk[0] in _PIXELS_AND_FRAMES]
    return Png(width, height, depth, colour, bool(interlace), facts, sequence)


def icc_profile(png: Png) -> bytes:
    """The inflated colour profile; empty where there is none or it is broken. ``check_inflated`` has bounded it."""
    name, _, packed = png.facts.get(b"iCCP", b"").partition(b"\0")
    if not 1 <= len(name) <= 79 or not packed or packed[0]:  # PNG, 11.3.2.3
        return b""
    inflater = zlib.decompressobj()
    try:
        profile = inflater.decompress(packed[1:], 128)
        if profile[36:40] != b"acsp":  # the signature of every ICC profile (ICC.1:2022, 7.2.9)
            return b""
        profile += inflater.decompress(inflater.unconsumed_tail)
    except zlib.error:
        return b""
    return profile if inflater.eof else b""


def decode(png: Png, pixels: list[bytes]) -> Image.Image:
    """The picture of these compressed pixels: mode ``L``, ``RGB``, ``LA`` or ``RGBA``, 8 bits a channel.

    Of 16 bits the upper eight are taken, which is what Chromium does.

    Raises:
        FailedError: ``DAMAGED``.
        MemoryError: there was not enough.
    """
    try:
        transparent = png.facts.get(b"tRNS") if png.colour in {_GREY, _RGB} else None
        if transparent is not None:
            return _keyed(png, pixels, transparent)
        image = _open(png, pixels)
        if png.depth == 16 and png.colour == _GREY:
            image = _take_bytes(image, "L;16B", "L")
        image.load()
        _check_rows(png, pixels, image)
    except (OSError, SyntaxError, ValueError, struct.error, zlib.error) as error:
        raise damaged(str(error)) from error
    if png.colour == _PALETTE:
        return image.convert("RGBA" if b"tRNS" in png.facts else "RGB")
    return image.convert("L") if image.mode == "1" else image


def damaged(why: str) -> FailedError:
    return FailedError(Failure.DAMAGED, f"the PNG is damaged: {why}; upload it again")


def unsuited(why: str) -> UnsuitedError:
    return UnsuitedError(f"this PNG can have no sidecar that looks the same: {why}; save it as sRGB to change that")


def _chunks(source: bytes) -> Iterator[tuple[bytes, int, int]]:
    """Names of the chunks, and where their contents begin and end, up to IEND and with it."""
    position = len(SIGNATURE)
    while True:
        if position + 12 > len(source):
            raise damaged("it is cut")
        length, name = struct.unpack_from(">I4s", source, position)
        start, end = position + 8, position + 8 + length
        if end + 4 > len(source):
            raise damaged("it is cut")
        yield name, start, end
        if name == b"IEND":
            return
        position = end + 4


def _packed_from(source: bytes, name: bytes, start: int, end: int) -> int:
    """Where in the source the compressed part of the chunk begins; ``end`` where it has none (PNG, 11.3)."""
    keyword = source.find(b"\0", start, end)
    if keyword < 0:
        return end
    if name != b"iTXt":
        return keyword + 2  # after the method
    if source[keyword + 1 : keyword + 2] != b"\1":
        return end
    language = source.find(b"\0", keyword + 3, end)
    translation = source.find(b"\0", language + 1, end) if language >= 0 else -1
    return translation + 1 if translation >= 0 else end


def _checked(source: bytes) -> Iterator[tuple[bytes, bytes]]:
    """Names and contents of all chunks; the contents of those that nothing depends on are left out, and unchecked."""
    for name, start, end in _chunks(source):
        critical = not name[0] & 0x20  # the case of the first letter tells (PNG, 5.4)
        if not critical and name not in _MEANINGFUL and name not in _PIXELS_AND_FRAMES:
            yield name, b""
            continue
        if critical and name not in _CRITICAL:
            raise damaged(f"it has an unknown critical chunk {name!r}")
        if zlib.crc32(memoryview(source)[start - 4 : end]) != int.from_bytes(source[end : end + 4], "big"):
            raise damaged(f"its {name.decode()} chunk does not agree with its check sum")
        yield name, source[start:end]


def _fill_palette(facts: dict[bytes, bytes], depth: int) -> None:
    """Gives the palette an entry for every index: what is past its end is shown in the last colour, as in Chromium."""
    palette = facts.get(b"PLTE", b"")
    entries, rest = divmod(len(palette), 3)
    if not 1 <= entries <= 256 or rest:
        raise damaged("its palette is missing or cut")
    missing = max(0, (1 << depth) - entries)
    if b"tRNS" in facts:
        if list(facts).index(b"tRNS") < list(facts).index(b"PLTE"):
            raise damaged("its tRNS chunk stands before its palette")
        alphas = facts[b"tRNS"][:entries].ljust(entries, b"\xff")
        facts[b"tRNS"] = alphas + alphas[-1:] * missing
    facts[b"PLTE"] = palette + palette[-3:] * missing


def _open(png: Png, pixels: list[bytes]) -> ImageFile.ImageFile:
    header = struct.pack(">IIBBBBB", png.width, png.height, png.depth, png.colour, 0, 0, png.interlaced)
    parts = [SIGNATURE, _chunk(b"IHDR", header)]
    if png.colour == _PALETTE:
        parts += (_chunk(name, png.facts[name]) for name in (b"PLTE", b"tRNS") if name in png.facts)
    # Pillow passes over the sums of these chunks unread; those of the source have been checked.
    parts += (struct.pack(">I", sum(map(len, pixels))), b"IDAT", *pixels, b"\0\0\0\0", _chunk(b"IEND", b""))
    # The class itself, not Image.open: no other decoder can ever be chosen.
    return PngImagePlugin.PngImageFile(BytesIO(b"".join(parts)))


def _chunk(name: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))


def _check_rows(png: Png, pixels: list[bytes], image: Image.Image) -> None:
    """Finds pixels that end early in good order, which Pillow takes for granted and leaves black.

    Raises:
        FailedError: ``DAMAGED``.
    """
    last_row = image.crop((0, image.height - 1, image.width, image.height))
    if not png.interlaced and last_row.getbbox(alpha_only=False):
        return
    inflater = zlib.decompressobj()
    missing = _raw_size(png)
    for part in pixels:
        rest = part
        while rest and missing > 0:
            missing -= len(inflater.decompress(rest, 1 << 20))
            rest = inflater.unconsumed_tail
    if missing > 0:
        raise damaged("its pixels end early")


def _raw_size(png: Png) -> int:
    """How many bytes the pixels are before compression, with the filter's byte of every row (PNG, 7.2 and 8.1)."""
    channels = {_GREY: 1, _RGB: 3, _PALETTE: 1, _GREY_ALPHA: 2, _RGB_ALPHA: 4}[png.colour]
    passes = _ADAM7 if png.interlaced else ((0, 0, 1, 1),)
    size = 0
    for left, top, across, down in passes:
        columns, rows = -((left - png.width) // across), -((top - png.height) // down)
        if columns > 0 and rows > 0:
            size += rows * (1 + (columns * png.depth * channels + 7) // 8)
    return size


def _take_bytes(image: ImageFile.ImageFile, rawmode: str, mode: str) -> ImageFile.ImageFile:
    """Has Pillow unpack an unloaded image's samples as ``rawmode`` says, so that one byte of each sample remains."""
    image._mode = mode
    image.tile = [tile._replace(args=rawmode) for tile in image.tile]
    return image


def _keyed(png: Png, pixels: list[bytes], transparent: bytes) -> Image.Image:
    """A picture without alpha channel, of which one colour is transparent: all of its bits must agree."""
    mode = "RGB" if png.colour == _RGB else "L"
    if len(transparent) < 2 * len(mode):
        raise damaged("its tRNS chunk is cut")
    key = struct.unpack_from(f">{len(mode)}H", transparent)
    image: Image.Image
    if png.depth == 16:
        image = _take_bytes(_open(png, pixels), f"{mode};16B", mode)
        low = _take_bytes(_open(png, pixels), f"{mode};16L" if mode == "RGB" else "L;16", mode)
        planes = [*image.split(), *low.split()]
        wanted = [value >> 8 for value in key] + [value & 0xFF for value in key]
    else:
        image = _open(png, pixels)
        image = image if image.mode == mode else image.convert(mode)
        planes = list(image.split())
        # Samples of fewer bits are decoded to the full range; of the key the low bits count.
        top = (1 << png.depth) - 1
        wanted = [(value & top) * 255 // top for value in key]
    _check_rows(png, pixels, image)
    differing = (
        plane.point([0 if level == value else 255 for level in range(256)])
        for plane, value in zip(planes, wanted, strict=True)
    )
    alpha = reduce(ImageChops.lighter, differing)
    return Image.merge("RGBA" if mode == "RGB" else "LA", [*image.split(), alpha])
