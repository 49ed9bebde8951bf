"""An event loop whose clock leaps: hours of waiting pass at once, and to the exact second."""

import asyncio
import selectors


class VirtualClock(asyncio.SelectorEventLoop):
    """Time stands still while there is something to do, and leaps to the next timer when there is not."""

    def __init__(self) -> None:
        self._leaps = _Leaps()
        super().__init__(self._leaps)

    def time(self) -> float:
        return self._leaps.now

    @property
    def turns(self) -> int:
        """How often the loop has looked for something to do."""
        return self._leaps.turns


class _Leaps(selectors.DefaultSelector):
    now = 1000.0
    turns = 0

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        self.turns += 1
        if timeout is None:  # no timer runs: only another thread can bring something to do
            events = super().select(10.0)
            assert events, "everybody waits, and nothing will ever happen"
            return events
        events = super().select(0)
        if not events:
            self.now += timeout
        return events
