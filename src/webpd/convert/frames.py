"""What crosses the border between the service and a codec process: frames, and the facts in them.

A frame is a 16-byte header (little-endian: job number, 8 bytes; length of the facts, 4; length of the body, 4), the
facts as one JSON object, and the body (the bytes of an image). Nothing is ever unpickled, and every length is checked
before anything is allocated for it, so that the worst that a codec process taken over by a picture can send is an
answer that is not believed.
"""

import json
import os
import struct
from dataclasses import asdict, dataclass
from typing import BinaryIO, Self

from webpd.errors import FailedError, PermanentError, RefusedError, UnsuitedError
from webpd.model import Encoding, Failure, Picture, Skip

HEADER = struct.Struct("<QII")
MOST_FACTS = 8192
"""The longest facts, in bytes; every character of a longest text may take 12 of them."""
MOST_TEXT = 500
"""The longest text in the facts, in characters."""
MOST_BODY = 2**32 - 1
"""The longest body that a header can announce, in bytes."""
WEBP_SIDE = 16_383
"""The longest side of a WebP picture, in pixels (RFC 9649, section 2.7.1.1: 14 bits)."""

EXIT_MEMORY = 112
"""The exit status of a codec process that ran out of memory, where it cannot even answer any more."""


class MalformedError(Exception):
    """The other side sent what it never should."""


@dataclass(frozen=True, slots=True)
class Frame:
    """One message, in either direction. ``number`` is the job's; 0 is what a process says when it has started."""

    number: int
    facts: dict[str, object]
    body: bytes = b""


@dataclass(frozen=True, slots=True)
class Limits:
    """What one job may cost.

    ``max_pixels`` counts canvas × frames; ``worker_memory`` is address space in bytes; ``job_timeout`` is in seconds,
    counted from when a process starts on the job, and limits the processor time as well.
    """

    max_pixels: int
    worker_memory: int
    job_timeout: float


@dataclass(frozen=True, slots=True)
class Orders:
    """What a codec process is told on its command line. ``parent`` is the process that it serves."""

    parent: int
    encoding: Encoding
    limits: Limits

    def dump(self) -> str:
        """Return the orders as JSON."""
        return json.dumps(asdict(self))

    @classmethod
    def load(cls, text: str) -> Self:
        """Return the orders that ``dump`` wrote."""
        orders = json.loads(text)
        return cls(orders["parent"], Encoding(**orders["encoding"]), Limits(**orders["limits"]))


@dataclass(frozen=True, slots=True)
class Seal:
    """What shuts a codec process in, by its own word.

    ``landlock`` is the version of the kernel's Landlock interface, 0 where there is none; ``seccomp`` says whether
    the system calls are filtered.
    """

    landlock: int
    seccomp: bool


def write_frame(fd: int, frame: Frame) -> None:
    """Write a whole frame to the pipe ``fd``, waiting as needed. Raises BrokenPipeError when nobody reads."""
    facts = json.dumps(frame.facts).encode()
    parts = [memoryview(HEADER.pack(frame.number, len(facts), len(frame.body)) + facts), memoryview(frame.body)]
    while parts:
        written = os.writev(fd, parts)
        while parts and written >= len(parts[0]):
            written -= len(parts.pop(0))
        if parts:
            parts[0] = parts[0][written:]


def read_frame(stream: BinaryIO, most_body: int) -> Frame:
    """Read a whole frame, with a body of at most ``most_body`` bytes.

    Raises EOFError when the other side is gone, MalformedError when it sent no frame.
    """
    number, facts_length, body_length = HEADER.unpack(_read_exactly(stream, HEADER.size))
    if facts_length > MOST_FACTS or body_length > most_body:
        raise MalformedError(f"a frame of {facts_length} + {body_length} bytes, more than {MOST_FACTS} + {most_body}")
    text = _read_exactly(stream, facts_length)
    try:
        facts = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise MalformedError("facts that are not JSON") from error
    if not isinstance(facts, dict):
        raise MalformedError("facts that are not an object")
    return Frame(number, facts, _read_exactly(stream, body_length))


def _read_exactly(stream: BinaryIO, length: int) -> bytes:
    data = stream.read(length)
    if len(data) < length:
        raise EOFError
    return data


def facts_of_picture(picture: Picture) -> dict[str, object]:
    """Return the facts that ``picture_of_facts`` reads."""
    # Not asdict: it takes twice as long as writing the JSON.
    return {
        "picture": {
            "width": picture.width,
            "height": picture.height,
            "format": picture.format,
            "frames": picture.frames,
            "lossless": picture.lossless,
        }
    }


def facts_of_error(error: PermanentError) -> dict[str, object]:
    """Return the facts that ``error_of_facts`` reads."""
    detail = str(error)[:MOST_TEXT]
    match error:
        case RefusedError():
            return {"refused": error.reason, "detail": detail}
        case UnsuitedError():
            return {"unsuited": detail}
        case FailedError():
            return {"failed": error.reason, "detail": detail}
        case _:
            return {"failed": Failure.CRASHED, "detail": detail}


def facts_of_seal(seal: Seal) -> dict[str, object]:
    """Return the facts that ``seal_of_facts`` reads."""
    return {"ready": asdict(seal)}


def picture_of_facts(facts: dict[str, object], max_pixels: int) -> Picture:
    """Return the picture that the facts describe. Raises MalformedError when they describe none that can be."""
    match facts:
        case {
            "picture": {
                "width": int(width),
                "height": int(height),
                "format": "jpeg" | "png" | "webp" as kind,
                "frames": int(frames),
                "lossless": bool(lossless),
                **nothing,
            },
            **rest,
        } if not nothing and not rest:
            possible = 0 < width <= WEBP_SIDE and 0 < height <= WEBP_SIDE and frames > 0
            if possible and width * height * frames <= max_pixels:
                return Picture(int(width), int(height), str(kind), int(frames), lossless)
    raise MalformedError("facts about a picture that cannot be")


def error_of_facts(facts: dict[str, object]) -> PermanentError | None:
    """Return the error that the facts tell of, or None. Raises MalformedError when they tell it wrongly."""
    try:
        match facts:
            case {"refused": str(reason), "detail": str(detail), **rest} if not rest:
                return RefusedError(Skip(reason), clean(detail))
            case {"unsuited": str(detail), **rest} if not rest:
                return UnsuitedError(clean(detail))
            case {"failed": str(reason), "detail": str(detail), **rest} if not rest:
                return FailedError(Failure(reason), clean(detail))
    except ValueError as error:
        raise MalformedError("an unknown reason") from error
    return None


def facts_of_unfit(error: Exception) -> dict[str, object]:
    """Return what a process says instead of ``facts_of_seal`` when it cannot serve."""
    return {"unfit": f"{type(error).__name__}: {error}"[:MOST_TEXT]}


def seal_of_facts(facts: dict[str, object]) -> Seal:
    """Return what the facts say of the sandbox. Raises MalformedError when they say that it cannot be, or nothing."""
    match facts:
        case {"unfit": str(text)}:
            raise MalformedError(clean(text))
        case {"ready": {"landlock": int(landlock), "seccomp": bool(seccomp), **nothing}, **rest} if not nothing | rest:
            return Seal(landlock, seccomp)
    raise MalformedError("no word about the sandbox")


def clean(text: str) -> str:
    """Return a text of the other side, shortened, and safe to print and to log."""
    return "".join(letter if letter.isprintable() else "?" for letter in text[:MOST_TEXT])


def check_webp(data: bytes) -> None:
    """Raise MalformedError unless the data is one whole RIFF file of type WEBP (RFC 9649, section 2.4)."""
    if data[:4] != b"RIFF" or data[8:12] != b"WEBP" or int.from_bytes(data[4:8], "little") + 8 != len(data):
        raise MalformedError("an image that is not a WebP file")
