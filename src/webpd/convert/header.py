"""What may be converted at all, told from a header's numbers, before anything is decoded or inflated."""

from webpd.errors import RefusedError
from webpd.model import Skip

# The largest side that WebP's bit streams can say: 14 bits (RFC 9649, 2.5 and 3.4).
MAX_SIDE = 16_383


def check_size(width: int, height: int, frames: int, max_pixels: int) -> None:
    """Refuses what WebP cannot hold, or what is more than ``max_pixels`` pixels (canvas times frames).

    Raises:
        RefusedError: ``TOO_LARGE``.
    """
    if max(width, height) > MAX_SIDE:
        raise RefusedError(
            Skip.TOO_LARGE,
            f"{width} x {height} pixels: WebP stops at {MAX_SIDE:,} pixels a side; the original is served",
        )
    if width * height * frames > max_pixels:
        times = f" x {frames} frames" if frames > 1 else ""
        raise RefusedError(
            Skip.TOO_LARGE,
            f"{width} x {height}{times} pixels is more than WEBPD_MAX_PIXELS={max_pixels}; the original is served",
        )
