"""Test pictures: real photographs that scikit-image ships, made into files by other programs or byte by byte."""

import os
import struct
import subprocess
import zlib
from collections.abc import Iterable, Sequence
from functools import lru_cache
from io import BytesIO

import skimage.data
from PIL import Image

_PHOTOS = os.path.dirname(skimage.data.__file__)
_PROFILES = "/usr/share/color/icc/ghostscript"  # Debian: libgs9-common

JPEG_PHOTOS = ("rocket.jpg", "retina.jpg", "hubble_deep_field.jpg")
PNG_PHOTOS = ("astronaut.png", "chelsea.png", "coffee.png", "motorcycle_left.png")


@lru_cache(maxsize=64)
def photo(name: str) -> bytes:
    """The bytes of one of scikit-image's own files."""
    with open(os.path.join(_PHOTOS, name), "rb") as file:
        return file.read()


def photo_names() -> list[str]:
    return sorted(name for name in os.listdir(_PHOTOS) if name.endswith((".png", ".jpg")))


@lru_cache(maxsize=64)
def pixels(name: str, width: int, height: int) -> Image.Image:
    """A photograph as RGB pixels at this size, its middle; to be copied before it is changed."""
    with Image.open(BytesIO(photo(name))) as image:
        picture = image.convert("RGB")
    scale = max(width / picture.width, height / picture.height)
    left, top = (picture.width - width / scale) / 2, (picture.height - height / scale) / 2
    box = (left, top, left + width / scale, top + height / scale)
    return picture.resize((width, height), Image.Resampling.LANCZOS, box)


def icc_profile(name: str) -> bytes:
    """One of Ghostscript's profiles, such as ``a98`` or ``default_cmyk``."""
    with open(os.path.join(_PROFILES, f"{name}.icc"), "rb") as file:
        return file.read()


def run(program: str, *options: str, given: bytes) -> bytes:
    """What a program makes of its standard input."""
    return subprocess.run([program, *options], input=given, capture_output=True, check=True).stdout


def ppm(image: Image.Image) -> bytes:
    """Bare pixels, as other programs read them: PGM for grey, PPM otherwise."""
    output = BytesIO()
    image.save(output, "PPM")
    return output.getvalue()


def cjpeg(image: Image.Image, *options: str, quality: int = 90) -> bytes:
    """A JPEG by libjpeg-turbo's own program."""
    return run("cjpeg", "-quality", str(quality), *options, given=ppm(image))


def imagemagick(image: Image.Image, *options: str) -> bytes:
    """A file by ImageMagick, without the time; the last option names the format, such as ``png:-``."""
    return run("convert-im6.q16", "ppm:-", "-define", "png:exclude-chunk=date,tIME", *options, given=ppm(image))


# JPEG, segment by segment


def segment(marker: int, body: bytes) -> bytes:
    return struct.pack(">BBH", 0xFF, marker, len(body) + 2) + body


def with_segments(jpeg: bytes, *segments: bytes) -> bytes:
    """The JPEG with these segments right after its first marker."""
    return jpeg[:2] + b"".join(segments) + jpeg[2:]


def icc_segments(profile: bytes, part: int = 65_000) -> list[bytes]:
    parts = [profile[start : start + part] for start in range(0, len(profile), part)]
    return [
        segment(0xE2, b"ICC_PROFILE\0" + bytes((number, len(parts))) + data)
        for number, data in enumerate(parts, start=1)
    ]


def tiff(orientation: int, order: str = ">", kind: int = 3, count: int = 1) -> bytes:
    """An EXIF directory that holds nothing but the orientation."""
    head = b"MM\0*" if order == ">" else b"II*\0"
    return head + struct.pack(f"{order}IHHHIHHI", 8, 1, 0x0112, kind, count, orientation, 0, 0)


def exif_segment(directory: bytes) -> bytes:
    return segment(0xE1, b"Exif\0\0" + directory)


# PNG, chunk by chunk

GREY, RGB, PALETTE, GREY_ALPHA, RGB_ALPHA = 0, 2, 3, 4, 6
_CHANNELS = {GREY: 1, RGB: 3, PALETTE: 1, GREY_ALPHA: 2, RGB_ALPHA: 4}


def chunk(name: bytes, body: bytes = b"") -> bytes:
    return struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))


def png(
    size: tuple[int, int],
    colour: int,
    samples: bytes,
    *,
    depth: int = 8,
    before: Iterable[bytes] = (),
    after: Iterable[bytes] = (),
) -> bytes:
    """A PNG of these packed samples (rows padded to bytes), with chunks before and after its pixels."""
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", *size, depth, colour, 0, 0, 0))
    return png_of(header, *before, chunk(b"IDAT", deflated(size, colour, samples, depth)), *after)


def png_of(*chunks: bytes) -> bytes:
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunks) + chunk(b"IEND")


def deflated(size: tuple[int, int], colour: int, samples: bytes, depth: int = 8) -> bytes:
    stride = (size[0] * depth * _CHANNELS[colour] + 7) // 8
    rows = (b"\0" + samples[row * stride : (row + 1) * stride] for row in range(size[1]))
    return zlib.compress(b"".join(rows))


def with_chunks(source: bytes, *chunks: bytes) -> bytes:
    """The PNG with these chunks right after its header."""
    return source[:33] + b"".join(chunks) + source[33:]


def iccp(profile: bytes) -> bytes:
    return chunk(b"iCCP", b"profile\0\0" + zlib.compress(profile))


def gama(gamma: int) -> bytes:
    return chunk(b"gAMA", struct.pack(">I", gamma))


def chrm(*chromaticities: float) -> bytes:
    return chunk(b"cHRM", struct.pack(">8I", *(round(100_000 * value) for value in chromaticities)))


# Animated PNG, frame by frame


def frame(
    image: Image.Image,
    at: tuple[int, int] = (0, 0),
    *,
    delay: tuple[int, int] = (1, 10),
    dispose: int = 0,
    blend: int = 0,
) -> tuple[bytes, bytes]:
    """Contents of an fcTL chunk (without number) and compressed RGBA pixels."""
    control = struct.pack(">IIIIHHBB", *image.size, *at, *delay, dispose, blend)
    return control, deflated(image.size, RGB_ALPHA, image.convert("RGBA").tobytes())


def apng(
    frames: Sequence[tuple[bytes, bytes]],
    size: tuple[int, int],
    *,
    plays: int = 0,
    default: Image.Image | None = None,
    before: Iterable[bytes] = (),
) -> bytes:
    """An animated RGBA PNG; with ``default``, a still picture that is not part of it."""
    chunks = [chunk(b"IHDR", struct.pack(">IIBBBBB", *size, 8, RGB_ALPHA, 0, 0, 0)), *before]
    chunks.append(chunk(b"acTL", struct.pack(">II", len(frames), plays)))
    if default is not None:
        chunks.append(chunk(b"IDAT", deflated(size, RGB_ALPHA, default.convert("RGBA").tobytes())))
    number = 0
    for index, (control, data) in enumerate(frames):
        chunks.append(chunk(b"fcTL", struct.pack(">I", number) + control))
        number += 1
        if index == 0 and default is None:
            chunks.append(chunk(b"IDAT", data))
        else:
            chunks.append(chunk(b"fdAT", struct.pack(">I", number) + data))
            number += 1
    return png_of(*chunks)
