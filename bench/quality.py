"""Which quality and method to use by default: bytes, likeness and seconds of every combination, side by side.

    python -m bench.quality [--photos DIR] [--rounds 3]

Thumbnails are compared with the source as decoded, for that is what a visitor would see without us. All combinations
run in one process, in rounds that each visit every one, and times are ratios to method 4 at the same quality.
"""

import argparse
import io
import math
import os
import statistics
import time
from collections import defaultdict
from dataclasses import dataclass, field

import numpy as np
import PIL
from bench.pictures import SIDES, jpeg, photographs, png, thumbnail
from matplotlib.figure import Figure
from PIL import Image, features
from skimage.metrics import structural_similarity

QUALITIES = (70, 75, 80, 82, 85, 90)
METHODS = (0, 1, 2, 4, 5, 6)
OUT = os.path.join(os.path.dirname(__file__), "out")


@dataclass
class Measured:
    """What one quality and method did to all pictures."""

    ratios: list[float] = field(default_factory=list)
    ssim: list[float] = field(default_factory=list)
    worst: list[float] = field(default_factory=list)
    psnr: list[float] = field(default_factory=list)
    source_bytes: int = 0
    webp_bytes: int = 0
    seconds: list[float] = field(default_factory=list)

    def look(self, source: bytes, webp: bytes) -> None:
        """Add what one picture lost: SSIM of the luma, its 5th percentile over the picture, PSNR of RGB in dB."""
        self.source_bytes, self.webp_bytes = self.source_bytes + len(source), self.webp_bytes + len(webp)
        self.ratios.append(len(webp) / len(source))
        before, after = Image.open(io.BytesIO(source)).convert("RGB"), Image.open(io.BytesIO(webp)).convert("RGB")
        mean, places = structural_similarity(  # type: ignore[no-untyped-call]  # scikit-image has no hints
            np.asarray(before.convert("L")),
            np.asarray(after.convert("L")),
            gaussian_weights=True,
            data_range=255,
            full=True,
        )
        self.ssim.append(float(mean))
        self.worst.append(float(np.percentile(places, 5)))
        error = np.mean((np.asarray(before, dtype=float) - np.asarray(after, dtype=float)) ** 2)
        self.psnr.append(math.inf if error == 0 else 10 * math.log10(255**2 / error))


def encode(image: Image.Image, quality: int, method: int) -> bytes:
    """A lossy WebP file."""
    buffer = io.BytesIO()
    image.save(buffer, "WEBP", quality=quality, method=method)
    return buffer.getvalue()


def measure(sources: list[bytes], rounds: int) -> dict[tuple[int, int], Measured]:
    """Encode every source in every combination, ``rounds`` times."""
    results: dict[tuple[int, int], Measured] = defaultdict(Measured)
    images = [Image.open(io.BytesIO(source)).convert("RGB") for source in sources]
    for turn in range(rounds):
        for quality in QUALITIES:
            spent = dict.fromkeys(METHODS, 0.0)
            for source, image in zip(sources, images, strict=True):
                for method in METHODS:
                    start = time.perf_counter()
                    webp = encode(image, quality, method)
                    spent[method] += time.perf_counter() - start
                    if turn == 0:
                        results[quality, method].look(source, webp)
            for method in METHODS:
                results[quality, method].seconds.append(spent[method])
    return results


def table(title: str, number: int, results: dict[tuple[int, int], Measured]) -> str:
    """The results as a Markdown table."""
    lines = [
        f"### {title}: {number} thumbnails, longest side {', '.join(map(str, SIDES))} px",
        "",
        "| quality | method | bytes, all | bytes, median | SSIM, median | lowest tenth | worst | PSNR | time |",
        "|--:|--:|--:|--:|--:|--:|--:|--:|--:|",
    ]
    for (quality, method), got in sorted(results.items()):
        times = [a / b for a, b in zip(got.seconds, results[quality, 4].seconds, strict=True)]
        lines.append(
            f"| {quality} | {method} | {got.webp_bytes / got.source_bytes:.3f} | {statistics.median(got.ratios):.3f}"
            f" | {statistics.median(got.ssim):.4f} | {np.percentile(got.ssim, 10):.4f}"
            f" | {statistics.median(got.worst):.3f} | {statistics.median(got.psnr):.1f}"
            f" | {statistics.median(times):.2f} |"
        )
    return "\n".join(lines) + "\n"


def plot(path: str, results: dict[tuple[int, int], Measured]) -> None:
    """Likeness against bytes (one line per method), and time against bytes at quality 80."""
    figure = Figure(figsize=(11, 4.5), layout="tight")
    left, right = figure.subplots(1, 2)
    for method in METHODS:
        got = [results[quality, method] for quality in QUALITIES]
        left.plot(
            [g.webp_bytes / g.source_bytes for g in got],
            [statistics.median(g.ssim) for g in got],
            marker="o",
            label=f"method {method}",
        )
    left.set(xlabel="bytes ÷ bytes of the JPEG", ylabel="SSIM with the JPEG, median", title=f"qualities {QUALITIES}")
    left.legend()
    got = [results[80, method] for method in METHODS]
    times = [statistics.median(g.seconds) / statistics.median(results[80, 4].seconds) for g in got]
    right.plot(times, [g.webp_bytes / g.source_bytes for g in got], marker="o")
    for method, x, g in zip(METHODS, times, got, strict=True):
        right.annotate(f"  {method}", (x, g.webp_bytes / g.source_bytes))
    right.set(xlabel="time ÷ time of method 4", ylabel="bytes ÷ bytes of the JPEG", title="methods at quality 80")
    figure.savefig(path)


def main() -> None:
    """Measure, print the tables, and leave them and the plot in bench/out."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--photos", help="a folder of further photographs")
    parser.add_argument("--rounds", type=int, default=3, help="times that everything is encoded (default 3)")
    options = parser.parse_args()
    os.makedirs(OUT, exist_ok=True)
    images = [thumbnail(image, side) for image in photographs(options.photos).values() for side in SIDES]
    jpegs = measure([jpeg(image) for image in images], options.rounds)
    pngs = measure([png(image) for image in images], max(1, math.ceil(options.rounds / 3)))
    text = (
        f"Pillow {PIL.__version__}, libwebp {features.version('webp')}. Bytes are ratios to the source, times to method"
        " 4 at the same quality. Worst: the 5th percentile of SSIM within a picture, median over pictures. PSNR in dB."
        "\n\n"
        + table("JPEG, quality 95", len(images), jpegs)
        + "\n"
        + table("Photographs as PNG, coded lossy", len(images), pngs)
    )
    with open(os.path.join(OUT, "quality.md"), "w", encoding="utf-8") as file:
        file.write(text)
    plot(os.path.join(OUT, "quality.png"), jpegs)
    print(text)


if __name__ == "__main__":
    main()
