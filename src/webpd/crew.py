"""Threads that work on what one thread hands them: bounded, and stopped in order."""

import contextlib
import queue
import threading
import time
from collections.abc import Callable
from typing import Generic, TypeVar

T = TypeVar("T")


class Crew(Generic[T]):
    """``threads`` daemon threads that call ``work`` with each item put in.

    Twice as many items wait as there are threads, so that none is idle while the next are looked for. The first
    exception that ``work`` raises ends the crew: what waits is dropped, and ``put`` and ``finish`` raise it.
    """

    def __init__(self, work: Callable[[T], None], threads: int, name: str) -> None:
        self._work = work
        self._items: queue.Queue[T | None] = queue.Queue(2 * threads)
        self._dropping = threading.Event()
        self._error: BaseException | None = None
        self._threads = [threading.Thread(target=self._run, name=f"{name}-{n}", daemon=True) for n in range(threads)]
        for thread in self._threads:
            thread.start()

    def put(self, item: T) -> None:
        """Hand in an item; wait for room. Raises what a thread raised."""
        self._items.put(item)
        self._raise()

    def drop(self) -> None:
        """Forget what waits; what is being worked on goes on."""
        self._dropping.set()

    def finish(self, seconds: float | None = None) -> bool:
        """Take no more, wait until all is done, or that long; tell whether it is. Raises what a thread raised."""
        deadline = None if seconds is None else time.monotonic() + seconds
        for _ in self._threads:
            with contextlib.suppress(queue.Full):  # they hang, every one: joining them will tell
                self._items.put(None, timeout=_left(deadline))
        for thread in self._threads:
            thread.join(_left(deadline))
        self._raise()
        return not any(thread.is_alive() for thread in self._threads)

    def _run(self) -> None:
        while (item := self._items.get()) is not None:
            if self._dropping.is_set():
                continue
            try:
                self._work(item)
            except BaseException as error:  # whatever it is, put() and finish() raise it
                self._error = self._error or error
                self._dropping.set()

    def _raise(self) -> None:
        if self._error is not None:
            raise self._error


def _left(deadline: float | None) -> float | None:
    return None if deadline is None else max(0.0, deadline - time.monotonic())
