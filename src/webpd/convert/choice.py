"""Which of WebP's two coders suits a picture, and at what quality a JPEG is worth coding again.

Both answers come from the picture alone, never from encoding it twice. ``bench/choice.py`` and
``bench/source_quality.py`` measure what they cost against knowing better, and draw the figures given here.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence

from PIL import Image, ImageChops

# The entries of a quantization table that decide how a JPEG looks: horizontal plus vertical frequency at most 6.
_LOW_FREQUENCIES = [8 * v + u for v in range(8) for u in range(8) if u + v <= 6]

# Those entries of the luminance table of ITU-T T.81, annex K.1, which libjpeg calls quality 50, add up to this.
_LOW_FREQUENCY_SUM_AT_50 = 683

# Larger pictures are judged by this many by this many crops, each of so many pixels a side.
_CROPS = 3
_CROP_SIDE = 64

# Found by search over the corpus of tests/choice; see is_graphic.
_TEXTURE_OF_DETAIL = 0.56
_TEXTURE_OF_MISSES = 0.43
_DETAIL_OF_PIXELS = 0.6
_FEW_COLOURS = 64


def jpeg_quality(quantization: Mapping[int, Sequence[int]], wanted: int) -> int:
    """The libwebp quality, 0..100, at which to code a JPEG: ``wanted``, or the source's own quality where that is less.

    ``quantization`` is Pillow's: table number to 64 entries, row by row (not in zigzag order). Where it is empty,
    nothing is known of the source, and ``wanted`` is returned.

    The source's quality is libjpeg's: its scaling (jcparam.c) is turned round on the low frequencies of the luminance
    table. With libjpeg's own tables the answer is exact from 8 to 98. With mozjpeg's at qualities 40 to 92 it is within
    2.5 of the libjpeg quality that has the same SSIM; with flat tables it is too low by up to 10.

    Above the source's own quality, more bytes bring back little. Medians of 45 thumbnails of 150, 300 and 600 pixels,
    method 4; the loss of SSIM is against the picture before it was a JPEG:

    ============  ==========  ==================================================  ===============================
    JPEG quality  loss by it  WebP at that quality: bytes of the JPEG, more loss  WebP at 80: bytes, more loss
    ============  ==========  ==================================================  ===============================
    30            0.128       0.67, 0.030                                         1.36, 0.008
    40            0.112       0.69, 0.031                                         1.22, 0.011
    50            0.095       0.70, 0.028                                         1.11, 0.012
    60            0.081       0.71, 0.026                                         1.01, 0.014
    70            0.067       0.70, 0.025                                         0.88, 0.016
    75            0.059       0.69, 0.024                                         0.82, 0.016
    80            0.049       0.74, 0.018                                         0.74, 0.018
    85            0.037       0.78, 0.014                                         0.65, 0.020
    90            0.024       0.83, 0.009                                         0.52, 0.024
    95            0.010       0.80, 0.006                                         0.37, 0.029
    ============  ==========  ==================================================  ===============================
    """
    if not quantization:
        return wanted
    luminance = quantization[min(quantization)]
    percent = 100 * sum(luminance[i] for i in _LOW_FREQUENCIES) / _LOW_FREQUENCY_SUM_AT_50
    quality = (200 - percent) / 2 if percent <= 100 else 5000 / percent
    return min(wanted, max(1, round(quality)))


def is_graphic(image: Image.Image) -> bool:
    """True where the picture wants the lossless coder (text, logos, charts, icons), False for photographs.

    ``image`` is decoded and of mode 1, L, LA, P, RGB or RGBA, with or without transparency; it is judged as it looks on
    white. Pictures over 36,864 pixels are judged by nine crops of 64 × 64 pixels spread over them.

    Each pixel is predicted from three neighbours (left + above - above left). Photographs miss by little nearly
    everywhere, for sensors and lenses leave texture. In graphics the prediction is exact over planes and gradients
    and misses by much at edges. So a graphic is what has texture (misses by 3 to 23 grey levels) in at most 56 % of
    its detail (misses by 3 or more) and in at most 43 % of all misses, and detail in at most 60 % of its pixels; or
    what has at most 64 colours.

    Photographs dithered to a few fixed colours count as graphics: lossless is smaller there, and exact.
    """
    crops = list(_sample(image))
    pixels = misses = texture = edges = 0
    for crop in crops:
        missed = _prediction_misses(crop)
        pixels, misses = pixels + sum(missed), misses + sum(missed[1:])
        texture, edges = texture + sum(missed[3:24]), edges + sum(missed[24:])
    detail = texture + edges
    has_plain_areas = detail <= _DETAIL_OF_PIXELS * pixels
    has_little_texture = texture <= _TEXTURE_OF_DETAIL * detail and texture <= _TEXTURE_OF_MISSES * misses
    return (has_plain_areas and has_little_texture) or _has_few_colours(crops)


def _sample(image: Image.Image) -> Iterator[Image.Image]:
    """The picture, or crops of it, as it looks on white (mode RGB or L)."""
    width, height = image.size
    if width * height <= (_CROPS * _CROP_SIDE) ** 2:
        yield _on_white(image)
        return
    crop_width, crop_height = min(_CROP_SIDE, width), min(_CROP_SIDE, height)
    for row in range(_CROPS):
        for column in range(_CROPS):
            left, top = column * (width - crop_width) // (_CROPS - 1), row * (height - crop_height) // (_CROPS - 1)
            yield _on_white(image.crop((left, top, left + crop_width, top + crop_height)))


def _on_white(image: Image.Image) -> Image.Image:
    if not image.has_transparency_data:
        return image if image.mode in {"L", "RGB"} else image.convert("RGB")
    image = image.convert("RGBA")
    return Image.alpha_composite(Image.new("RGBA", image.size, "white"), image).convert("RGB")


def _has_few_colours(crops: Iterable[Image.Image]) -> bool:
    colours: set[object] = set()
    for crop in crops:
        counted = crop.getcolors(_FEW_COLOURS)  # None, and early, where there are more
        if counted is None:
            return False
        colours.update(colour for _, colour in counted)
    return len(colours) <= _FEW_COLOURS


def _prediction_misses(crop: Image.Image) -> list[int]:
    """How many pixels miss the prediction from their neighbours by 0, 1, ... 255 grey levels."""
    grey = crop.convert("L")
    width, height = grey.size
    if width < 2 or height < 2:
        return [0] * 256
    steps = ImageChops.subtract(grey.crop((1, 0, width, height)), grey.crop((0, 0, width - 1, height)), offset=128)
    below, above = steps.crop((0, 1, width - 1, height)), steps.crop((0, 0, width - 1, height - 1))
    return ImageChops.difference(below, above).histogram()
