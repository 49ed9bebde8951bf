"""Two animations side by side, as Chromium plays them."""

from bisect import bisect_right
from itertools import accumulate

from PIL import Image, ImageChops

from tests.referee import Animation, Shown

# WebP counts loops in 16 bits, the first showing among them; PNG in 31.
_MOST_REPETITIONS = (1 << 16) - 2


def differences(original: Animation, sidecar: Animation, worst_block: float = 12.0) -> list[str]:
    """What a visitor could see: sizes, loops, and the picture in the middle of each of the original's frames.

    WebP may hold two equal frames as one, so pictures are compared by time, not by number. ``worst_block`` is the most
    that the mean of an 8x8 block may differ, in levels of 255 times alpha.
    """
    found = []
    if min(original.repetitions, _MOST_REPETITIONS) != sidecar.repetitions and len(sidecar.frames) > 1:
        found.append(f"loops {original.repetitions} and {sidecar.repetitions}")
    # Chromium cuts the delays of a PNG to whole milliseconds; WebP's are rounded so that no error adds up.
    if len(original.frames) == len(sidecar.frames):
        pairs = zip(original.milliseconds, sidecar.milliseconds, strict=True)
        found += [f"delays {one} and {two}" for one, two in pairs if abs(one - two) > 1]
    ends = list(accumulate(sidecar.milliseconds))
    end = 0.0
    for number, (frame, delay) in enumerate(zip(original.frames, original.milliseconds, strict=True)):
        same_number = number if len(original.frames) == len(sidecar.frames) else None
        at = bisect_right(ends, end + delay / 2) if same_number is None else same_number
        end += delay
        other = sidecar.frames[min(at, len(sidecar.frames) - 1)]
        if (frame.width, frame.height) != (other.width, other.height):
            found.append(f"size of frame {number}")
        elif (most := _worst_block(frame, other)) > worst_block:
            found.append(f"frame {number} differs by {most}")
    return found


def _worst_block(one: Shown, two: Shown) -> float:
    worst = 0.0
    for ground in ("black", "white"):
        pictures = [_over(shown, ground) for shown in (one, two)]
        for bands in zip(*(picture.split() for picture in pictures), strict=True):
            more, less = ImageChops.subtract(*bands), ImageChops.subtract(*reversed(bands))
            for difference in (_block_means(more), _block_means(less)):
                worst = max(worst, *difference)
    return worst


def _over(shown: Shown, ground: str) -> Image.Image:
    picture = Image.frombytes("RGBA", (shown.width, shown.height), shown.rgba)
    return Image.alpha_composite(Image.new("RGBA", picture.size, ground), picture).convert("RGB")


def _block_means(band: Image.Image) -> tuple[float, ...]:
    shape = (max(1, band.width // 8), max(1, band.height // 8))
    extremes: tuple[float, float] = band.resize(shape, Image.Resampling.BOX).getextrema()  # type: ignore[assignment]
    return extremes
