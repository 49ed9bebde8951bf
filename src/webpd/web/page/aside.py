"""Calls that may hang, away from the event loop."""

import asyncio
import threading
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")


class Aside:
    """Up to ``most`` calls at once, each in a daemon thread: what hangs keeps neither the loop nor the process.

    A thread that hangs keeps its place until it comes back, so that they never become more.
    """

    def __init__(self, most: int) -> None:
        self._places = asyncio.Semaphore(most)

    async def call(self, work: Callable[[], T], within: float) -> T:
        """Return what the call returns, or raise what it raises. Raises ``TimeoutError`` after that many seconds."""
        loop = asyncio.get_running_loop()
        future: asyncio.Future[T] = loop.create_future()

        def ended(result: T | None, error: BaseException | None) -> None:
            self._places.release()
            if future.done():
                return
            if error is not None:
                future.set_exception(error)
            else:
                future.set_result(result)  # type: ignore[arg-type] # without an error it is what the call returned

        def run() -> None:
            result, error = None, None
            try:
                result = work()
            except BaseException as raised:  # whatever it is, the caller gets it
                error = raised
            try:
                loop.call_soon_threadsafe(ended, result, error)
            except RuntimeError:
                return  # the loop has ended, and so has who asked

        async with asyncio.timeout(within):
            await self._places.acquire()
            try:
                threading.Thread(target=run, name="page", daemon=True).start()
            except BaseException:
                self._places.release()
                raise
            return await future
