"""That frames carry what they were given, and that nothing in them is believed that cannot be."""

import io
import os
import threading
from dataclasses import asdict

import pytest
from hypothesis import given
from hypothesis import strategies as st

from webpd.convert.frames import (
    HEADER,
    MOST_BODY,
    MOST_FACTS,
    MOST_TEXT,
    Frame,
    Limits,
    MalformedError,
    Orders,
    Seal,
    check_webp,
    error_of_facts,
    facts_of_error,
    facts_of_picture,
    facts_of_seal,
    picture_of_facts,
    read_frame,
    seal_of_facts,
    write_frame,
)
from webpd.errors import FailedError, PermanentError, RefusedError, UnsuitedError
from webpd.model import Encoding, Failure, Picture, Skip

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=8,
)
FACTS = st.dictionaries(st.text(max_size=8), JSON, max_size=4)
NUMBERS = st.integers(0, 2**64 - 1)
BODIES = st.binary(max_size=2000) | st.integers(0, 300_000).map(lambda size: b"\xa5" * size)
PICTURES = st.builds(
    Picture,
    st.integers(1, 16_383),
    st.integers(1, 16_383),
    st.sampled_from(["jpeg", "png", "webp"]),
    st.integers(1, 100),
    st.booleans(),
)
ERRORS = (
    st.builds(RefusedError, st.sampled_from(Skip), st.text())
    | st.builds(FailedError, st.sampled_from(Failure), st.text())
    | st.builds(UnsuitedError, st.text())
)
WORDS = ["picture", "refused", "unsuited", "failed", "detail", "ready", "unfit", "width", "damaged", "landlock"]


def as_bytes(frame: Frame) -> bytes:
    """Return the frame as it is in the pipe; bodies here may be larger than the pipe."""
    reader, writer = os.pipe()

    def write() -> None:
        write_frame(writer, frame)
        os.close(writer)

    thread = threading.Thread(target=write)
    thread.start()
    with open(reader, "rb") as stream:
        data = stream.read()
    thread.join()
    return data


@given(st.lists(st.builds(Frame, NUMBERS, FACTS, BODIES), max_size=3))
def test_frames_come_out_as_they_went_in(frames: list[Frame]) -> None:
    stream = io.BytesIO(b"".join(as_bytes(frame) for frame in frames))
    assert [read_frame(stream, MOST_BODY) for _ in frames] == frames
    with pytest.raises(EOFError):
        read_frame(stream, MOST_BODY)


@given(st.builds(Frame, NUMBERS, FACTS, st.binary(max_size=50)), st.data())
def test_a_frame_cut_anywhere_is_no_frame(frame: Frame, data: st.DataObject) -> None:
    whole = as_bytes(frame)
    cut = data.draw(st.integers(0, len(whole) - 1))
    with pytest.raises((EOFError, MalformedError)):
        read_frame(io.BytesIO(whole[:cut]), MOST_BODY)


@given(
    st.binary(max_size=400)
    | st.builds(lambda number, text: HEADER.pack(number, len(text), 0) + text, NUMBERS, st.binary())
)
def test_any_bytes_are_a_frame_or_an_error_of_ours(data: bytes) -> None:
    try:
        frame = read_frame(io.BytesIO(data), 100)
    except (EOFError, MalformedError):
        return
    assert isinstance(frame.facts, dict)


class Untouched(io.RawIOBase):
    """A stream that gives a header, and must not be asked for more."""

    def __init__(self, header: bytes) -> None:
        self.left = [header]

    def read(self, size: int = -1) -> bytes:  # noqa: ARG002 - as the class it stands for
        return self.left.pop()


@given(NUMBERS, st.integers(MOST_FACTS + 1, 2**32 - 1), st.integers(0, 2**32 - 1))
def test_facts_too_long_are_never_asked_for(number: int, facts: int, body: int) -> None:
    with pytest.raises(MalformedError):
        read_frame(Untouched(HEADER.pack(number, facts, body)), MOST_BODY)  # type: ignore[arg-type]  # reads enough


@given(NUMBERS, st.integers(0, 2**32 - 2), st.data())
def test_a_body_too_long_is_never_asked_for(number: int, most: int, data: st.DataObject) -> None:
    body = data.draw(st.integers(most + 1, 2**32 - 1))
    with pytest.raises(MalformedError):
        read_frame(Untouched(HEADER.pack(number, 2, body)), most)  # type: ignore[arg-type]  # reads enough


@given(PICTURES)
def test_facts_about_a_picture_come_out_as_they_went_in(picture: Picture) -> None:
    pixels = picture.width * picture.height * picture.frames
    frame = read_frame(io.BytesIO(as_bytes(Frame(1, facts_of_picture(picture)))), 0)
    assert picture_of_facts(frame.facts, pixels) == picture
    with pytest.raises(MalformedError):
        picture_of_facts(frame.facts, pixels - 1)


@given(PICTURES, st.sampled_from(list(asdict(Picture(1, 1, "png", 1, True)))), JSON)
def test_a_fact_of_the_wrong_kind_is_not_believed(picture: Picture, name: str, value: object) -> None:
    facts = asdict(picture) | {name: value}
    try:
        read = picture_of_facts({"picture": facts}, 10**12)
    except MalformedError:
        return
    assert asdict(read) == facts


@given(ERRORS)
def test_errors_come_out_short_and_printable(error: PermanentError) -> None:
    frame = read_frame(io.BytesIO(as_bytes(Frame(1, facts_of_error(error)))), 0)
    read = error_of_facts(frame.facts)
    assert type(read) is type(error)
    assert getattr(read, "reason", None) is getattr(error, "reason", None)
    assert str(read).isprintable()
    assert len(str(read)) == min(len(str(error)), MOST_TEXT)


@given(st.text(st.characters(categories=["Cs", "So"]), min_size=MOST_TEXT, max_size=MOST_TEXT))
def test_the_longest_text_fits_into_the_facts(text: str) -> None:
    frame = Frame(1, facts_of_error(FailedError(Failure.CRASHED, text)))
    assert error_of_facts(read_frame(io.BytesIO(as_bytes(frame)), 0).facts) is not None


@given(st.dictionaries(st.sampled_from(WORDS), JSON | st.dictionaries(st.sampled_from(WORDS), JSON, max_size=3)))
def test_any_facts_are_believed_or_an_error_of_ours(facts: dict[str, object]) -> None:
    for read in (lambda facts: picture_of_facts(facts, 10**9), error_of_facts, seal_of_facts):
        try:
            read(facts)
        except MalformedError:
            continue


@given(st.integers(0, 20), st.booleans())
def test_the_word_about_the_sandbox_comes_out_as_it_went_in(landlock: int, seccomp: bool) -> None:
    assert seal_of_facts(facts_of_seal(Seal(landlock, seccomp))) == Seal(landlock, seccomp)


def test_orders_come_out_as_they_went_in() -> None:
    orders = Orders(17, Encoding(80, 4), Limits(50_000_000, 3 << 29, 60.5))
    assert Orders.load(orders.dump()) == orders


@pytest.mark.parametrize(
    "data", [b"", b"RIFF", b"RIFF\4\0\0\0WAVE", b"RIFF\5\0\0\0WEBP", b"RIFF\4\0\0\0WEBPx", b"\x89PNG\r\n\x1a\n"]
)
def test_what_is_not_one_whole_webp_file_is_not_believed(data: bytes) -> None:
    with pytest.raises(MalformedError):
        check_webp(data)
    check_webp(b"RIFF\4\0\0\0WEBP")
