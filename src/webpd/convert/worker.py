"""The program of a codec process: reads requests from standard input, answers them, and can do nothing else.

``python -I -m webpd.convert.worker ORDERS``, started by ``pool``; never by hand.
"""

import contextlib
import ctypes
import os
import sys
from collections.abc import Callable
from typing import BinaryIO, NoReturn, Protocol

from webpd.convert import sandbox
from webpd.convert.frames import (
    EXIT_MEMORY,
    MOST_BODY,
    Frame,
    Orders,
    facts_of_error,
    facts_of_picture,
    facts_of_seal,
    facts_of_unfit,
    read_frame,
    write_frame,
)
from webpd.convert.result import Converted
from webpd.errors import FailedError, PermanentError
from webpd.model import Encoding, Failure, Picture

# A grey picture of 8 × 8 pixels in each of the two formats, as Pillow wrote it.
SAMPLES = (
    bytes.fromhex(
        "ffd8ffe000104a46494600010100000100010000ffdb004300100b0c0e0c0a100e0d0e1211101318281a181616183123"
        "251d283a333d3c3933383740485c4e404457453738506d51575f626768673e4d71797064785c656763ffc0000b080008"
        "000801011100ffc40014000100000000000000000000000000000000ffc4001410010000000000000000000000000000"
        "0000ffda0008010100003f003fffd9"
    ),
    bytes.fromhex(
        "89504e470d0a1a0a0000000d4948445200000008000000080800000000e164e157000000104944415478da636c608000"
        "26068a180026080090b5310a910000000049454e44ae426082"
    ),
)


READ_SIZE = 1 << 18
"""In bytes, how much is read at once: a thumbnail's request whole."""

M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3  # malloc.h of glibc
KEPT_MEMORY = 64 << 20
"""In bytes, how much free memory a process keeps for the next picture instead of giving it back to the kernel."""


class Codec(Protocol):
    """What a codec process serves: ``ImageConverter``."""

    def convert(self, source: bytes) -> Converted:
        """Return the source as WebP. Raises RefusedError, FailedError."""

    def inspect(self, webp: bytes) -> Picture:
        """Return what the WebP file shows. Raises RefusedError, FailedError."""


def serve(make_codec: Callable[[Encoding, int], Codec]) -> NoReturn:
    """Make the codec, give up everything else, and answer requests until the service is gone."""
    orders = Orders.load(sys.argv[-1])
    sandbox.detach(orders.parent)
    _keep_memory()
    # What a library prints must not get among the answers.
    answers = os.dup(1)
    os.dup2(2, 1)
    requests = open(0, "rb", READ_SIZE, closefd=False)  # noqa: SIM115 - lives as long as the process
    try:
        _serve(make_codec, orders, requests, answers)
    except MemoryError:
        os._exit(EXIT_MEMORY)
    except (EOFError, BrokenPipeError):
        os._exit(0)


def _serve(make_codec: Callable[[Encoding, int], Codec], orders: Orders, requests: BinaryIO, answers: int) -> NoReturn:
    try:
        codec = make_codec(orders.encoding, orders.limits.max_pixels)
        _try_out(codec)
        sandbox.limit(orders.limits.worker_memory)
        ready = facts_of_seal(sandbox.seal())
        _try_out(codec)
    except MemoryError:
        raise
    except Exception as error:  # whatever it is, the service must hear of it
        write_frame(answers, Frame(0, facts_of_unfit(error)))
        os._exit(1)
    write_frame(answers, Frame(0, ready))
    while True:
        request = read_frame(requests, MOST_BODY)
        sandbox.renew_processor_time(orders.limits.job_timeout)
        write_frame(answers, _answer(codec, request, ready))
        del request  # or it would stay in memory beside the next one


def _keep_memory() -> None:
    """Spare the page faults of giving every picture's memory back: some 4 % of the time of a thumbnail."""
    with contextlib.suppress(AttributeError):  # the C library is another one
        mallopt = ctypes.CDLL(None).mallopt
        mallopt(M_MMAP_THRESHOLD, KEPT_MEMORY // 2)
        mallopt(M_TRIM_THRESHOLD, KEPT_MEMORY)


def _try_out(codec: Codec) -> None:
    """Use every path once: before the seal, so that all is loaded; after it, so that a seal too tight is found."""
    for sample in SAMPLES:
        codec.inspect(codec.convert(sample).webp)


def _answer(codec: Codec, request: Frame, ready: dict[str, object]) -> Frame:
    try:
        match request.facts["do"]:
            case "convert":
                converted = codec.convert(request.body)
                return Frame(request.number, facts_of_picture(converted.picture), converted.webp)
            case "inspect":
                return Frame(request.number, facts_of_picture(codec.inspect(request.body)))
            case _:
                return Frame(request.number, ready)
    except MemoryError:
        raise
    except PermanentError as error:
        return Frame(request.number, facts_of_error(error))
    except Exception as error:  # a picture that our code does not foresee costs that picture only
        failed = FailedError(Failure.CRASHED, f"{type(error).__name__}: {error}")
        return Frame(request.number, facts_of_error(failed))


def _image_converter(encoding: Encoding, max_pixels: int) -> Codec:
    # Here, where what goes wrong on import is told to the service.
    from webpd.convert.converter import ImageConverter  # noqa: PLC0415

    return ImageConverter(encoding, max_pixels)


if __name__ == "__main__":
    serve(_image_converter)
