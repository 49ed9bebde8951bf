"""The two things in EXIF that change what a browser shows: the orientation, and a size at which to show it.

An EXIF directory is a TIFF structure (EXIF 2.32, 4.5), as it follows ``Exif`` and two bytes in a JPEG, and makes up a
PNG's eXIf chunk.
"""

import struct
from collections.abc import Iterator

from PIL import Image

TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}

_ORIENTATION, _X_RESOLUTION, _Y_RESOLUTION, _RESOLUTION_UNIT = 0x0112, 0x011A, 0x011B, 0x0128
_SUBDIRECTORY, _X_DIMENSION, _Y_DIMENSION = 0x8769, 0xA002, 0xA003
_SHORT, _LONG, _RATIONAL = 3, 4, 5
_INCH = 2
_DEFAULT_RESOLUTION = 72  # pixels per inch, at which a browser shows a picture as it is


def orientation(exif: bytes) -> int:
    """1 to 8, by the first entry that browsers believe; 1 where there is none."""
    value = int(_values(exif, _first_directory(exif)).get((_ORIENTATION, _SHORT), 1))
    return value if value in TURNS else 1


def shown_size(exif: bytes, width: int, height: int) -> tuple[int, int]:
    """Width and height at which Chromium shows a JPEG of this size in pixels, before the turn.

    That is another where resolution and dimensions in EXIF agree on it, as some makers of double-size pictures do.
    """
    found = _values(exif, _first_directory(exif))
    across, down = (found.get((tag, _RATIONAL), 0.0) for tag in (_X_RESOLUTION, _Y_RESOLUTION))
    if found.get((_RESOLUTION_UNIT, _SHORT)) != _INCH or not across or not down:
        return width, height
    inner = _values(exif, int(found.get((_SUBDIRECTORY, _LONG), 0)))
    told = tuple(int(inner.get((tag, _LONG), inner.get((tag, _SHORT), 0))) for tag in (_X_DIMENSION, _Y_DIMENSION))
    by_resolution = (round(width * _DEFAULT_RESOLUTION / across), round(height * _DEFAULT_RESOLUTION / down))
    return by_resolution if told == by_resolution else (width, height)


def _byte_order(exif: bytes) -> str:
    return {b"II*\0": "<", b"MM\0*": ">"}.get(exif[:4], "")


def _first_directory(exif: bytes) -> int:
    order = _byte_order(exif)
    return int(struct.unpack_from(f"{order}I", exif, 4)[0]) if order and len(exif) >= 8 else 0


def _values(exif: bytes, directory: int) -> dict[tuple[int, int], float]:
    """Single numbers of a directory by tag and type; of two entries with the same the first."""
    found: dict[tuple[int, int], float] = {}
    for tag, kind, value in _entries(exif, directory):
        found.setdefault((tag, kind), value)
    return found


def _entries(exif: bytes, directory: int) -> Iterator[tuple[int, int, float]]:
    order = _byte_order(exif)
    if not order or not 8 <= directory <= len(exif) - 2:
        return
    (count,) = struct.unpack_from(f"{order}H", exif, directory)
    for entry in range(directory + 2, min(directory + 2 + 12 * count, len(exif) - 11), 12):
        tag, kind, values = struct.unpack_from(f"{order}HHI", exif, entry)
        if values != 1:
            continue
        if kind == _SHORT:
            yield tag, kind, struct.unpack_from(f"{order}H", exif, entry + 8)[0]
            continue
        (number,) = struct.unpack_from(f"{order}I", exif, entry + 8)
        if kind == _LONG:
            yield tag, kind, number
        elif kind == _RATIONAL and number + 8 <= len(exif):
            numerator, denominator = struct.unpack_from(f"{order}II", exif, number)
            yield tag, kind, numerator / denominator if denominator else 0.0
