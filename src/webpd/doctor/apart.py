"""Checks in processes of their own: what touches a mount that hangs can't be ended, and must not hold anybody else."""

import contextlib
import json
import os
import select
import signal
import time
import traceback
from collections.abc import Callable, Generator, Iterator
from dataclasses import asdict
from types import FrameType
from typing import NoReturn, cast

from webpd.doctor.finding import Finding, Verdict

_CHUNK = 1 << 16


class UnfinishedError(Exception):
    """The checks did not come to their end; says why."""


class LateError(UnfinishedError):
    """They were not done in time."""


class Apart:
    """Runs ``look``, which returns a generator, in a process of its own, from now on.

    To be made while this process has one thread.

    What is not done at the deadline is told to end; it does so, and clears away what it made, as soon as it can.
    """

    def __init__(self, look: Callable[[], Iterator[Finding]]) -> None:
        self._begun = time.monotonic()
        self._reading, writing = os.pipe()
        self._pid = os.fork()
        if self._pid == 0:
            _serve(look, writing)
        os.close(writing)

    def findings(self, seconds: float) -> Iterator[Finding]:
        """Yield the findings as they come, until so many seconds after the start.

        Raises ``LateError``, ``UnfinishedError``.
        """
        try:
            for line in self._lines(self._begun + seconds):
                told = json.loads(line)
                if told is None:
                    return
                if isinstance(told, str):
                    raise UnfinishedError(told)
                yield Finding(**{**told, "verdict": Verdict(told["verdict"])})
            raise UnfinishedError("its process ended before it was done")
        except TimeoutError as error:
            raise LateError(f"no answer within {seconds:g} s") from error
        finally:
            self.close()

    def close(self) -> None:
        """Tell the process to end, if it has not; it is not waited for. May be called again."""
        if self._reading == -1:
            return
        os.close(self._reading)
        self._reading = -1
        with contextlib.suppress(ProcessLookupError, ChildProcessError):
            os.kill(self._pid, signal.SIGTERM)
            os.waitpid(self._pid, os.WNOHANG)

    def _lines(self, deadline: float) -> Iterator[bytes]:
        buffer = b""
        while True:
            ready, _, _ = select.select([self._reading], [], [], max(0.0, deadline - time.monotonic()))
            if not ready:
                raise TimeoutError
            data = os.read(self._reading, _CHUNK)
            if not data:
                return
            *lines, buffer = (buffer + data).split(b"\n")
            yield from lines


def _serve(look: Callable[[], Iterator[Finding]], writing: int) -> NoReturn:
    def end(number: int, frame: FrameType | None) -> NoReturn:  # noqa: ARG001 - the signature is Python's
        raise SystemExit

    try:
        signal.signal(signal.SIGTERM, end)
        os.setsid()  # Ctrl-C is for the parent, which passes it on
        null = os.open(os.devnull, os.O_RDWR)  # whoever reads what the parent prints is not to wait for this one
        for descriptor in (0, 1, 2):
            os.dup2(null, descriptor)
        with open(writing, "w", encoding="ascii") as told:
            try:
                # Closed whatever happens: it may have files to clear away.
                with contextlib.closing(cast("Generator[Finding, None, None]", look())) as findings:
                    for finding in findings:
                        told.write(json.dumps(asdict(finding)) + "\n")
                        told.flush()
                told.write("null\n")
            except Exception:  # the parent tells of it
                told.write(json.dumps(f"unexpected error, please report it: {traceback.format_exc(limit=-3)}") + "\n")
    except BaseException:  # noqa: S110 - told to end, or nobody listens any more
        pass
    finally:
        os._exit(0)
