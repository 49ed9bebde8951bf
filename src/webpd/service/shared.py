"""What all roots of the running service have in common."""

import asyncio
import hashlib
import socket
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import structlog

from webpd import __version__
from webpd.convert.pool import CodecPool
from webpd.convert.result import REVISION
from webpd.ledger.history import History
from webpd.ledger.port import Ledger
from webpd.queue.port import Inlet, Outlet
from webpd.settings import Settings
from webpd.telemetry.metrics import Metrics
from webpd.tree.sidecar import fingerprint_of

_log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Finding:
    """What finding work takes: where to offer it, what is remembered, and where to note what came of it."""

    queue: Inlet
    ledger: Ledger
    histories: Sequence[History]


@dataclass(frozen=True, slots=True)
class Working:
    """What doing work takes: where to take it from, and the codec processes."""

    queue: Outlet
    pool: CodecPool


@dataclass(frozen=True, slots=True)
class Shared:
    """What a root is given: the means to find work, to do it, or both."""

    settings: Settings
    metrics: Metrics
    finding: Finding | None
    working: Working | None

    @property
    def host(self) -> str:
        return host_name(self.settings)

    @property
    def fingerprint(self) -> bytes:
        return fingerprint(self.settings)


def host_name(settings: Settings) -> str:
    """Return the name of this host, by which others know it."""
    return settings.host_name or socket.gethostname()


def fingerprint(settings: Settings) -> bytes:
    """Return 8 bytes that stand for the version, and for every setting that decides what becomes of an image."""
    limits = (settings.max_pixels, int(settings.max_source), int(settings.worker_memory), settings.job_timeout)
    text = f"{__version__} {fingerprint_of(settings.encoding, REVISION).hex()} {limits}"
    return hashlib.blake2b(text.encode(), digest_size=8).digest()


def tell_fault(task: asyncio.Task[Any]) -> None:
    """Let the log tell when a task that should go on until it is cancelled has ended by a fault of ours."""
    if not task.cancelled() and (error := task.exception()):
        _log.error("a part of the service ended, please report it", detail=repr(error), exc_info=error)
