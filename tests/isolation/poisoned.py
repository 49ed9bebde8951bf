"""A codec process taken over by a picture: starts, seals and answers as the real one, and obeys what a source says.

``python -I poisoned.py [--without=landlock] [--without=seccomp] [--unfit] ORDERS``. A source ``poison:DEED:ARGUMENT``
does the deed; any other is converted as usual. A deed that the sandbox denies raises OSError, which the process
reports as ``crashed``; a deed that works is reported as ``damaged``, with the text of ``DONE``.
"""

import ctypes
import mmap
import os
import resource
import socket
import sys
import threading
from collections.abc import Callable
from dataclasses import replace

from webpd.convert import sandbox
from webpd.convert.converter import ImageConverter
from webpd.convert.frames import HEADER, Frame, facts_of_picture, write_frame
from webpd.convert.result import Converted
from webpd.convert.worker import Codec, serve
from webpd.errors import FailedError
from webpd.model import Encoding, Failure, Picture

DONE = "the deed was done"
PRINT = "flood the terminal"
PARENT = os.getppid()
ANSWERS = 3
LIBC = ctypes.CDLL(None, use_errno=True)
PICTURE = Picture(8, 8, "png", 1, True)
PAYLOAD = b"\0" * (8 << 20)
WEBP = b"RIFF" + (4).to_bytes(4, "little") + b"WEBP"
BIG_WEBP = b"RIFF" + (4 + len(PAYLOAD)).to_bytes(4, "little") + b"WEBP" + PAYLOAD


def _raw(name: str, *arguments: object) -> None:
    """Call a function of the C library, whatever Python thinks of it. Raises OSError."""
    if getattr(LIBC, name)(*arguments) < 0:
        raise OSError(ctypes.get_errno(), name)


def _connect(port: str) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as client:
        client.connect(("127.0.0.1", int(port)))


def _read_memory_of_parent() -> None:
    vector = (ctypes.c_size_t * 2)(0x1000, 8)
    _raw("process_vm_readv", PARENT, vector, 1, vector, 1, 0)


def _eat_in_crumbs() -> None:
    crumbs = []
    while True:
        crumbs.append(bytearray(1000))


def _spin() -> None:
    while True:
        pass


def _hang() -> None:
    lock = threading.Lock()
    while lock.acquire():
        pass


def _close_and_hang() -> None:
    os.close(ANSWERS)
    _hang()


def _flood(*descriptors: int) -> None:
    for descriptor in descriptors:
        for _ in range(100):
            os.write(descriptor, b"nonsense" * 12_500)


DENIED: dict[str, Callable[[str], object]] = {
    "open for reading": lambda path: os.open(path, os.O_RDONLY),
    "open for writing": lambda path: os.open(path, os.O_WRONLY | os.O_CREAT),
    "list": lambda path: os.listdir(os.path.dirname(path)),
    "truncate": lambda path: os.truncate(path, 0),
    "unlink": os.unlink,
    "make a directory": lambda path: os.mkdir(path + ".d"),
    "rename": lambda path: os.rename(path, path + ".moved"),
    "link": lambda path: os.symlink(path, path + ".link"),
    "execute": lambda _: os.execv(sys.executable, (sys.executable, "-c", "")),  # noqa: S606 - no shell is wanted
    "connect by TCP": _connect,
    "ask by UDP": lambda _: socket.socket(socket.AF_INET, socket.SOCK_DGRAM),
    "speak IPv6": lambda _: socket.socket(socket.AF_INET6, socket.SOCK_STREAM),
    "open a UNIX socket": lambda _: socket.socket(socket.AF_UNIX, socket.SOCK_STREAM),
    "make a pair of sockets": lambda _: socket.socketpair(),
    "open a netlink socket": lambda _: socket.socket(socket.AF_NETLINK, socket.SOCK_RAW),
    "fork": lambda _: os.fork() or os._exit(0),
    "vfork": lambda _: _raw("vfork"),
    "spawn": lambda _: os.posix_spawn(sys.executable, (sys.executable, "-c", ""), {}),
    "signal the service": lambda _: os.kill(PARENT, 0),
    "signal the whole session": lambda _: os.killpg(0, 0),
    "trace the service": lambda _: _raw("ptrace", 0x4206, PARENT, None, None),
    "read the memory of the service": lambda _: _read_memory_of_parent(),
    "raise the memory limit": lambda _: resource.setrlimit(resource.RLIMIT_AS, (-1, -1)),
    "raise the descriptor limit": lambda _: resource.setrlimit(resource.RLIMIT_NOFILE, (64, 64)),
    "see or set the limits of the service": lambda _: resource.prlimit(PARENT, resource.RLIMIT_CPU),
    "map executable memory": lambda _: mmap.mmap(-1, 4096, prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC),
    "make a pipe": lambda _: os.pipe(),
    "make a memory file": lambda _: os.memfd_create("x"),
    "mount": lambda _: _raw("mount", b"none", b"/proc/no-such-folder", b"tmpfs", 0, None),
    "leave for a new namespace": lambda _: _raw("unshare", 0x10000000),
    "start a thread": lambda _: threading.Thread(target=int).start(),
}
"""What a sealed process cannot do. Each would do no harm where it could be done after all."""

DEADLY: dict[str, Callable[[str], object]] = {
    "exit": lambda status: os._exit(int(status)),
    "segfault": lambda _: ctypes.string_at(0),
    "abort": lambda _: os.abort(),
    "eat at once": lambda size: b"x" * int(size),
    "eat in crumbs": lambda _: _eat_in_crumbs(),
    "spin": lambda _: _spin(),
    "hang": lambda _: _hang(),
    "close the answers": lambda _: _close_and_hang(),
    "answer for": lambda number: write_frame(ANSWERS, Frame(int(number), facts_of_picture(PICTURE), WEBP)),
    "answer in garbage": lambda _: os.write(ANSWERS, b"\xff" * 1000),
    "announce too long a body": lambda number: os.write(ANSWERS, HEADER.pack(int(number), 2, 2**32 - 1) + b"{}"),
    "announce too long facts": lambda number: os.write(ANSWERS, HEADER.pack(int(number), 2**31, 0)),
    "answer in no JSON": lambda number: os.write(ANSWERS, HEADER.pack(int(number), 4, 0) + b"\x80\x04N."),
    "answer in deep JSON": lambda number: os.write(ANSWERS, HEADER.pack(int(number), 8000, 0) + b"[" * 8000),
    "answer no object": lambda number: os.write(ANSWERS, HEADER.pack(int(number), 2, 0) + b"[]"),
    "answer with other facts": lambda number: write_frame(ANSWERS, Frame(int(number), {"picture": 1}, WEBP)),
    "answer with an unknown reason": lambda number: write_frame(
        ANSWERS, Frame(int(number), {"failed": "fresh", "detail": "x"})
    ),
    "answer in half": lambda number: os._exit(os.write(ANSWERS, HEADER.pack(int(number), 100, 0) + b"{")),
    "flood the answers": lambda _: _flood(ANSWERS),
}
"""What a sealed process can do, and must not survive."""

RETURNS: dict[str, Callable[[str], Converted]] = {
    "return no image": lambda _: Converted(b"", PICTURE),
    "return another image": lambda _: Converted(b"\x89PNG\r\n\x1a\n" + bytes(50), PICTURE),
    "return half an image": lambda _: Converted(BIG_WEBP[: 4 << 20], PICTURE),
    "return a negative picture": lambda _: Converted(WEBP, replace(PICTURE, width=-8)),
    "return too wide a picture": lambda _: Converted(WEBP, replace(PICTURE, width=20_000)),
    "return too many frames": lambda _: Converted(WEBP, replace(PICTURE, frames=10**12)),
    "return another format": lambda _: Converted(WEBP, replace(PICTURE, format="gif")),
    "return a big image": lambda _: Converted(BIG_WEBP, PICTURE),
    "speak in control characters": lambda _: _fail("\x1b[2J\ud800\n" + "long" * 1000),
}


def _fail(text: str) -> Converted:
    raise FailedError(Failure.DAMAGED, text)


class Poisoned(ImageConverter):
    """The real converter, but for sources that tell it to misbehave."""

    def convert(self, source: bytes) -> Converted:
        if not source.startswith(b"poison:"):
            return super().convert(source)
        name, _, argument = source[7:].rstrip(b"\0").decode().partition(":")
        if name in RETURNS:
            return RETURNS[name](argument)
        (DENIED | DEADLY)[name](argument) if name != PRINT else _flood(1, 2)
        return _fail(DONE)


def _make(encoding: Encoding, max_pixels: int) -> Codec:
    if "--unfit" in sys.argv:
        raise ImportError("the codecs are not installed")
    return Poisoned(encoding, max_pixels)


if __name__ == "__main__":
    if "--without=landlock" in sys.argv:
        # What a kernel that lacks the call is asked, and answers.
        sandbox.LANDLOCK_CREATE_RULESET = 0x7FFF
    if "--without=seccomp" in sys.argv:
        sandbox.LIBSECCOMP = "libseccomp.so.absent"
    serve(_make)
