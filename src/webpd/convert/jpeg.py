"""JPEG: what its header says, and its pixels, by Pillow's decoder fed with nothing that it does not need."""

import re
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from operator import itemgetter

from PIL import Image

from webpd.convert import exif
from webpd.errors import FailedError, UnsuitedError
from webpd.model import Failure

SIGNATURE = b"\xff\xd8\xff"

# Markers of ITU-T T.81, table B.1.
_SOS, _EOI, _DQT, _COM, _APP0, _APP1, _APP2, _APP14 = 0xDA, 0xD9, 0xDB, 0xFE, 0xE0, 0xE1, 0xE2, 0xEE
# What is not a marker is passed over, and so are bytes that fill up before one (jdmarker.c, next_marker).
_MARKER = re.compile(rb"\xff[^\x00\xff]")
_BARE = frozenset({0x01, *range(0xD0, 0xD8)})  # TEM and RST0 to RST7 have no length
_FRAMES = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
# Baseline, extended and progressive, all with Huffman codes: what browsers show.
_SHOWN_FRAMES = frozenset({0xC0, 0xC1, 0xC2})
# Segments that the pixels do not depend on: comments, and applications' but JFIF's and Adobe's (libjpeg, jdmarker.c).
_IDLE_SEGMENTS = frozenset({_COM, *range(0xE0, 0xF0)}) - {_APP0, _APP14}

# Pillow's mode of the picture by the number of components, and how the samples become that: those of four are taken
# for Adobe's, which are inverted.
_MODES = {1: ("L", "L"), 3: ("RGB", "RGB"), 4: ("CMYK", "CMYK;I")}

_PROGRESSIVE = 0xC2
_ALL_COEFFICIENTS = (1 << 64) - 1
_SCAN_OR_END = re.compile(rb"\xff[\xda\xd9]")

# Coefficients in the order in which a quantization table is written (T.81, figure A.6), by row and column; and back.
_ZIGZAG = sorted(range(64), key=lambda i: (i // 8 + i % 8, i // 8 if (i // 8 + i % 8) % 2 else i % 8))
_in_rows = itemgetter(*map(_ZIGZAG.index, range(64)))

_EXIF = b"Exif\0"
_ICC = b"ICC_PROFILE\0"


@dataclass(frozen=True, slots=True)
class Jpeg:
    """``width`` and ``height`` in pixels as stored; ``orientation`` is EXIF's; ``icc_profile`` may be empty.

    ``components`` is 1, 3 or 4. ``quantization`` has the tables by number, each of 64 entries, row by row. ``essence``
    is the file without what the pixels do not depend on (EXIF, previews, text, profiles).
    """

    width: int
    height: int
    components: int
    orientation: int
    icc_profile: bytes
    quantization: dict[int, tuple[int, ...]]
    essence: bytes


@dataclass(frozen=True, slots=True)
class _Frame:
    width: int
    height: int
    components: int
    is_progressive: bool


def read(source: bytes) -> Jpeg:
    """Reads the segments before the first scan, the way that libjpeg does.

    Raises:
        FailedError: ``DAMAGED`` where there is no picture.
        UnsuitedError: where it is of a kind that browsers do not show, or show at another size.
    """
    frame: _Frame | None = None
    quantization: dict[int, tuple[int, ...]] = {}
    idle: list[tuple[int, bytes]] = []
    kept: list[bytes] = []
    kept_from, kept_to = 0, 2
    for marker, start, end in _segments(source):
        body = source[start + 2 : end]
        if marker in _IDLE_SEGMENTS:
            idle.append((marker, body))
            continue
        if start - 2 != kept_to:
            kept.append(source[kept_from:kept_to])
            kept_from = start - 2
        kept_to = end
        if marker == _DQT:
            quantization |= _quantization(body)
        elif marker in _FRAMES:
            frame = _frame(marker, body)
    if frame is None:
        raise damaged("there is no frame header before the first scan")
    if frame.is_progressive:
        _check_scans(source, start, frame.components)
    kept.append(source[kept_from:])
    directory = next((body[6:] for marker, body in idle if marker == _APP1 and body.startswith(_EXIF)), b"")
    profile = [body[len(_ICC) :] for marker, body in idle if marker == _APP2 and body.startswith(_ICC)]
    width, height = frame.width, frame.height
    if exif.shown_size(directory, width, height) != (width, height):
        raise unsuited("its EXIF asks browsers to show it at another size, which a WebP cannot")
    orientation = exif.orientation(directory)
    return Jpeg(width, height, frame.components, orientation, _join_profile(profile), quantization, b"".join(kept))


def decode(header: Jpeg) -> tuple[Image.Image, dict[int, tuple[int, ...]]]:
    """The decoded picture, not yet turned, in mode ``L``, ``RGB`` or ``CMYK``; and its quantization tables.

    Raises:
        FailedError: ``DAMAGED``.
        MemoryError: there was not enough.
    """
    mode, samples = _MODES[header.components]
    image = Image.new(mode, (header.width, header.height), None)
    try:
        # The decoder itself, not Image.open: no other can ever be chosen, nor any preview in an MPO, and the header is
        # not parsed once more. The empty argument leaves the samples' colour space to libjpeg.
        image.frombytes(header.essence, "jpeg", samples, "")
    except ValueError as error:
        raise damaged(str(error)) from error
    return image, header.quantization


def damaged(why: str) -> FailedError:
    return FailedError(Failure.DAMAGED, f"the JPEG is damaged: {why}; upload it again")


def unsuited(why: str) -> UnsuitedError:
    return UnsuitedError(f"this JPEG can have no sidecar that looks the same: {why}; save it anew to change that")


def _segments(source: bytes) -> Iterator[tuple[int, int, int]]:
    """Markers of the header, and where each segment begins (with its length) and ends; the last is the scan's."""
    marker, position = 0, 2
    while marker != _SOS:
        found = _MARKER.search(source, position)
        if found is None:
            raise damaged("the file ends inside its header")
        start = found.end()
        marker = source[start - 1]
        if marker in _BARE:
            position = start
            continue
        if marker == _EOI:
            raise damaged("the file ends before its picture begins")
        length = int.from_bytes(source[start : start + 2], "big")
        position = start + length
        if length < 2 or position > len(source):
            raise damaged("a segment of the header is cut or has no length")
        yield marker, start, position


def _frame(marker: int, body: bytes) -> _Frame:
    if marker not in _SHOWN_FRAMES:
        raise unsuited(f"its kind (SOF{marker - 0xC0}: arithmetic, lossless or hierarchical) is not shown by browsers")
    if len(body) < 6:
        raise damaged("its frame header is cut")
    precision, height, width, components = struct.unpack_from(">BHHB", body)
    if precision != 8:
        raise unsuited(f"its {precision}-bit samples are not shown by browsers")
    if not width or not height:
        raise damaged("its frame header gives it no size")
    if components not in _MODES:
        raise damaged(f"its frame header tells of {components} components")
    return _Frame(width, height, components, is_progressive=marker == _PROGRESSIVE)


def _quantization(body: bytes) -> dict[int, tuple[int, ...]]:
    """The tables of one segment (T.81, B.2.4.1) by number, row by row."""
    tables = {}
    while body:
        wide = body[0] > 0x0F
        length = 129 if wide else 65
        if len(body) < length:
            raise damaged("a quantization table is cut")
        tables[body[0] & 0x0F] = _in_rows(struct.unpack_from(">64H", body, 1) if wide else body[1:length])
        body = body[length:]
    return tables


def _check_scans(source: bytes, position: int, components: int) -> None:
    """Makes sure that a progressive JPEG has scans for every coefficient of every component, down to the last bit.

    Where one lacks some, decoders fill in: each version of libjpeg smooths otherwise, and Chromium may show nothing.
    ``position`` is that of the first scan's header, past its marker.
    """
    # By component, one bit for each of its 64 coefficients.
    begun: dict[int, int] = {}
    complete: dict[int, int] = {}
    while position + 3 <= len(source):
        end = position + 3 + 2 * source[position + 2]
        first, last, accuracy = (*source[end : end + 3], 0, 0, 0)[:3]
        coefficients = (2 << last) - (1 << first) if first <= last < 64 else 0
        for component in source[position + 3 : end : 2]:
            # The upper half is 0 in a first scan, the lower half in that of the last bit (T.81, B.2.3).
            if not accuracy >> 4:
                begun[component] = begun.get(component, 0) | coefficients
            if not accuracy & 0x0F:
                complete[component] = complete.get(component, 0) | (coefficients & begun.get(component, 0))
        found = _SCAN_OR_END.search(source, position)
        if found is None or source[found.end() - 1] == _EOI:
            break
        position = found.end()
    if list(complete.values()) != [_ALL_COEFFICIENTS] * components:
        raise damaged("it ends before all of its scans have begun")


def _join_profile(parts: list[bytes]) -> bytes:
    """An ICC profile from its numbered parts (ICC.1:2022, B.4); empty where parts are missing or doubled."""
    parts = [part for part in parts if len(part) >= 2]
    by_number = {part[0]: part for part in parts}
    count = len(parts)
    if sorted(by_number) != list(range(1, count + 1)) or any(part[1] != count for part in parts):
        return b""
    return b"".join(by_number[number][2:] for number in range(1, count + 1))
