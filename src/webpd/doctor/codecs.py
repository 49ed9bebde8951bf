"""The codec processes: what their libraries can do, whether they work once sealed, and what shuts them in."""

import json
import re
import subprocess
import sys
import zlib
from collections.abc import Iterator
from pathlib import Path

from rich.filesize import decimal

from webpd.convert.frames import Limits, Seal
from webpd.convert.pool import CodecPool
from webpd.doctor.finding import Finding, Topic
from webpd.errors import WebpdError
from webpd.settings import Settings

_TOPIC = Topic("codecs")
_PIP = f"`{sys.executable} -m pip install --force-reinstall pillow`"

# Run by a process of its own, since Pillow is never loaded into ours.
_FEATURES = """
import json, PIL
from PIL import features
names = ("webp", "jpg", "zlib", "littlecms2", "libjpeg_turbo")
told = {name: features.version(name) if features.check(name) else None for name in names}
print(json.dumps({"pillow": PIL.__version__, **told}))
"""


def look(settings: Settings) -> Iterator[Finding]:
    """Look at the libraries, then start a codec process as the service does and let it convert."""
    if settings.role == "watch":
        return
    yield _libraries()
    limits = Limits(settings.max_pixels, settings.worker_memory, settings.job_timeout)
    with CodecPool(settings.encoding, limits, 1) as pool:
        try:
            seal = pool.ready()  # by then it has converted a JPEG and a PNG
            frames = pool.convert(_apng()).picture.frames
        except WebpdError as error:
            cure = f"{_PIP}, and raise WEBPD_WORKER_MEMORY if it is low"
            yield _TOPIC.fault("codecs.convert", f"pictures can't be converted: {error}", cure)
            return
        if frames == 2:
            yield _TOPIC.ok("codecs.convert", "a sealed process converts JPEG, PNG and animated PNG")
        else:
            yield _TOPIC.fault("codecs.convert", "animations come out still", f"{_PIP}: its libwebp lacks libwebpmux")
        yield from _sealed(seal)
        yield _memory(int(settings.worker_memory))


def _libraries() -> Finding:
    command = [sys.executable, "-I", "-c", _FEATURES]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=30, check=True)  # noqa: S603 - ours
        told = json.loads(done.stdout)
    except (OSError, subprocess.SubprocessError, ValueError) as error:
        last = (getattr(error, "stderr", None) or str(error)).strip().rpartition("\n")[2]
        return _TOPIC.fault("codecs.libraries", f"Pillow can't be loaded: {last}", _PIP)
    if lacking := [name for name in ("webp", "jpg", "zlib", "littlecms2") if told[name] is None]:
        return _TOPIC.fault("codecs.libraries", f"Pillow was built without {', '.join(lacking)}", _PIP)
    return _TOPIC.ok(
        "codecs.libraries",
        f"Pillow {told['pillow']}, libwebp {told['webp']}, littlecms {told['littlecms2']} (colour profiles), "
        f"libjpeg-turbo {told['libjpeg_turbo'] or 'missing: JPEGs are slower'}",
    )


def _sealed(seal: Seal) -> Iterator[Finding]:
    if seal.seccomp:
        yield _TOPIC.ok("codecs.seccomp", "their system calls are filtered (seccomp)")
    else:
        yield _TOPIC.warning(
            "codecs.seccomp",
            "their system calls are not filtered: a picture that takes a process over has a way to the kernel",
            "`apt install libseccomp2`; in a container, allow seccomp()",
        )
    if seal.landlock:
        yield _TOPIC.ok(
            "codecs.landlock", f"they can open no file and no connection (Landlock, version {seal.landlock})"
        )
    else:
        yield _TOPIC.warning(
            "codecs.landlock",
            "there is no Landlock for them: only the filter of system calls keeps them from files",
            "Linux 5.13 or later with landlock among `cat /sys/kernel/security/lsm`; else boot with lsm=landlock,…; in "
            "a container, allow landlock_create_ruleset() and landlock_restrict_self()",
        )


def _memory(most: int) -> Finding:
    """Compare the limit that the kernel knows of the process with the one set."""
    limits = [Path(f"/proc/{pid}/limits").read_text("ascii") for pid in _children()]
    known = [int(found[1]) for text in limits if (found := re.search(r"^Max address space +(\d+)", text, re.MULTILINE))]
    if known and max(known) <= most:
        return _TOPIC.ok("codecs.memory", f"each gets {decimal(most)} of memory at most")
    return _TOPIC.fault(
        "codecs.memory",
        "the kernel does not limit their memory: one picture may take all there is",
        "look whether a security module forbids setrlimit (`journalctl -k`)",
    )


def _children() -> list[int]:
    tasks = Path("/proc/self/task").glob("*/children")
    return [int(pid) for task in tasks for pid in task.read_text("ascii").split()]


def _apng() -> bytes:
    """Return an animation of two frames, 8 × 8 grey pixels each (PNG Third Edition, section 11)."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return len(data).to_bytes(4, "big") + kind + data + zlib.crc32(kind + data).to_bytes(4, "big")

    def control(sequence: int) -> bytes:
        numbers = (sequence, 8, 8, 0, 0)
        return b"".join(number.to_bytes(4, "big") for number in numbers) + bytes((0, 10, 0, 100, 0, 0))

    def pixels(grey: int) -> bytes:
        return zlib.compress((b"\0" + bytes((grey,)) * 8) * 8)

    size = (8).to_bytes(4, "big")
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        (
            chunk(b"IHDR", size + size + bytes((8, 0, 0, 0, 0))),
            chunk(b"acTL", (2).to_bytes(4, "big") + bytes(4)),
            chunk(b"fcTL", control(0)),
            chunk(b"IDAT", pixels(40)),
            chunk(b"fcTL", control(1)),
            chunk(b"fdAT", (2).to_bytes(4, "big") + pixels(200)),
            chunk(b"IEND", b""),
        )
    )
