"""The frames of an animated PNG, composed by the specification (PNG, third edition, 12.3 to 12.5)."""

import struct
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import accumulate, pairwise

from PIL import Image

from webpd.convert import png as png_file
from webpd.convert.png import Png, damaged

_DISPOSE_NONE, _DISPOSE_BACKGROUND, _DISPOSE_PREVIOUS = 0, 1, 2
_BLEND_SOURCE, _BLEND_OVER = 0, 1
# The largest integer of a PNG (7.1); what is larger browsers read as negative.
_MAX_INTEGER = (1 << 31) - 1
# WebP keeps the loop count in 16 bits and a duration in 24 (RFC 9649, 2.7.1.1).
_MAX_LOOPS, _MAX_MILLISECONDS = (1 << 16) - 1, (1 << 24) - 1


@dataclass(frozen=True, slots=True)
class _Frame:
    """One fcTL chunk and its pixels; sizes and offsets in pixels, delay in seconds."""

    width: int
    height: int
    left: int
    top: int
    delay: float
    dispose: int
    blend: int
    pixels: list[bytes] = field(default_factory=list)

    @property
    def box(self) -> tuple[int, int, int, int]:
        return self.left, self.top, self.left + self.width, self.top + self.height


@dataclass(frozen=True, slots=True)
class Animation:
    """What to show, in order: whole RGBA pictures, their durations in ms, and how often (0: for ever)."""

    frames: list[Image.Image]
    milliseconds: list[int]
    loops: int


def is_animated(png: Png) -> bool:
    return b"acTL" in png.facts


def compose(png: Png) -> Animation:
    """Decodes all frames and composes them, in the file's own colour space, as Chromium does.

    A default image that is not part of the animation is left out. Durations are rounded so that no error adds up.

    Raises:
        FailedError: ``DAMAGED`` for every departure from the specification: browsers then show the default image,
            some of the frames or nothing, and disagree.
        MemoryError: there was not enough.
    """
    if len(png.facts[b"acTL"]) != 8:
        raise damaged("its acTL chunk is cut")
    count, loops = struct.unpack(">II", png.facts[b"acTL"])
    if loops > _MAX_INTEGER:
        raise damaged("its loop count is beyond all bounds")
    frames = list(_frames(png))
    if not count or len(frames) != count:
        raise damaged(f"it announces {count} frames and has {len(frames)}")
    ends = [round(1000 * end) for end in accumulate((frame.delay for frame in frames), initial=0.0)]
    durations = [min(end - start, _MAX_MILLISECONDS) for start, end in pairwise(ends)]
    return Animation(list(_composed(png, frames)), durations, min(loops, _MAX_LOOPS))


def _frames(png: Png) -> Iterator[_Frame]:
    numbers = [int.from_bytes(body[:4], "big") for name, body in png.sequence if name != b"IDAT"]
    if numbers != list(range(len(numbers))):
        raise damaged("its frames are out of sequence")
    current: _Frame | None = None
    default_seen = False
    for name, body in png.sequence:
        if name == b"fcTL":
            if current is not None:
                yield _complete(current)
            current = _frame(png, body)
            if not default_seen and current.box != (0, 0, png.width, png.height):
                raise damaged("its first frame does not fill the canvas")
        elif name == b"IDAT":
            default_seen = True
            if current is not None:
                current.pixels.append(body)
        elif current is None or not default_seen:
            raise damaged("it has frame data before its first frame")
        else:
            current.pixels.append(body[4:])
    if current is not None:
        yield _complete(current)


def _complete(frame: _Frame) -> _Frame:
    if not frame.pixels:
        raise damaged("one of its frames has no pixels")
    return frame


def _frame(png: Png, body: bytes) -> _Frame:
    if len(body) != 26:
        raise damaged("an fcTL chunk is cut")
    _, width, height, left, top, numerator, denominator, dispose, blend = struct.unpack(">IIIIIHHBB", body)
    if not width or not height or left + width > png.width or top + height > png.height:
        raise damaged("one of its frames does not lie on the canvas")
    if dispose > _DISPOSE_PREVIOUS or blend > _BLEND_OVER:
        raise damaged("one of its frames is disposed of or blended in an unknown way")
    return _Frame(width, height, left, top, numerator / (denominator or 100), dispose, blend)


def _composed(png: Png, frames: list[_Frame]) -> Iterator[Image.Image]:
    canvas = Image.new("RGBA", (png.width, png.height))
    for index, frame in enumerate(frames):
        piece = png_file.decode(png.resized(frame.width, frame.height), frame.pixels).convert("RGBA")
        before = canvas
        canvas = canvas.copy()
        if frame.blend == _BLEND_OVER:
            canvas.alpha_composite(piece, (frame.left, frame.top))
        else:
            canvas.paste(piece, (frame.left, frame.top))
        yield canvas
        # Before the first frame there is nothing to go back to: that is a cleared canvas as well.
        if frame.dispose == _DISPOSE_PREVIOUS and index:
            canvas = before
        elif frame.dispose != _DISPOSE_NONE:
            canvas = canvas.copy()
            canvas.paste((0, 0, 0, 0), frame.box)
