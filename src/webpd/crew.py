"""Threads that work on what an iterator yields, and are stopped in order."""

import threading
import time
from collections.abc import Callable, Iterator
from typing import Generic, TypeVar

T = TypeVar("T")


class Crew(Generic[T]):
    """``threads`` daemon threads that call ``work`` with each of ``items``.

    Each thread takes the next item when it has room for it, so nothing is looked for before its time, and nothing waits
    in between. The first exception that ``items`` or ``work`` raises stops the crew, and ``finish`` raises it.
    """

    def __init__(self, work: Callable[[T], None], items: Iterator[T], threads: int, name: str) -> None:
        self._work = work
        self._items = items
        self._taking = threading.Lock()
        self._stopped = False
        self._error: BaseException | None = None
        # is_alive() will not do: to Python 3.11 and 3.12 a thread has ended when an interrupt comes while join() waits.
        self._ended = [threading.Event() for _ in range(threads)]
        self._threads = [
            threading.Thread(target=self._run, args=(ended,), name=f"{name}-{n}", daemon=True)
            for n, ended in enumerate(self._ended)
        ]

    def start(self) -> None:
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        """Take no more items; what is being worked on goes on."""
        self._stopped = True

    def finish(self, seconds: float | None = None) -> bool:
        """Wait until all is done, or that long; tell whether it is. Raises what a thread raised."""
        deadline = None if seconds is None else time.monotonic() + seconds
        begun = [ended for thread, ended in zip(self._threads, self._ended, strict=True) if thread.ident is not None]
        for ended in begun:
            ended.wait(None if deadline is None else max(0.0, deadline - time.monotonic()))
        if self._error is not None:
            raise self._error
        return all(ended.is_set() for ended in begun)

    def _run(self, ended: threading.Event) -> None:
        try:
            while not self._stopped:
                with self._taking:
                    item = None if self._stopped else next(self._items, None)
                if item is None:
                    return
                self._work(item)
        except BaseException as error:  # whatever it is, finish() raises it
            self._error = self._error or error
            self._stopped = True
        finally:
            ended.set()
