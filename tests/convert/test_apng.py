"""Animated PNG: Chromium plays the sidecar as it plays the original."""

import itertools
import struct
from collections.abc import Callable, Iterator

import pytest
from PIL import Image

from tests import pictures
from tests.convert.animations import differences
from tests.referee import Chromium
from webpd.convert.converter import ImageConverter
from webpd.errors import FailedError
from webpd.model import Failure

_SIZE = (96, 64)
_Chunks = list[tuple[bytes, bytes]]


def _cat() -> Image.Image:
    return pictures.pixels("chelsea.png", *_SIZE)


def _coffee() -> Image.Image:
    return pictures.pixels("coffee.png", *_SIZE)


def _piece() -> Image.Image:
    piece = pictures.pixels("coffee.png", 40, 32).convert("RGBA")
    piece.putalpha(Image.linear_gradient("L").resize(piece.size))
    return piece


def _three(blend: int = 0) -> list[tuple[bytes, bytes]]:
    return [
        pictures.frame(_cat()),
        pictures.frame(_piece(), (10, 8), blend=blend),
        pictures.frame(_piece().rotate(180), (30, 24), blend=1),
    ]


def _check(original: bytes, chromium: Chromium, converter: ImageConverter) -> None:
    webp = converter.convert(original).webp
    played, shown = chromium.play(original), chromium.play(webp)
    assert played is not None
    assert shown is not None
    assert differences(played, shown) == []
    verdict = chromium.compare(original, webp)
    assert verdict.same(), verdict


@pytest.mark.parametrize("blends", list(itertools.product((0, 1), repeat=2)))
@pytest.mark.parametrize("disposals", list(itertools.product((0, 1, 2), repeat=2)))
def test_frames_are_disposed_of_and_blended_by_the_specification(
    disposals: tuple[int, int], blends: tuple[int, int], chromium: Chromium, converter: ImageConverter
) -> None:
    frames = [
        pictures.frame(_cat(), dispose=disposals[0]),
        pictures.frame(_piece(), (10, 8), dispose=disposals[1], blend=blends[0]),
        pictures.frame(_piece().rotate(180), (30, 24), blend=blends[1]),
        pictures.frame(_piece(), (56, 32), blend=1),
    ]
    _check(pictures.apng(frames, _SIZE), chromium, converter)


def test_a_first_frame_to_be_undone_leaves_nothing(chromium: Chromium, converter: ImageConverter) -> None:
    frames = [pictures.frame(_piece().resize(_SIZE), dispose=2), pictures.frame(_piece(), (10, 8), blend=1)]
    _check(pictures.apng(frames, _SIZE), chromium, converter)


@pytest.mark.parametrize("count", [1, 2, 3])
def test_a_default_image_beside_the_animation_is_left_out(
    count: int, chromium: Chromium, converter: ImageConverter
) -> None:
    original = pictures.apng(_three()[:count], _SIZE, default=_coffee())
    assert converter.convert(original).picture.frames == count
    _check(original, chromium, converter)


def test_a_small_first_frame_stands_on_a_clear_canvas(chromium: Chromium, converter: ImageConverter) -> None:
    frames = [pictures.frame(_piece(), (7, 9)), pictures.frame(_piece(), (40, 20), blend=1)]
    _check(pictures.apng(frames, _SIZE, default=_coffee()), chromium, converter)


@pytest.mark.parametrize("plays", [0, 1, 2, 5, 65_535])
def test_the_loop_count_is_kept(plays: int, chromium: Chromium, converter: ImageConverter) -> None:
    _check(pictures.apng(_three(), _SIZE, plays=plays), chromium, converter)


def test_delays_do_not_drift(chromium: Chromium, converter: ImageConverter) -> None:
    frames = [pictures.frame(_cat().rotate(3 * number), delay=(1, 30)) for number in range(30)]
    original = pictures.apng(frames, _SIZE)
    _check(original, chromium, converter)
    played = chromium.play(converter.convert(original).webp)
    assert played is not None
    assert sum(played.milliseconds) == 1_000


@pytest.mark.parametrize("delay", [(0, 0), (7, 0), (10, 1_000), (1, 1_000), (65_535, 100), (65_535, 1)])
def test_odd_delays_are_kept(delay: tuple[int, int], converter: ImageConverter, chromium: Chromium) -> None:
    frames = [pictures.frame(_cat(), delay=delay), pictures.frame(_coffee(), delay=(1, 10))]
    played = chromium.play(converter.convert(pictures.apng(frames, _SIZE)).webp)
    assert played is not None
    # WebP's longest is 24 bits of milliseconds; a denominator of 0 means 100.
    wanted = min(round(1_000 * delay[0] / (delay[1] or 100)), (1 << 24) - 1)
    assert played.milliseconds == (wanted, 100)


@pytest.mark.parametrize(
    "chunks",
    [
        [pictures.gama(100_000)],
        [pictures.gama(45_455), pictures.chrm(0.3127, 0.329, 0.68, 0.32, 0.265, 0.69, 0.15, 0.06)],
        [pictures.chunk(b"eXIf", pictures.tiff(6))],
        [pictures.iccp(pictures.icc_profile("a98"))],
        [pictures.iccp(pictures.icc_profile("ps_rgb"))],
        [pictures.iccp(pictures.icc_profile("sgray"))],
        [pictures.iccp(bytes(500))],
        [pictures.iccp(pictures.icc_profile("a98")[:300])],
    ],
    ids=["gamma", "primaries", "orientation", "Adobe RGB", "linear", "grey profile", "broken profile", "cut profile"],
)
def test_colours_and_orientation_hold_for_every_frame(
    chunks: list[bytes], chromium: Chromium, converter: ImageConverter
) -> None:
    _check(pictures.apng(_three(blend=1), _SIZE, before=chunks), chromium, converter)


def test_equal_frames_may_become_one(chromium: Chromium, converter: ImageConverter) -> None:
    frames = [pictures.frame(picture) for picture in (_cat(), _cat(), _coffee(), _coffee())]
    _check(pictures.apng(frames, _SIZE), chromium, converter)


def test_an_animation_of_flat_colours_is_lossless(chromium: Chromium, converter: ImageConverter) -> None:
    pictures_of_signs = [Image.new("RGBA", _SIZE, "white") for _ in range(3)]
    for number, picture in enumerate(pictures_of_signs):
        picture.paste((200, 20, 30, 255), (10 * number, 10, 10 * number + 30, 40))
    original = pictures.apng([pictures.frame(picture) for picture in pictures_of_signs], _SIZE)
    converted = converter.convert(original)
    assert converted.picture.lossless
    assert converter.inspect(converted.webp).lossless
    _check(original, chromium, converter)


def _edited(edit: Callable[[_Chunks], _Chunks]) -> bytes:
    return pictures.png_of(*(pictures.chunk(name, body) for name, body in edit(list(_parts(_good())))))


def _good() -> bytes:
    return pictures.apng(_three(blend=1), _SIZE)


def _parts(source: bytes) -> Iterator[tuple[bytes, bytes]]:
    position = 8
    while source[position + 4 : position + 8] != b"IEND":
        (length,) = struct.unpack_from(">I", source, position)
        yield source[position + 4 : position + 8], source[position + 8 : position + 8 + length]
        position += 12 + length


def _with_body(name: bytes, change: Callable[[bytes], bytes]) -> Callable[[_Chunks], _Chunks]:
    return lambda chunks: [(kind, change(body) if kind == name else body) for kind, body in chunks]


def _later(change: Callable[[bytes], bytes]) -> Callable[[bytes], bytes]:
    """Changes the control chunks of frames that do not stand at the left edge."""
    return lambda body: change(body) if body[12:16] != bytes(4) else body


_FAULTY: dict[str, Callable[[], bytes]] = {
    "more frames announced": lambda: _edited(_with_body(b"acTL", lambda _: struct.pack(">II", 4, 0))),
    "fewer frames announced": lambda: _edited(_with_body(b"acTL", lambda _: struct.pack(">II", 2, 0))),
    "no frames announced": lambda: _edited(_with_body(b"acTL", lambda _: struct.pack(">II", 0, 0))),
    "a loop count beyond all bounds": lambda: _edited(_with_body(b"acTL", lambda _: struct.pack(">II", 3, 1 << 31))),
    "control cut": lambda: _edited(_with_body(b"acTL", lambda body: body[:4])),
    "numbers wrong": lambda: _edited(_with_body(b"fdAT", lambda body: struct.pack(">I", 9) + body[4:])),
    "frame control cut": lambda: _edited(_with_body(b"fcTL", lambda body: body[:20])),
    "frames without pixels": lambda: _edited(lambda chunks: [part for part in chunks if part[0] != b"fdAT"]),
    "pixels of garbage": lambda: _edited(_with_body(b"fdAT", lambda body: body[:4] + b"garbage")),
    "pixels empty": lambda: _edited(_with_body(b"fdAT", lambda body: body[:4])),
    "a frame off the canvas": lambda: _edited(
        _with_body(b"fcTL", _later(lambda body: body[:12] + struct.pack(">I", 90) + body[16:]))
    ),
    "a frame without size": lambda: _edited(_with_body(b"fcTL", _later(lambda body: body[:4] + bytes(4) + body[8:]))),
    "an unknown disposal": lambda: _edited(_with_body(b"fcTL", lambda body: body[:24] + b"\x09" + body[25:])),
    "an unknown blending": lambda: _edited(_with_body(b"fcTL", lambda body: body[:25] + b"\x09")),
    "a small first frame": lambda: _edited(
        lambda chunks: [
            (
                name,
                body[:4] + struct.pack(">II", 40, 30) + body[12:] if body[:4] == bytes(4) and name == b"fcTL" else body,
            )
            for name, body in chunks
        ]
    ),
    "cut in its second frame": lambda: _good()[:-900],
}


@pytest.mark.parametrize("fault", _FAULTY)
def test_a_faulty_animation_gives_no_sidecar(fault: str, converter: ImageConverter) -> None:
    with pytest.raises(FailedError) as caught:
        converter.convert(_FAULTY[fault]())
    assert caught.value.reason is Failure.DAMAGED


_STILL: dict[str, Callable[[_Chunks], _Chunks]] = {
    "no control chunk": lambda chunks: [part for part in chunks if part[0] != b"acTL"],
    "a control chunk after the pixels": lambda chunks: sorted(chunks, key=lambda part: part[0] == b"acTL"),
}


@pytest.mark.parametrize("fault", _STILL)
def test_what_chromium_takes_for_a_still_picture_is_one(
    fault: str, chromium: Chromium, converter: ImageConverter
) -> None:
    original = _edited(_STILL[fault])
    assert converter.convert(original).picture.frames == 1
    _check(original, chromium, converter)


def test_text_between_the_frames_changes_nothing(chromium: Chromium, converter: ImageConverter) -> None:
    def with_text(chunks: _Chunks) -> _Chunks:
        return chunks[:1] + [part for chunk in chunks[1:] for part in ((b"tEXt", b"a\0b"), chunk)]

    _check(_edited(with_text), chromium, converter)
