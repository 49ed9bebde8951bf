"""At which quality is a JPEG worth coding again? Bytes and likeness for JPEG qualities 30 to 100.

    python -m bench.source_quality [--photos DIR]

"More loss" is what SSIM with the picture before it was a JPEG falls by, from the JPEG to the WebP.
"""

import argparse
import io
import os
import statistics

import numpy as np
from bench.pictures import photographs, thumbnail
from PIL import Image
from skimage.metrics import structural_similarity

SOURCES = (30, 40, 50, 60, 70, 75, 80, 85, 90, 95, 100)
SIDES = (150, 300, 600)
OUT = os.path.join(os.path.dirname(__file__), "out")


def likeness(one: Image.Image, other: Image.Image) -> float:
    """SSIM of the luma."""
    before, after = (np.asarray(image.convert("L")) for image in (one, other))
    return float(
        structural_similarity(  # type: ignore[no-untyped-call]  # scikit-image has no hints
            before, after, gaussian_weights=True, data_range=255
        )
    )


def encoded(image: Image.Image, kind: str, quality: int) -> tuple[int, Image.Image]:
    """Bytes, and the picture as it comes back."""
    buffer = io.BytesIO()
    image.save(buffer, kind, quality=quality)
    return buffer.tell(), Image.open(buffer).convert("RGB")


def row(images: list[Image.Image], source: int, qualities: list[int]) -> str:
    """One JPEG quality, coded again at several WebP qualities."""
    lost: list[float] = []
    ratios: dict[int, list[float]] = {quality: [] for quality in qualities}
    more: dict[int, list[float]] = {quality: [] for quality in qualities}
    for image in images:
        size, decoded = encoded(image, "JPEG", source)
        before = likeness(image, decoded)
        lost.append(1 - before)
        for quality in qualities:
            webp_size, webp = encoded(decoded, "WEBP", quality)
            ratios[quality].append(webp_size / size)
            more[quality].append(before - likeness(image, webp))
    cells = [f"{statistics.median(ratios[q]):.2f}, {statistics.median(more[q]):.3f}" for q in qualities]
    return f"| {source} | {statistics.median(lost):.3f} | " + " | ".join(cells) + " |"


def main() -> None:
    """Measure, print the table, and leave it in bench/out."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--photos", help="a folder of further photographs")
    options = parser.parse_args()
    images = [thumbnail(image, side) for image in photographs(options.photos).values() for side in SIDES]
    lines = [
        f"{len(images)} thumbnails of {', '.join(map(str, SIDES))} px; bytes ÷ JPEG, more loss of SSIM.",
        "",
        "| JPEG quality | loss by it | WebP 10 below | WebP the same | WebP 5 above | WebP 80 |",
        "|--:|--:|--:|--:|--:|--:|",
    ]
    lines += [row(images, source, [source - 10, source, min(100, source + 5), 80]) for source in SOURCES]
    os.makedirs(OUT, exist_ok=True)
    with open(os.path.join(OUT, "source_quality.md"), "w", encoding="utf-8") as file:
        file.write("\n".join(lines) + "\n")
    print("\n".join(lines))


if __name__ == "__main__":
    main()
