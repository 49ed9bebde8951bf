"""The chunk that a sidecar carries, read back by us and passed over by every decoder."""

import io
import subprocess
import zlib
from collections.abc import Callable
from pathlib import Path

import pytest
import pyvips
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image, ImageCms

from tests.referee import Chromium
from webpd.errors import FailedError
from webpd.model import Encoding
from webpd.tree import sidecar
from webpd.tree.sidecar import CHUNK_SIZE, Newer, Origin

ORIGIN = Origin(163_546, 1_700_000_000_123_456_789, b"12345678", b"abcdefgh")


def _webp(kind: str, photograph: Callable[..., bytes]) -> bytes:
    picture = Image.open(io.BytesIO(photograph(97)))
    file = io.BytesIO()
    match kind:
        case "lossy":
            picture.save(file, "WEBP", quality=80)
        case "lossless":
            picture.save(file, "WEBP", lossless=True)
        case "lossy with alpha":
            picture.putalpha(Image.linear_gradient("L").resize(picture.size))
            picture.save(file, "WEBP", quality=80)
        case "lossless with alpha":
            picture.putalpha(Image.linear_gradient("L").resize(picture.size))
            picture.save(file, "WEBP", lossless=True)
        case "with profile":
            profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("LAB")).tobytes()
            picture.save(file, "WEBP", quality=80, icc_profile=profile)
        case "animated":
            picture.save(file, "WEBP", save_all=True, append_images=[picture.rotate(180)], duration=[40, 50], loop=3)
        case "one pixel":
            picture.crop((0, 0, 1, 1)).save(file, "WEBP", quality=80)
    return file.getvalue()


KINDS = (
    "lossy",
    "lossless",
    "lossy with alpha",
    "lossless with alpha",
    "with profile",
    "animated",
    "one pixel",
)


@pytest.mark.parametrize("kind", KINDS)
def test_every_decoder_shows_the_same_pixels_with_the_chunk_as_without(
    kind: str, photograph: Callable[..., bytes], tmp_path: Path
) -> None:
    plain = _webp(kind, photograph)
    marked = sidecar.attach(plain, ORIGIN)
    with Image.open(io.BytesIO(plain)) as before, Image.open(io.BytesIO(marked)) as after:
        assert (before.mode, before.size, before.info) == (after.mode, after.size, after.info)
        for frame in range(getattr(before, "n_frames", 1)):
            before.seek(frame)
            after.seek(frame)
            assert before.tobytes() == after.tobytes()
    vips = [pyvips.Image.new_from_buffer(data, "", n=-1) for data in (plain, marked)]
    assert vips[0].write_to_memory() == vips[1].write_to_memory()
    if kind != "animated":  # dwebp decodes still pictures only
        (tmp_path / "plain.webp").write_bytes(plain)
        (tmp_path / "marked.webp").write_bytes(marked)
        decoded = [
            subprocess.run(["dwebp", "-quiet", "-pam", name, "-o", "-"], cwd=tmp_path, check=True, capture_output=True)
            for name in ("plain.webp", "marked.webp")
        ]
        assert decoded[0].stdout == decoded[1].stdout


@pytest.mark.parametrize("kind", KINDS)
def test_chromium_shows_exactly_the_same_with_the_chunk_as_without(
    kind: str, photograph: Callable[..., bytes], chromium: Chromium
) -> None:
    plain = _webp(kind, photograph)
    marked = sidecar.attach(plain, ORIGIN)
    assert chromium.show(marked) == chromium.show(plain)
    assert chromium.show(marked) is not None
    if kind == "animated":
        assert chromium.play(marked) == chromium.play(plain)


@pytest.mark.parametrize("kind", KINDS)
def test_webpinfo_finds_the_file_sound_and_the_chunk_unknown_to_it(
    kind: str, photograph: Callable[..., bytes], tmp_path: Path
) -> None:
    file = tmp_path / "a.webp"
    file.write_bytes(sidecar.attach(_webp(kind, photograph), ORIGIN))
    told = subprocess.run(["webpinfo", "-diag", str(file)], check=True, capture_output=True, text=True)
    assert "No error detected" in told.stdout
    assert told.stderr.split() == f"Warning: Unknown chunk at offset {len(file.read_bytes()) - 40}, length 40".split()


@pytest.mark.parametrize("kind", KINDS)
def test_what_was_attached_is_read_back_from_head_and_tail_alone(kind: str, photograph: Callable[..., bytes]) -> None:
    marked = sidecar.attach(_webp(kind, photograph), ORIGIN)
    assert sidecar.parse(marked[:12], marked[-CHUNK_SIZE:], len(marked)) == ORIGIN


@given(
    st.builds(
        Origin,
        st.integers(0, 2**32 - 1),
        st.integers(-(2**63), 2**63 - 1),
        st.binary(min_size=8, max_size=8),
        st.binary(min_size=8, max_size=8),
    )
)
def test_any_origin_survives_the_way_through_the_chunk(origin: Origin) -> None:
    webp = b"RIFF" + (30).to_bytes(4, "little") + b"WEBPVP8X" + (10).to_bytes(4, "little") + bytes(10) + bytes(0)
    webp = webp[:4] + (len(webp) - 8).to_bytes(4, "little") + webp[8:]
    marked = sidecar.attach(webp, origin)
    assert sidecar.parse(marked[:12], marked[-CHUNK_SIZE:], len(marked)) == origin
    assert len(marked) - len(webp) == 40


def test_the_chunk_is_laid_out_as_the_document_says(photograph: Callable[..., bytes]) -> None:
    whole = sidecar.attach(_webp("lossy", photograph), ORIGIN)
    tail = whole[-40:]
    assert tail[:8] == b"WPDS" + bytes((32, 0, 0, 0))
    assert tail[8] == 1
    assert int.from_bytes(tail[9:12], "little") == zlib.crc32(whole[12:-40]) & 0xFFFFFF
    assert int.from_bytes(tail[12:16], "little") == 163_546
    assert int.from_bytes(tail[16:24], "little", signed=True) == 1_700_000_000_123_456_789
    assert tail[24:32] == b"12345678"
    assert tail[32:40] == b"abcdefgh"


def test_a_sidecar_can_be_given_another_chunk_in_place_of_its_own(photograph: Callable[..., bytes]) -> None:
    plain = _webp("lossless", photograph)
    other = Origin(1, 2, b"87654321", b"hgfedcba")
    marked = sidecar.attach(plain, ORIGIN)
    assert sidecar.attach(sidecar.detach(marked), other) == sidecar.attach(plain, other)


def test_a_byte_changed_anywhere_in_the_picture_is_noticed(photograph: Callable[..., bytes]) -> None:
    marked = sidecar.attach(_webp("lossy", photograph), ORIGIN)
    assert sidecar.is_whole(marked)
    for place in range(12, len(marked) - 40, 37):
        assert not sidecar.is_whole(marked[:place] + bytes((marked[place] ^ 1,)) + marked[place + 1 :])


def test_a_time_beyond_what_the_chunk_can_say_is_cut_and_harms_nothing(photograph: Callable[..., bytes]) -> None:
    late = Origin(1, 2**70, b"12345678", b"abcdefgh")
    marked = sidecar.attach(_webp("lossy", photograph), late)
    assert sidecar.parse(marked[:12], marked[-CHUNK_SIZE:], len(marked)) == Origin(
        1, 2**63 - 1, b"12345678", b"abcdefgh"
    )


def test_a_chunk_of_a_later_version_is_known_as_ours(photograph: Callable[..., bytes]) -> None:
    marked = bytearray(sidecar.attach(_webp("lossy", photograph), ORIGIN))
    marked[-32] = 7
    assert sidecar.parse(bytes(marked[:12]), bytes(marked[-CHUNK_SIZE:]), len(marked)) == Newer(7)


def test_a_webp_of_another_program_a_cut_one_and_no_webp_have_no_chunk(photograph: Callable[..., bytes]) -> None:
    plain = _webp("lossy", photograph)
    cut = sidecar.attach(plain, ORIGIN)[:-1]
    longer = sidecar.attach(plain, ORIGIN) + b"x"
    for data in (plain, cut, longer, b"", b"RIFF", photograph(97)):
        assert sidecar.parse(data[:12], data[-CHUNK_SIZE:], len(data)) is None


@given(st.binary(max_size=200))
def test_attaching_to_what_is_no_webp_is_refused_and_never_crashes(data: bytes) -> None:
    for candidate in (data, b"RIFF\x40\x00\x00\x00WEBP" + data):
        try:
            marked = sidecar.attach(candidate, ORIGIN)
        except FailedError:
            continue
        assert sidecar.parse(marked[:12], marked[-CHUNK_SIZE:], len(marked)) == ORIGIN


def test_the_fingerprint_differs_by_quality_method_and_revision() -> None:
    prints = {
        sidecar.fingerprint_of(Encoding(quality, method), revision)
        for quality in (80, 81)
        for method in (4, 5)
        for revision in (1, 2)
    }
    assert len(prints) == 8
