"""What the choice between the lossless and the lossy coder costs, on the labelled corpus of the tests.

    python -m bench.choice [--quality 80]

For every kind of picture: how many are called graphics, the bytes of lossless to lossy, the SSIM of lossy on white, and
the bytes of what was chosen to those of the smaller coder. Ends with the confusion table and the time of a choice.
"""

import argparse
import io
import os
import statistics
import time
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import partial

import numpy as np
import numpy.typing as npt
from PIL import Image
from skimage.metrics import structural_similarity
from tests.choice.corpus import Sample, drawn_samples, photo_samples, screenshot_samples

from webpd.convert.choice import is_graphic

OUT = os.path.join(os.path.dirname(__file__), "out")


@dataclass(frozen=True)
class Cost:
    """What both coders make of one picture; bytes, SSIM of the luma on white, and seconds."""

    kind: str
    label: bool | None
    chosen: bool
    lossless: int
    lossy: int
    ssim: float
    choosing: float
    encoding: float


def encode(image: Image.Image, **options: object) -> bytes:
    """The picture as WebP, method 4."""
    buffer = io.BytesIO()
    image.save(buffer, "WEBP", method=4, **options)
    return buffer.getvalue()


def grey_on_white(image: Image.Image) -> npt.NDArray[np.uint8]:
    """The luma of the picture as it looks on white."""
    image = image.convert("RGBA")
    return np.asarray(Image.alpha_composite(Image.new("RGBA", image.size, "white"), image).convert("L"))


def cost(sample: Sample, quality: int) -> Cost:
    """Encode one picture both ways."""
    start = time.perf_counter()
    chosen = is_graphic(sample.image)
    choosing = time.perf_counter() - start
    image = sample.image.convert("RGBA" if sample.image.has_transparency_data else "RGB")
    lossless = encode(image, lossless=True)
    start = time.perf_counter()
    lossy = encode(image, quality=quality)
    encoding = time.perf_counter() - start
    ssim = 1.0
    if min(image.size) > 11:  # the window of the Gaussian
        before, after = grey_on_white(image), grey_on_white(Image.open(io.BytesIO(lossy)))
        ssim = structural_similarity(  # type: ignore[no-untyped-call]  # scikit-image has no hints
            before, after, gaussian_weights=True, data_range=255
        )
    return Cost(sample.kind, sample.graphic, chosen, len(lossless), len(lossy), float(ssim), choosing, encoding)


def table(costs: list[Cost]) -> str:
    """One row for each kind of picture, then the confusion table."""
    lines = [
        "| kind | wanted | called graphic | lossless ÷ lossy, median | lossy SSIM, median | chosen ÷ smaller |",
        "|---|---|--:|--:|--:|--:|",
    ]
    for kind in dict.fromkeys(c.kind for c in costs):
        of_kind = [c for c in costs if c.kind == kind]
        wanted = {True: "lossless", False: "lossy", None: "either"}[of_kind[0].label]
        chosen = sum(c.lossless if c.chosen else c.lossy for c in of_kind)
        lines.append(
            f"| {kind} | {wanted} | {sum(c.chosen for c in of_kind)} of {len(of_kind)}"
            f" | {statistics.median(c.lossless / c.lossy for c in of_kind):.2f}"
            f" | {statistics.median(c.ssim for c in of_kind):.3f}"
            f" | {chosen / sum(min(c.lossless, c.lossy) for c in of_kind):.3f} |"
        )
    lines += ["", "| label | called graphic | called photograph |", "|---|--:|--:|"]
    for label, name in ((True, "graphic"), (False, "photograph"), (None, "either")):
        called = [c.chosen for c in costs if c.label is label]
        lines.append(f"| {name} | {sum(called)} | {len(called) - sum(called)} |")
    share = sum(c.choosing for c in costs) / sum(c.encoding for c in costs)
    lines += ["", f"Choosing took {share:.1%} of the time of lossy encoding."]
    return "\n".join(lines) + "\n"


def main() -> None:
    """Measure, print the table, and leave it in bench/out."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quality", type=int, default=80)
    options = parser.parse_args()
    samples = [*photo_samples(), *drawn_samples(), *screenshot_samples()]
    with ProcessPoolExecutor() as processes:
        costs = list(processes.map(partial(cost, quality=options.quality), samples, chunksize=20))
    os.makedirs(OUT, exist_ok=True)
    with open(os.path.join(OUT, "choice.md"), "w", encoding="utf-8") as file:
        file.write(table(costs))
    print(table(costs))


if __name__ == "__main__":
    main()
