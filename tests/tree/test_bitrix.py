"""Which pictures cannot be the thumbnails that their folder is for."""

import io
import struct
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from webpd.tree.bitrix import oversized

FILTERS = "0123456789abcdef0123456789abcdef"


def picture(width: int, height: int, form: str = "JPEG", **options: Any) -> bytes:
    file = io.BytesIO()
    Image.new("RGB", (width, height), "teal").save(file, form, **options)
    return file.getvalue()


def in_folder(name: str) -> str:
    return f"/srv/upload/resize_cache/iblock/abc/{name}/photo.jpg"


@pytest.mark.parametrize("form", ["JPEG", "PNG"])
@pytest.mark.parametrize(
    ("width", "height", "larger"),
    [
        (100, 50, False),
        (100, 1, False),
        (50, 100, False),  # turned by its EXIF orientation
        (101, 50, True),
        (100, 51, True),
        (51, 100, True),
        (50, 101, True),
        (60, 60, True),
        (50, 50, False),
    ],
)
def test_a_picture_is_too_large_when_it_fits_its_folder_neither_way_up(
    width: int, height: int, larger: bool, form: str
) -> None:
    assert oversized(in_folder("100_50_1"), picture(width, height, form)) is larger


@pytest.mark.parametrize("folder", ["100_100_0", "100_100_1", "100_100_2", f"100_100_1{FILTERS}"])
def test_every_kind_of_size_folder_is_understood(folder: str) -> None:
    assert oversized(in_folder(folder), picture(101, 10))
    assert not oversized(in_folder(folder), picture(100, 10))


def test_a_folder_may_leave_one_side_to_the_picture() -> None:
    assert not oversized(in_folder("100_99999_1"), picture(100, 3000))
    assert not oversized(in_folder("100_99999_1"), picture(3000, 100))
    assert oversized(in_folder("100_99999_1"), picture(101, 3000))


@pytest.mark.parametrize(
    "folder",
    [
        *("abc", "100_100", "100_100_3", "0_100_1", "100_0_1", "x100_100_1", "100_100_1Z", "100x100_1", "-1_5_1"),
        *("1_1_", "100000_1_1", "100_100_1\n", " 100_100_1"),
    ],
)
def test_a_folder_of_another_name_allows_anything(folder: str) -> None:
    assert not oversized(in_folder(folder), picture(500, 500))


def test_only_the_folder_that_holds_the_picture_counts() -> None:
    assert not oversized("/srv/10_10_1/other/photo.jpg", picture(500, 500))
    assert not oversized("10_10_1", picture(500, 500))
    assert oversized("10_10_1/photo.jpg", picture(500, 500))


@pytest.mark.parametrize(
    "options",
    [
        {"progressive": True},
        {"quality": 100, "subsampling": 0},
        {"exif": b"Exif\0\0" + bytes(60_000)},
        {"comment": b"\xff\xd8\xff\xc0 what looks like a header" * 50},
        {"icc_profile": bytes(200_000)},
        {"restart_marker_rows": 1},
    ],
)
def test_the_size_is_found_whatever_stands_before_it(options: dict[str, Any]) -> None:
    data = picture(300, 200, **options)
    assert oversized(in_folder("299_200_1"), data)
    assert not oversized(in_folder("300_200_1"), data)


def test_markers_may_be_filled_up() -> None:
    data = picture(300, 200)
    at = data.index(b"\xff\xc0")
    filled = data[:at] + b"\xff" * 7 + data[at:]
    assert oversized(in_folder("299_200_1"), filled)
    assert not oversized(in_folder("300_200_1"), filled)


def test_the_beginning_of_a_file_is_enough(photograph: Callable[..., bytes]) -> None:
    assert oversized(in_folder("80_80_1"), photograph(160)[:1000])
    assert not oversized(in_folder("160_160_1"), photograph(160)[:1000])


@pytest.mark.parametrize("form", ["GIF", "WEBP", "BMP"])
def test_what_is_neither_jpeg_nor_png_is_left_to_the_codecs(form: str) -> None:
    assert not oversized(in_folder("10_10_1"), picture(50, 50, form))


@given(
    st.sampled_from([b"", b"\xff\xd8", b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n"]),
    st.binary(max_size=200),
    st.integers(0, 300),
)
def test_no_bytes_whatever_make_it_fail(head: bytes, tail: bytes, length: int) -> None:
    assert oversized(in_folder("100_100_1"), (head + tail)[:length]) in (True, False)


@given(st.lists(st.tuples(st.integers(0, 255), st.integers(0, 65_535), st.binary(max_size=20)), max_size=30))
def test_no_chain_of_segments_whatever_makes_it_fail(segments: list[tuple[int, int, bytes]]) -> None:
    data = b"\xff\xd8" + b"".join(struct.pack(">BBH", 0xFF, marker, length) + body for marker, length, body in segments)
    assert oversized(in_folder("100_100_1"), data) in (True, False)


@given(st.integers(1, 400), st.integers(1, 400), st.integers(1, 400), st.integers(1, 400))
def test_a_picture_is_too_large_exactly_when_it_does_not_fit(width: int, height: int, wide: int, high: int) -> None:
    fits = (width <= wide and height <= high) or (width <= high and height <= wide)
    data = picture(width, height, "PNG")
    assert oversized(in_folder(f"{wide}_{high}_2"), data) is not fits
