"""Files made to hurt: they end with an outcome, in bounded memory, and no wrong picture is published."""

import json
import os
import struct
import subprocess
import zlib
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.conftest import WEBPD, write


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


def run(root: Path) -> tuple[dict[str, object], int, float]:
    """Return what ``webpd convert`` told, and the peak memory in MiB and the seconds of all its processes."""
    process = subprocess.Popen([*WEBPD, "convert", "--json", "--workers", "1", str(root)], stdout=subprocess.PIPE)
    assert process.stdout is not None
    told = json.loads(process.stdout.read())
    process.stdout.close()
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    assert process.returncode in {0, 1}
    return told, usage.ru_maxrss // 1024, told["seconds"]


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
    told, memory, seconds = run(tmp_path)
    print(f"{name}: {len(data):,} bytes, {memory} MiB, {seconds} s, {told['skipped']} {told['failed']}")
    assert told["found"] == 1
    assert told["converted"] == 0
    assert memory < 200
    assert not list(tmp_path.glob("*.webp"))
