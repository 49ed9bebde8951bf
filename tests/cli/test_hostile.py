"""Bombs: they end with an outcome, soon, and in little memory."""

import struct
import zlib
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.conftest import convert_measured, write


def chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png(*chunks: bytes) -> bytes:
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunks) + chunk(b"IEND", b"")


def ihdr(width: int, height: int, depth: int = 8, colour: int = 0) -> bytes:
    return chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0))


def zeros(count: int) -> bytes:
    """Return that many zero bytes, deflated, without ever holding them all."""
    packer = zlib.compressobj(9)
    block = bytes(1 << 20)
    parts = [packer.compress(block) for _ in range(count >> 20)]
    return b"".join((*parts, packer.compress(bytes(count & 0xFFFFF)), packer.flush()))


def gigapixel() -> bytes:
    return png(ihdr(32_768, 32_768, 1), chunk(b"IDAT", zeros(32_768 * (32_768 // 8 + 1))))


def huge_jpeg_header(photograph: Callable[..., bytes]) -> bytes:
    data = bytearray(photograph())
    at = data.index(b"\xff\xc0") + 5
    data[at : at + 4] = struct.pack(">HH", 65_000, 65_000)
    return bytes(data)


def long_animation() -> bytes:
    frame = struct.pack(">IIIIHHBB", 4_000, 4_000, 0, 0, 1, 10, 0, 0)
    data = zeros(4_000 * 4_001)
    parts = [ihdr(4_000, 4_000), chunk(b"acTL", struct.pack(">II", 10_000, 0))]
    parts += [chunk(b"fcTL", struct.pack(">I", 0) + frame), chunk(b"IDAT", data)]
    for number in range(1, 10_000):
        parts.append(chunk(b"fcTL", struct.pack(">I", 2 * number - 1) + frame))
        parts.append(chunk(b"fdAT", struct.pack(">I", 2 * number) + data[:1000]))
    return png(*parts)


def swollen_text() -> bytes:
    return png(
        ihdr(8, 8), chunk(b"zTXt", b"Comment\0\0" + zeros(200 << 20)), chunk(b"IDAT", zlib.compress(bytes(9 * 8)))
    )


def swollen_profile() -> bytes:
    return png(ihdr(8, 8), chunk(b"iCCP", b"icc\0\0" + zeros(200 << 20)), chunk(b"IDAT", zlib.compress(bytes(9 * 8))))


@pytest.mark.parametrize(
    "name", ["gigapixel.png", "header.jpg", "animation.png", "swollen_text.png", "swollen_profile.png"]
)
def test_a_bomb_is_refused_in_little_memory(name: str, tmp_path: Path, photograph: Callable[..., bytes]) -> None:
    makers: dict[str, Callable[[], bytes]] = {
        "gigapixel.png": gigapixel,
        "header.jpg": lambda: huge_jpeg_header(photograph),
        "animation.png": long_animation,
        "swollen_text.png": swollen_text,
        "swollen_profile.png": swollen_profile,
    }
    data = makers[name]()
    write(tmp_path / name, data)
    done = convert_measured(tmp_path, "--workers", "1")
    told = done.json
    print(f"{name}: {len(data):,} bytes: {told['skipped']} in {told['seconds']} s with start-up, {done.memory} MiB")
    assert told["found"] == 1
    assert told["skipped"] == {"too_large": 1}
    assert done.memory < 200
    assert not list(tmp_path.glob("*.webp"))
