"""How far a pass has come: a live line on a terminal, now and then a plain one elsewhere."""

import contextlib
import sys
import threading
from collections.abc import Callable, Iterator

from rich.console import Console
from rich.filesize import decimal
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table

from webpd.summary import Summary

_PLAIN_INTERVAL = 10.0  # seconds


class Total:
    """How much there is to do, counted aside by a walk of its own; None until it is known."""

    def __init__(self, counts: Callable[[], Iterator[int]]) -> None:
        self.value: int | None = None
        self._counts = counts
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._count, name="count", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        self._stopped.set()

    def _count(self) -> None:
        seen = 0
        with contextlib.suppress(Exception):  # whatever is wrong with the tree, the pass itself tells of it
            for count in self._counts():
                if self._stopped.is_set():
                    return
                seen = count
            self.value = seen


@contextlib.contextmanager
def shown(summary: Summary, counts: Callable[[], Iterator[int]]) -> Iterator[None]:
    """Show on standard error how the summary grows while the body runs."""
    console = Console(stderr=True)
    if console.is_terminal:
        total = Total(counts)
        try:
            with Live(console=console, get_renderable=lambda: _live(summary, total.value), transient=True):
                yield
        finally:
            total.stop()
    else:
        ended = threading.Event()
        thread = threading.Thread(target=_plain, args=(summary, ended), name="progress", daemon=True)
        thread.start()
        try:
            yield
        finally:
            ended.set()
            thread.join()


def _live(summary: Summary, total: int | None) -> Table:
    done = summary.worked
    rate = done / max(summary.seconds, 1e-9)
    left = f"{_duration((total - done) / rate)} left" if total is not None and rate > 0 else "counting"
    grid = Table.grid(padding=(0, 2))
    grid.add_row(
        ProgressBar(total=total, completed=done, width=30, pulse=total is None),
        f"{done:,}/{total:,}" if total is not None else f"{done:,}",
        f"{rate:.1f} images/s",
        f"{decimal(max(0, summary.saved_bytes))} saved",
        left,
    )
    return grid


def _plain(summary: Summary, ended: threading.Event) -> None:
    while not ended.wait(_PLAIN_INTERVAL):
        rate = summary.worked / summary.seconds
        saved = decimal(max(0, summary.saved_bytes))
        print(f"{summary.done:,} looked at, {rate:.1f} images/s, {saved} saved", file=sys.stderr, flush=True)


def _duration(seconds: float) -> str:
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{seconds:02}" if hours else f"{minutes}:{seconds:02}"
