"""Lay out a sample ``upload/resize_cache`` as 1C-Bitrix does, from the photographs that scikit-image ships.

python tools/sample.py sample/upload/resize_cache
"""

import hashlib
import sys
from pathlib import Path

import skimage
from PIL import Image, ImageOps

# Pictures of scikit-image's wheel: photographs, kept as JPEG as shops do, and drawings and scans, kept as PNG.
PHOTOGRAPHS = (
    "astronaut.png",
    "chelsea.png",
    "coffee.png",
    "hubble_deep_field.jpg",
    "motorcycle_left.png",
    "rocket.jpg",
)
DRAWINGS = ("logo.png", "page.png", "text.png", "color.png", "clock_motion.png")

# {width}_{height}_{type}: 1 fits inside, 2 is cut to the exact size.
SIZES = ((100, 100, 2), (160, 160, 1), (240, 320, 1), (450, 450, 1), (800, 600, 1))


def lay_out(root: Path) -> int:
    """Write the tree below ``root``, what is there already aside; return the number of images."""
    count = 0
    for shipped in PHOTOGRAPHS + DRAWINGS:
        name = Path(shipped).with_suffix(".jpg" if shipped in PHOTOGRAPHS else ".png").name
        folder = "iblock/" + hashlib.md5(name.encode(), usedforsecurity=False).hexdigest()[:3]
        with Image.open(Path(skimage.__file__).parent / "data" / shipped) as opened:
            picture = opened.convert("RGB") if name.endswith(".jpg") else opened.copy()
        for width, height, kind in SIZES:
            target = root / folder / f"{width}_{height}_{kind}" / name
            count += 1
            if not target.exists():
                target.parent.mkdir(parents=True, exist_ok=True)
                _thumbnail(picture, width, height, kind).save(target, quality=95)
    return count


def _thumbnail(picture: Image.Image, width: int, height: int, kind: int) -> Image.Image:
    if kind == 2:
        return ImageOps.fit(picture, (width, height))
    small = picture.copy()
    small.thumbnail((width, height))
    return small


if __name__ == "__main__":
    where = Path(sys.argv[1])
    print(f"{lay_out(where)} sample images are in {where}")
