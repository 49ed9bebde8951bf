"""JPEG: what its header says, and its pixels, by Pillow's decoder fed with nothing that it does not need."""

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from io import BytesIO

from PIL import Image, JpegImagePlugin

from webpd.errors import FailedError
from webpd.model import Failure

SIGNATURE = b"\xff\xd8\xff"

# Markers of ITU-T T.81, table B.1.
_SOS, _EOI, _COM, _APP0, _APP1, _APP2, _APP14 = 0xDA, 0xD9, 0xFE, 0xE0, 0xE1, 0xE2, 0xEE
_BARE = frozenset({0x01, *range(0xD0, 0xD8)})  # TEM and RST0 to RST7 have no length
_FRAMES = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
# Baseline, extended and progressive, all with Huffman codes: what browsers show.
_SHOWN_FRAMES = frozenset({0xC0, 0xC1, 0xC2})
# Segments that the pixels do not depend on: comments, and applications' but JFIF's and Adobe's (libjpeg, jdmarker.c).
_IDLE_SEGMENTS = frozenset({_COM, *range(0xE0, 0xF0)}) - {_APP0, _APP14}

_EXIF = b"Exif\0"
_ICC = b"ICC_PROFILE\0"
_ORIENTATION_TAG, _SHORT = 0x0112, 3  # TIFF 6.0

TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


@dataclass(frozen=True, slots=True)
class Jpeg:
    """``width`` and ``height`` in pixels as stored; ``orientation`` is EXIF's; ``icc_profile`` may be empty.

    ``essence`` is the file without what the pixels do not depend on (EXIF, previews, text, profiles).
    """

    width: int
    height: int
    orientation: int
    icc_profile: bytes
    essence: bytes


def read(source: bytes) -> Jpeg:
    """Reads the segments before the first scan, the way that libjpeg does.

    Raises:
        FailedError: ``DAMAGED`` where there is no picture, or one of a kind that browsers do not show.
    """
    kept: list[bytes] = [b"\xff\xd8"]
    size: tuple[int, int] | None = None
    exif: bytes | None = None
    profile: list[bytes] = []
    for marker, start, end in _segments(source):
        body = source[start + 2 : end]
        if marker in _FRAMES:
            size = _frame_size(marker, body)
        elif marker == _APP1 and exif is None and body.startswith(_EXIF):
            exif = body[6:]
        elif marker == _APP2 and body.startswith(_ICC):
            profile.append(body[len(_ICC) :])
        if marker not in _IDLE_SEGMENTS:
            kept += (bytes((0xFF, marker)), source[start:end])
    if size is None:
        raise damaged("there is no frame header before the first scan")
    kept.append(source[end:])
    return Jpeg(*size, orientation(exif or b""), _join_profile(profile), b"".join(kept))


def decode(header: Jpeg) -> tuple[Image.Image, dict[int, list[int]]]:
    """The decoded picture, not yet turned, in mode ``L``, ``RGB`` or ``CMYK``; and its quantization tables.

    Raises:
        FailedError: ``DAMAGED``.
        MemoryError: there was not enough.
    """
    try:
        # The class itself, not Image.open: no other decoder can ever be chosen, nor any preview in an MPO.
        image = JpegImagePlugin.JpegImageFile(BytesIO(header.essence))
        image.load()
    except (OSError, SyntaxError, ValueError, struct.error) as error:
        raise damaged(str(error)) from error
    return image, image.quantization


def damaged(why: str) -> FailedError:
    return FailedError(Failure.DAMAGED, f"the JPEG is damaged: {why}; upload it again")


def orientation(exif: bytes) -> int:
    """EXIF's orientation, 1 to 8; 1 where there is none that browsers believe.

    ``exif`` is a TIFF structure (EXIF 2.32, 4.5), as it follows ``Exif`` and two bytes in a JPEG,
    and makes up a PNG's eXIf chunk.
    """
    order = {b"II*\0": "<", b"MM\0*": ">"}.get(exif[:4])
    if order is None or len(exif) < 8:
        return 1
    (directory,) = struct.unpack_from(f"{order}I", exif, 4)
    if directory + 2 > len(exif):
        return 1
    (count,) = struct.unpack_from(f"{order}H", exif, directory)
    for entry in range(directory + 2, min(directory + 2 + 12 * count, len(exif) - 11), 12):
        tag, kind, values, value = struct.unpack_from(f"{order}HHIH", exif, entry)
        if (tag, kind, values) == (_ORIENTATION_TAG, _SHORT, 1):
            return value if value in TURNS else 1
    return 1


def _segments(source: bytes) -> Iterator[tuple[int, int, int]]:
    """Markers of the header, and where each segment begins (with its length) and ends; the last is the scan's."""
    marker, position = 0, 2
    while marker != _SOS:
        marker, position = _next_marker(source, position)
        if marker in _BARE:
            continue
        if marker == _EOI:
            raise damaged("the file ends before its picture begins")
        length = int.from_bytes(source[position : position + 2], "big")
        start, position = position, position + length
        if length < 2 or position > len(source):
            raise damaged("a segment of the header is cut or has no length")
        yield marker, start, position


def _next_marker(source: bytes, position: int) -> tuple[int, int]:
    """The next marker and where its segment begins; what is not a marker is passed over (jdmarker.c, next_marker)."""
    while True:
        position = source.find(b"\xff", position)
        if position < 0:
            raise damaged("the file ends inside its header")
        while source[position : position + 1] == b"\xff":
            position += 1
        if position >= len(source):
            raise damaged("the file ends inside its header")
        if source[position]:
            return source[position], position + 1


def _frame_size(marker: int, body: bytes) -> tuple[int, int]:
    if marker not in _SHOWN_FRAMES:
        raise damaged(f"its kind (SOF{marker - 0xC0}: arithmetic, lossless or hierarchical) is not shown by browsers")
    if len(body) < 6:
        raise damaged("its frame header is cut")
    precision, height, width = struct.unpack_from(">BHH", body)
    if precision != 8:
        raise damaged(f"its {precision}-bit samples are not shown by browsers")
    if not width or not height:
        raise damaged("its frame header gives it no size")
    return width, height


def _join_profile(parts: list[bytes]) -> bytes:
    """An ICC profile from its numbered parts (ICC.1:2022, B.4); empty where parts are missing or doubled."""
    parts = [part for part in parts if len(part) >= 2]
    by_number = {part[0]: part for part in parts}
    count = len(parts)
    if sorted(by_number) != list(range(1, count + 1)) or any(part[1] != count for part in parts):
        return b""
    return b"".join(by_number[number][2:] for number in range(1, count + 1))
