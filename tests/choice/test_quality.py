"""A JPEG is not coded again at a quality that it never had."""

import io

import numpy as np
import pytest
from PIL import Image
from skimage.metrics import structural_similarity

from webpd.convert.choice import jpeg_quality

from .corpus import photographs, thumbnail


def tables_of(quality: int) -> dict[int, list[int]]:
    """The quantization tables that libjpeg writes at this quality."""
    buffer = io.BytesIO()
    Image.new("RGB", (8, 8)).save(buffer, "JPEG", quality=quality)
    return dict(Image.open(buffer).quantization)  # type: ignore[attr-defined]  # JpegImageFile has it


@pytest.mark.parametrize("quality", range(8, 99))
def test_the_quality_of_a_libjpeg_file_is_read_from_its_tables(quality: int) -> None:
    assert jpeg_quality(tables_of(quality), wanted=100) == quality


@pytest.mark.parametrize("quality", [80, 85, 95, 100])
def test_a_better_source_is_coded_at_the_quality_that_was_asked_for(quality: int) -> None:
    assert jpeg_quality(tables_of(quality), wanted=80) == 80


def test_a_60_quality_jpeg_is_not_given_a_webp_at_80() -> None:
    assert jpeg_quality(tables_of(60), wanted=80) == 60


def test_the_quality_that_was_asked_for_is_never_exceeded() -> None:
    assert jpeg_quality(tables_of(90), wanted=30) == 30


def test_a_grey_jpeg_has_one_table_and_is_judged_by_it() -> None:
    assert jpeg_quality({0: tables_of(50)[0]}, wanted=80) == 50


def test_without_tables_the_wanted_quality_is_used() -> None:
    assert jpeg_quality({}, wanted=80) == 80


@pytest.mark.parametrize("entry", [1, 255, 65535])
def test_tables_that_no_encoder_writes_still_give_a_quality_that_libwebp_takes(entry: int) -> None:
    assert 0 <= jpeg_quality({0: [entry] * 64}, wanted=100) <= 100


def test_tables_of_another_encoder_are_judged_by_how_the_picture_looks() -> None:
    """A table that rises evenly with frequency, unlike libjpeg's; within 6 of the quality that looks the same."""
    table = [8 + 4 * (u + v) + u * v * 3 // 2 for v in range(8) for u in range(8)]
    image = thumbnail(photographs()["coffee"], 300)

    def likeness(**options: object) -> float:
        buffer = io.BytesIO()
        image.save(buffer, "JPEG", **options)
        before, after = (np.asarray(each.convert("L")) for each in (image, Image.open(buffer)))
        return float(structural_similarity(before, after, data_range=255))  # type: ignore[no-untyped-call]  # no hints

    target = likeness(qtables=[table, table])
    same = min(range(20, 96), key=lambda quality: abs(likeness(quality=quality) - target))
    assert abs(jpeg_quality({0: table}, wanted=100) - same) <= 6
