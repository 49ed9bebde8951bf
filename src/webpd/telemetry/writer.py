"""Log lines written by a thread of their own: whoever logs waits for nobody.

Standard error may be a pipe that is not read: a stopped pager, a log daemon that hangs. Whoever wrote to it would then
stand still, and soon everybody who logs, the event loop among them.
"""

import contextlib
import logging
import os
import queue
import threading
import time

_MOST_LINES = 10_000
_LAST_WAIT = 1.0
"""Seconds that lines have to get out in the end."""
_CLOSED = None


class LineWriter(logging.Handler):
    """Writes to the file descriptor in order; where more lines wait than ``most``, new ones are lost, and counted."""

    def __init__(self, descriptor: int, most: int = _MOST_LINES) -> None:
        super().__init__()
        self._descriptor = descriptor
        self._lines: queue.Queue[str | None] = queue.Queue(most)
        self._lost = 0
        self._closing = False
        self._thread = threading.Thread(target=self._write_all, name="log", daemon=True)
        self._thread.start()

    def emit(self, record: logging.LogRecord) -> None:
        try:
            self._lines.put_nowait(self._line(record))
        except queue.Full:
            self._lost += 1  # under the handler's lock

    def close(self) -> None:
        """Write what waits, if that is soon done."""
        super().close()
        self._closing = True
        give_up = time.monotonic() + _LAST_WAIT
        with contextlib.suppress(queue.Full):  # then what waits is the last
            self._lines.put(_CLOSED, timeout=_LAST_WAIT)
        self._thread.join(max(0.0, give_up - time.monotonic()))

    def _line(self, record: logging.LogRecord) -> str:
        try:
            return self.format(record)
        except Exception as error:  # logging's own way would write to standard error from here
            return f"a log line of {record.name} at {record.pathname}:{record.lineno} can't be written: {error!r}"

    def _write_all(self) -> None:
        while (line := self._lines.get()) is not _CLOSED:
            self._write(line)
            if self._lost and self._lines.empty():
                self._write(self._tell_lost())
            if self._closing and self._lines.empty():
                return

    def _tell_lost(self) -> str:
        with self.lock or threading.RLock():
            lost, self._lost = self._lost, 0
        text = f"{lost} log lines were lost before this one: what reads standard error was too slow, or stood still"
        return self.format(logging.LogRecord(__name__, logging.WARNING, __file__, 0, text, None, None))

    def _write(self, line: str) -> None:
        rest = f"{line}\n".encode(errors="backslashreplace")
        try:
            while rest:
                rest = rest[os.write(self._descriptor, rest) :]
        except OSError:  # closed, or its disk full: there is no other place to tell it
            return
