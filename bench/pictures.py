"""The pictures that are measured: real photographs, at the sizes that Bitrix's resize_cache has."""

import glob
import io
import os
import random

import skimage.data
from PIL import Image

# Longest side in pixels: a basket line, a list, a grid on a telephone and on a desk, a product page, a gallery.
SIDES = (50, 150, 220, 300, 450, 800)

_SHIPPED = ("astronaut", "chelsea", "coffee", "rocket", "hubble_deep_field", "retina")


def photographs(folder: str | None = None) -> dict[str, Image.Image]:
    """Photographs by name (mode RGB): those that scikit-image ships, and every PNG and JPEG of ``folder``."""
    images = {name: Image.fromarray(getattr(skimage.data, name)()) for name in _SHIPPED}
    left, _, _ = skimage.data.stereo_motorcycle()  # type: ignore[no-untyped-call]  # it has no hints
    images["motorcycle"] = Image.fromarray(left)
    for path in sorted(glob.glob(os.path.join(folder, "*")) if folder else []):
        if path.lower().endswith((".png", ".jpg", ".jpeg")):
            images[os.path.basename(path)] = Image.open(path).convert("RGB")
    return images


def thumbnail(image: Image.Image, side: int) -> Image.Image:
    """The picture made to fit ``side`` × ``side`` pixels."""
    result = image.copy()
    result.thumbnail((side, side), Image.Resampling.LANCZOS)
    return result


def jpeg(image: Image.Image) -> bytes:
    """The picture as Bitrix writes it: JPEG, quality 95 (its default), 4:2:0."""
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=95)
    return buffer.getvalue()


def png(image: Image.Image) -> bytes:
    """The picture as a PNG, compressed as libpng does by default."""
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    return buffer.getvalue()


def lay_out(root: str, number: int, kind: str, photos: str | None) -> int:
    """Write ``number`` thumbnails of ``kind`` (``jpg`` or ``png``) below ``root`` in Bitrix's layout; their bytes.

    No two are alike: each is a crop of a photograph, at random but the same on every run, made smaller.
    """
    chance = random.Random(1)
    originals = list(photographs(photos).values())
    total = 0
    for index in range(number):
        original, side = originals[index % len(originals)], SIDES[index // len(originals) % len(SIDES)]
        share = chance.uniform(0.6, 1.0)
        width, height = int(original.width * share), int(original.height * share)
        left, top = chance.randint(0, original.width - width), chance.randint(0, original.height - height)
        crop = original.crop((left, top, left + width, top + height))
        image = thumbnail(crop, side)
        data = jpeg(image) if kind == "jpg" else png(image)
        folder = os.path.join(root, "iblock", f"{index % 97:03x}", f"{side}_{side}_1")
        os.makedirs(folder, exist_ok=True)
        with open(os.path.join(folder, f"{index:06d}.{kind}"), "wb") as file:
            file.write(data)
        total += len(data)
    return total
