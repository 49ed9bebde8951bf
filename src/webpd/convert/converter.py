"""From the bytes of a JPEG or PNG to those of a WebP that looks the same in a browser."""

import re
import struct
from io import BytesIO
from typing import Any

# WebPImagePlugin registers the coder; every plugin that may be needed is imported now, for a worker can open no file.
from PIL import Image, WebPImagePlugin

from webpd.convert import apng, colour, exif, jpeg, png
from webpd.convert.choice import is_graphic, jpeg_quality
from webpd.convert.header import check_size
from webpd.convert.result import Converted
from webpd.errors import FailedError, RefusedError
from webpd.model import Encoding, Failure, Picture, Skip

# Pixels above which even a graphic is coded lossy: libwebp's lossless coder takes 24 s and 1.4 GB for 50 million.
_MAX_LOSSLESS_PIXELS = 12_000_000
# How Pillow words libwebp's two "out of memory" errors, of a still picture and of an animation's frame.
_OUT_OF_MEMORY = re.compile(r"encoding error [12]$|WebPEncodingError: [12]\.")
_LOSSLESS_EFFORT = 75  # libwebp's own default; of the lossless coder "quality" sets how hard it tries


class ImageConverter:
    """Converts pictures in memory: no file, no network, no state but caches."""

    def __init__(self, encoding: Encoding, max_pixels: int) -> None:
        """``max_pixels`` counts the canvas times the frames."""
        self._encoding = encoding
        self._max_pixels = max_pixels

    def convert(self, source: bytes) -> Converted:
        """Converts one JPEG or PNG, told by its content.

        Raises:
            RefusedError: ``EMPTY``, ``NOT_AN_IMAGE``, or ``TOO_LARGE``, told from the header alone.
            FailedError: ``DAMAGED`` or ``MEMORY``.
            UnsuitedError: no WebP would look the same.
        """
        if not source:
            raise RefusedError(Skip.EMPTY, "the file is empty: its upload has failed or is not finished")
        try:
            if source.startswith(jpeg.SIGNATURE):
                return self._convert_jpeg(source)
            if source.startswith(png.SIGNATURE):
                return self._convert_png(source)
        except MemoryError as error:
            raise _out_of_memory() from error
        raise RefusedError(Skip.NOT_AN_IMAGE, f"neither JPEG nor PNG: the content begins with {source[:8]!r}")

    def inspect(self, webp: bytes) -> Picture:
        """Decodes a WebP, every frame of it.

        Raises:
            FailedError: ``DAMAGED`` where it does not decode, ``MEMORY``.
        """
        try:
            image = WebPImagePlugin.WebPImageFile(BytesIO(webp))
            for frame in range(image.n_frames):
                image.seek(frame)
                image.load()
        except (OSError, EOFError, SyntaxError, ValueError, struct.error, Image.DecompressionBombError) as error:
            raise FailedError(Failure.DAMAGED, f"the WebP does not decode: {error}; convert again") from error
        except MemoryError as error:
            raise _out_of_memory() from error
        return Picture(image.width, image.height, "webp", image.n_frames, _is_lossless(webp))

    def _convert_jpeg(self, source: bytes) -> Converted:
        header = jpeg.read(source)
        check_size(header.width, header.height, 1, self._max_pixels)
        image, quantization = jpeg.decode(header)
        quality = jpeg_quality(quantization, self._encoding.quality)
        if image.mode == "CMYK":
            image = colour.cmyk_to_srgb(image, header.icc_profile)
            colours = colour.Colours()
        else:
            colours = colour.of_profile(header.icc_profile, grey=image.mode == "L")
            image = colours.correct(image)
        image = _turn(image, header.orientation)
        return self._encode([image], "jpeg", colours.profile, lossless=False, quality=quality)

    def _convert_png(self, source: bytes) -> Converted:
        width, height = png.read_size(source)
        check_size(width, height, 1, self._max_pixels)
        check_size(width, height, png.read_frames(source), self._max_pixels)
        png.check_inflated(source)
        picture = png.read(source)
        colours = colour.of_png(picture)
        turn = exif.orientation(picture.facts.get(b"eXIf", b""))
        animation: dict[str, Any] = {}
        if apng.is_animated(picture):
            colours = colours.converted()
            composed = apng.compose(picture)
            frames = [_turn(colours.correct(frame), turn) for frame in composed.frames]
            animation = {"save_all": True, "duration": composed.milliseconds, "loop": composed.loops}
        else:
            frames = [_turn(colours.correct(png.decode(picture, picture.pixels)), turn)]
        lossless = width * height * len(frames) <= _MAX_LOSSLESS_PIXELS and is_graphic(frames[0])
        quality = _LOSSLESS_EFFORT if lossless else self._encoding.quality
        return self._encode(frames, "png", colours.profile, lossless=lossless, quality=quality, **animation)

    def _encode(
        self,
        frames: list[Image.Image],
        source_format: str,
        profile: bytes,
        *,
        lossless: bool,
        quality: int,
        **animation: Any,
    ) -> Converted:
        first = frames[0]
        output = BytesIO()
        try:
            first.save(
                output,
                "WEBP",
                lossless=lossless,
                quality=quality,
                method=self._encoding.method,
                alpha_quality=100,
                icc_profile=profile,
                append_images=frames[1:],
                **animation,
            )
        except (OSError, ValueError, RuntimeError) as error:
            if _OUT_OF_MEMORY.search(str(error)):
                raise _out_of_memory() from error
            raise FailedError(Failure.DAMAGED, f"libwebp cannot code this picture: {error}") from error
        return Converted(output.getvalue(), Picture(*first.size, source_format, len(frames), lossless))


def _turn(image: Image.Image, orientation: int) -> Image.Image:
    method = exif.TURNS.get(orientation)
    return image if method is None else image.transpose(method)


def _out_of_memory() -> FailedError:
    return FailedError(
        Failure.MEMORY,
        "the picture needs more memory than a worker may use; raise WEBPD_WORKER_MEMORY or lower WEBPD_MAX_PIXELS",
    )


def _is_lossless(webp: bytes) -> bool:
    """Which coder made the pixels, in an animation those of the first frame (RFC 9649, 2.3 to 2.7)."""
    position = 12
    while position + 8 <= len(webp):
        name, size = struct.unpack_from("<4sI", webp, position)
        if name in {b"VP8 ", b"VP8L"}:
            return bool(name == b"VP8L")
        # A frame's own chunks stand inside of it, after 16 bytes.
        position += 24 if name == b"ANMF" else 8 + size + size % 2
    return False
