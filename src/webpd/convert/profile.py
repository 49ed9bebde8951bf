"""ICC profiles for the colour spaces that a PNG names by numbers, so that a WebP can name them too."""

import struct
from collections.abc import Sequence

_Matrix = list[list[float]]
_Vector = list[float]

# The connection space's white (ICC.1:2022, 7.2.16), and the Bradford matrix that leads there (same, annex E).
_D50 = [0.9642, 1.0, 0.8249]
_BRADFORD = [[0.8951, 0.2664, -0.1614], [-0.7502, 1.7135, 0.0367], [0.0389, -0.0685, 1.0296]]
_VERSION = 0x04400000  # 4.4, the first with cicp tags


def rgb_profile(chromaticities: Sequence[float], exponent: float, cicp: bytes = b"") -> bytes:
    """A profile of version 4.4 for an RGB space whose light is ``level ** exponent``.

    ``chromaticities`` are x and y of white, red, green and blue, in cHRM's order. ``cicp``, the four code points of
    ITU-T H.273 as a cICP chunk has them, overrides the exponent where a browser knows of it.

    Raises:
        ValueError: there is no such space: no light, or primaries on one line, or an exponent that ICC cannot say.
    """
    try:
        columns = _transposed(_to_d50(chromaticities))
        curve = b"para" + bytes(8) + _fixed(exponent)
        tags = [(name, _xyz(column)) for name, column in zip((b"rXYZ", b"gXYZ", b"bXYZ"), columns, strict=True)]
    except (ZeroDivisionError, struct.error) as error:
        raise ValueError("no colour space has these primaries and this gamma") from error
    tags.append((b"wtpt", _xyz(_D50)))
    tags += [(name, curve) for name in (b"rTRC", b"gTRC", b"bTRC")]
    if cicp:
        tags.append((b"cicp", b"cicp" + bytes(4) + cicp))
    return _assemble(tags)


def _assemble(tags: list[tuple[bytes, bytes]]) -> bytes:
    """Header and tag table (ICC.1:2022, 7.2 and 7.3); tags of equal content share it."""
    start = 128 + 4 + 12 * len(tags)
    table, data = struct.pack(">I", len(tags)), b""
    offsets: dict[bytes, int] = {}
    for name, content in tags:
        if content not in offsets:
            offsets[content] = start + len(data)
            data += content
        table += struct.pack(">4sII", name, offsets[content], len(content))
    header = struct.pack(">I4xI4s4s4s12x4s28x", start + len(data), _VERSION, b"mntr", b"RGB ", b"XYZ ", b"acsp")
    return header + _xyz(_D50)[8:] + bytes(48) + table + data


def _to_d50(chromaticities: Sequence[float]) -> _Matrix:
    """From linear RGB to XYZ under D50."""
    white, *primaries = [
        [x / y, 1.0, (1 - x - y) / y] for x, y in zip(chromaticities[::2], chromaticities[1::2], strict=True)
    ]
    unscaled = _transposed(primaries)
    weights = _apply(_inverse(unscaled), white)
    to_xyz = [[value * weight for value, weight in zip(row, weights, strict=True)] for row in unscaled]
    gains = [wanted / given for wanted, given in zip(_apply(_BRADFORD, _D50), _apply(_BRADFORD, white), strict=True)]
    adapted = [[gain * value for value in row] for gain, row in zip(gains, _BRADFORD, strict=True)]
    return _product(_inverse(_BRADFORD), _product(adapted, to_xyz))


def _fixed(value: float) -> bytes:
    return struct.pack(">i", round(value * 65536))


def _xyz(vector: _Vector) -> bytes:
    return b"XYZ " + bytes(4) + b"".join(map(_fixed, vector))


def _apply(matrix: _Matrix, vector: _Vector) -> _Vector:
    return [sum(a * b for a, b in zip(row, vector, strict=True)) for row in matrix]


def _transposed(matrix: _Matrix) -> _Matrix:
    return [list(column) for column in zip(*matrix, strict=True)]


def _product(one: _Matrix, two: _Matrix) -> _Matrix:
    return _transposed([_apply(one, column) for column in _transposed(two)])


def _inverse(matrix: _Matrix) -> _Matrix:
    (a, b, c), (d, e, f), (g, h, i) = matrix
    minors = [
        [e * i - f * h, c * h - b * i, b * f - c * e],
        [f * g - d * i, a * i - c * g, c * d - a * f],
        [d * h - e * g, b * g - a * h, a * e - b * d],
    ]
    determinant = a * minors[0][0] + b * minors[1][0] + c * minors[2][0]
    return [[value / determinant for value in row] for row in minors]
