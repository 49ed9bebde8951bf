"""JPEG: what Chromium shows of the original, it shows of the sidecar."""

import struct
from collections.abc import Callable
from tempfile import NamedTemporaryFile

import pytest
import pyvips
from PIL import Image, ImageChops

from tests import pictures
from tests.referee import Chromium
from webpd.convert.converter import ImageConverter
from webpd.errors import FailedError, UnsuitedError
from webpd.model import Failure


def _cat() -> Image.Image:
    return pictures.pixels("chelsea.png", 201, 133)


def _jpeg(*options: str) -> bytes:
    return pictures.cjpeg(_cat(), "-sample", "1x1", *options)


def _cmyk() -> bytes:
    return pictures.imagemagick(_cat(), "-colorspace", "CMYK", "-quality", "92", "jpg:-")


def _ycck() -> bytes:
    """Adobe's YCCK, inverted as Photoshop writes it: ImageMagick codes four channels, the marker then names them."""
    red, green, blue = _cat().split()
    black = Image.new("L", red.size, 200)
    y, cb, cr = Image.merge("RGB", (red, green, blue)).convert("YCbCr").split()
    raw = Image.merge("CMYK", [*(ImageChops.invert(band) for band in (y, cb, cr)), ImageChops.invert(black)]).tobytes()
    width, height = red.size
    jpeg = pictures.run(
        "convert-im6.q16", "-size", f"{width}x{height}", "-depth", "8", "cmyk:-", "-quality", "95", "jpg:-", given=raw
    )
    adobe = jpeg.index(b"Adobe")
    return jpeg[: adobe + 11] + b"\x02" + jpeg[adobe + 12 :]


def _multi_picture() -> bytes:
    """Two whole JPEGs and an index (CIPA DC-007), as cameras and phones with UltraHDR write them."""
    second = pictures.cjpeg(pictures.pixels("coffee.png", 100, 66))
    first = _jpeg()
    entry = b"\0\x03\0\0"  # a baseline MP primary image
    sizes = [entry + (len(first) + 90).to_bytes(4, "big") + bytes(8)]
    sizes.append(bytes(4) + len(second).to_bytes(4, "big") + len(first).to_bytes(4, "big") + bytes(4))
    index = b"MM\0*\0\0\0\x08\0\x03"
    index += b"\xb0\x00\0\x07\0\0\0\x04" + b"0100" + b"\xb0\x01\0\x04\0\0\0\x01\0\0\0\x02"
    index += b"\xb0\x02\0\x07\0\0\0\x20\0\0\0\x32" + bytes(4) + b"".join(sizes)
    return pictures.with_segments(first, pictures.segment(0xE2, b"MPF\0" + index)) + second


def _ultra_hdr() -> bytes:
    """A base picture that names its gain map in XMP, and the map after it."""
    xmp = b"""http://ns.adobe.com/xap/1.0/\0<x:xmpmeta xmlns:x="adobe:ns:meta/">
        <rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#">
        <rdf:Description xmlns:hdrgm="http://ns.adobe.com/hdr-gain-map/1.0/" hdrgm:Version="1.0"/>
        </rdf:RDF></x:xmpmeta>"""
    gain_map = pictures.cjpeg(_cat().convert("L").resize((50, 33)))
    base = _multi_picture()[: -len(pictures.cjpeg(pictures.pixels("coffee.png", 100, 66)))]
    return pictures.with_segments(base, pictures.segment(0xE1, xmp)) + gain_map


_SCANS = "0: 0-0, 0, 0; 1: 0-0, 0, 0; 2: 0-0, 0, 0; 0: 1-63, 0, 0; 1: 1-63, 0, 0; 2: 1-63, 0, 0;"


def _by_scans(scans: str) -> bytes:
    with NamedTemporaryFile("w", suffix=".scans") as file:
        file.write(scans)
        file.flush()
        return _jpeg("-scans", file.name)


def _broken_exif() -> bytes:
    return pictures.with_segments(_jpeg(), pictures.exif_segment(pictures.tiff(6)[:17]))


def _exif_of_nonsense() -> bytes:
    return pictures.with_segments(_jpeg(), pictures.exif_segment(b"MM\0*\xff\xff\xff\xf0" + bytes(range(256))))


def _huge_exif() -> bytes:
    directory = pictures.tiff(8) + bytes(65_000)
    return pictures.with_segments(_jpeg(), *[pictures.exif_segment(directory)] * 40)


_KINDS: dict[str, Callable[[], bytes]] = {
    "baseline": _jpeg,
    "optimized": lambda: _jpeg("-optimize"),
    "progressive": lambda: _jpeg("-progressive"),
    "chroma halved": lambda: pictures.cjpeg(_cat()),
    "chroma halved across": lambda: pictures.cjpeg(_cat(), "-sample", "2x1"),
    "chroma halved down": lambda: pictures.cjpeg(_cat(), "-sample", "1x2"),
    "chroma quartered": lambda: pictures.cjpeg(_cat(), "-sample", "4x1"),
    "sampled strangely": lambda: pictures.cjpeg(_cat(), "-sample", "2x2,2x1,1x2"),
    "rgb without transform": lambda: _jpeg("-rgb"),
    "grey": lambda: _jpeg("-grayscale"),
    "grey progressive": lambda: _jpeg("-grayscale", "-progressive"),
    "restart markers": lambda: _jpeg("-restart", "1"),
    "restart markers at every block": lambda: _jpeg("-restart", "1B"),
    "one pixel": lambda: pictures.cjpeg(Image.new("RGB", (1, 1), (200, 30, 60)), "-sample", "1x1"),
    "cmyk": _cmyk,
    "cmyk without Adobe's marker": lambda: _cmyk().replace(b"Adobe", b"Adabe"),
    "ycck": _ycck,
    "multi-picture": _multi_picture,
    "ultra hdr": _ultra_hdr,
    "exif broken": _broken_exif,
    "exif of nonsense": _exif_of_nonsense,
    "exif huge": _huge_exif,
    "comment": lambda: pictures.with_segments(_jpeg(), pictures.segment(0xFE, b"a comment")),
    "data after the end": lambda: _jpeg() + bytes(5_000),
    "filled between segments": lambda: _jpeg()[:20] + b"\xff\xff\xff" + _jpeg()[20:],
    "progressive, colours apart": lambda: _by_scans(_SCANS),
    "baseline, colours apart": lambda: _by_scans("0; 1; 2;"),
}


@pytest.mark.parametrize("kind", _KINDS)
def test_a_jpeg_looks_the_same_in_chromium(kind: str, chromium: Chromium, converter: ImageConverter) -> None:
    original = _KINDS[kind]()
    converted = converter.convert(original)
    verdict = chromium.compare(original, converted.webp)
    assert verdict.same(), verdict
    assert converted.picture.format == "jpeg"
    assert not converted.picture.lossless


@pytest.mark.parametrize("name", pictures.photo_names())
def test_a_real_photograph_looks_the_same_in_chromium(name: str, chromium: Chromium, converter: ImageConverter) -> None:
    original = pictures.photo(name)
    verdict = chromium.compare(original, converter.convert(original).webp)
    assert verdict.same(far=0.03), verdict


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_every_exif_orientation_is_turned_and_its_tag_gone(
    orientation: int, order: str, chromium: Chromium, converter: ImageConverter
) -> None:
    original = pictures.with_segments(_jpeg(), pictures.exif_segment(pictures.tiff(orientation, order)))
    converted = converter.convert(original)
    verdict = chromium.compare(original, converted.webp)
    assert verdict.same(), verdict
    assert (converted.picture.width, converted.picture.height) == ((201, 133) if orientation < 5 else (133, 201))
    assert b"EXIF" not in converted.webp
    # libvips agrees with Chromium here: a second opinion of the turn.
    turned = pyvips.Image.new_from_buffer(original, "").autorot()
    shown = pyvips.Image.new_from_buffer(converted.webp, "")
    assert (turned - shown).abs().avg() < 4


@pytest.mark.parametrize(
    "directory",
    [
        pictures.tiff(0),
        pictures.tiff(9),
        pictures.tiff(6, kind=4),
        pictures.tiff(6, kind=1),
        pictures.tiff(6, count=2),
        pictures.tiff(6, count=0),
        pictures.tiff(6)[:-4],
        b"",
    ],
    ids=["zero", "nine", "long", "byte", "two values", "no value", "cut after the tag", "empty"],
)
def test_odd_orientations_are_believed_as_chromium_believes_them(
    directory: bytes, chromium: Chromium, converter: ImageConverter
) -> None:
    original = pictures.with_segments(_jpeg(), pictures.exif_segment(directory))
    verdict = chromium.compare(original, converter.convert(original).webp)
    assert verdict.same(), verdict


def _exif_with_density(resolution: int, width: int, height: int) -> bytes:
    """EXIF that tells pixels per inch, and dimensions."""

    def entry(tag: int, kind: int, value: int) -> bytes:
        number = struct.pack(">HH", value, 0) if kind == 3 else struct.pack(">I", value)
        return struct.pack(">HHI", tag, kind, 1) + number

    rationals = 8 + 2 + 12 * 4 + 4
    outer = [
        entry(0x011A, 5, rationals),
        entry(0x011B, 5, rationals),
        entry(0x0128, 3, 2),
        entry(0x8769, 4, rationals + 8),
    ]
    inner = [entry(0xA002, 4, width), entry(0xA003, 4, height)]
    head = b"MM\0*" + struct.pack(">IH", 8, 4) + b"".join(outer) + bytes(4)
    return head + struct.pack(">II", resolution, 1) + struct.pack(">H", 2) + b"".join(inner) + bytes(4)


@pytest.mark.parametrize("density", [(72, 201, 133), (300, 201, 133), (144, 50, 30), (0, 0, 0)])
def test_a_density_that_changes_nothing_is_no_hindrance(
    density: tuple[int, int, int], chromium: Chromium, converter: ImageConverter
) -> None:
    original = pictures.with_segments(_jpeg(), pictures.exif_segment(_exif_with_density(*density)))
    assert chromium.compare(original, converter.convert(original).webp).same()


def test_a_density_by_which_chromium_shows_another_size_gives_no_sidecar(
    chromium: Chromium, converter: ImageConverter
) -> None:
    picture = pictures.cjpeg(pictures.pixels("chelsea.png", 200, 120))
    original = pictures.with_segments(picture, pictures.exif_segment(_exif_with_density(144, 100, 60)))
    shown = chromium.show(original)
    assert shown is not None
    assert (shown.width, shown.height) == (100, 60)
    with pytest.raises(UnsuitedError, match="another size"):
        converter.convert(original)


def test_of_two_exif_segments_the_first_counts(chromium: Chromium, converter: ImageConverter) -> None:
    first, second = (pictures.exif_segment(pictures.tiff(orientation)) for orientation in (6, 3))
    original = pictures.with_segments(_jpeg(), first, second)
    assert chromium.compare(original, converter.convert(original).webp).same()


def _frame_marker(marker: int) -> bytes:
    jpeg = _jpeg()
    place = jpeg.index(b"\xff\xc0")
    return jpeg[: place + 1] + bytes((marker,)) + jpeg[place + 2 :]


def _twelve_bits() -> bytes:
    jpeg = _jpeg()
    place = jpeg.index(b"\xff\xc0")
    return jpeg[: place + 4] + b"\x0c" + jpeg[place + 5 :]


@pytest.mark.parametrize("marker", [0xC3, 0xC5, 0xC6, 0xC7, 0xC9, 0xCA, 0xCB, 0xCD, 0xCE, 0xCF])
def test_a_kind_that_browsers_do_not_show_gives_no_sidecar(marker: int, converter: ImageConverter) -> None:
    with pytest.raises(UnsuitedError, match="not shown by browsers"):
        converter.convert(_frame_marker(marker))


def test_arithmetic_coding_gives_no_sidecar(converter: ImageConverter) -> None:
    with pytest.raises(UnsuitedError, match="arithmetic"):
        converter.convert(_jpeg("-arithmetic"))


def test_twelve_bits_give_no_sidecar(converter: ImageConverter) -> None:
    with pytest.raises(UnsuitedError, match="12-bit"):
        converter.convert(_twelve_bits())


@pytest.mark.parametrize("cut", [3, 20, 300, 2_000, -2, -200])
def test_a_cut_jpeg_is_damaged(cut: int, converter: ImageConverter) -> None:
    with pytest.raises(FailedError) as caught:
        converter.convert(_jpeg()[:cut])
    assert caught.value.reason is Failure.DAMAGED


@pytest.mark.parametrize("options", [(), ("-restart", "1")], ids=["without restart markers", "with restart markers"])
@pytest.mark.parametrize("share", [0.3, 0.6, 0.9])
def test_a_baseline_jpeg_cut_and_closed_shows_what_chromium_shows(
    share: float, options: tuple[str, ...], chromium: Chromium, converter: ImageConverter
) -> None:
    whole = _jpeg(*options)
    original = whole[: int(len(whole) * share)] + b"\xff\xd9"
    verdict = chromium.compare(original, converter.convert(original).webp)
    assert verdict.same(), verdict


def test_a_progressive_jpeg_cut_in_its_last_scan_and_closed_shows_what_chromium_shows(
    chromium: Chromium, converter: ImageConverter
) -> None:
    whole = _jpeg("-progressive")
    original = whole[: whole.rindex(b"\xff\xda") + 40] + b"\xff\xd9"
    assert chromium.compare(original, converter.convert(original).webp).same()


@pytest.mark.parametrize("share", [0.1, 0.3, 0.6])
def test_a_progressive_jpeg_cut_before_its_last_scan_gives_no_sidecar(share: float, converter: ImageConverter) -> None:
    whole = _jpeg("-progressive")
    with pytest.raises(FailedError, match="all of its scans"):
        converter.convert(whole[: int(len(whole) * share)] + b"\xff\xd9")


def _after_its_first_scan(scans: str) -> bytes:
    whole = _by_scans(scans)
    second = whole.index(b"\xff\xda", whole.index(b"\xff\xda") + 2)
    return whole[:second] + b"\xff\xd9"


def test_a_progressive_jpeg_without_all_of_its_colours_gives_no_sidecar(
    chromium: Chromium, converter: ImageConverter
) -> None:
    shown = chromium.show(_after_its_first_scan(_SCANS))
    assert shown is not None
    assert set(shown.rgba) == {0}
    with pytest.raises(FailedError, match="all of its scans"):
        converter.convert(_after_its_first_scan(_SCANS))


def test_a_baseline_jpeg_without_all_of_its_colours_shows_what_chromium_shows(
    chromium: Chromium, converter: ImageConverter
) -> None:
    original = _after_its_first_scan("0; 1; 2;")
    assert chromium.compare(original, converter.convert(original).webp).same()


def test_metadata_do_not_survive(converter: ImageConverter) -> None:
    secret = b"59.9386N 30.3141E"
    original = pictures.with_segments(
        _jpeg(),
        pictures.exif_segment(pictures.tiff(1) + secret),
        pictures.segment(0xE1, b"http://ns.adobe.com/xap/1.0/\0" + secret),
        pictures.segment(0xED, b"Photoshop 3.0\0" + secret),
        pictures.segment(0xFE, secret),
    )
    webp = converter.convert(original).webp
    assert secret not in webp
    assert not any(name in webp for name in (b"EXIF", b"XMP ", b"ICCP"))
