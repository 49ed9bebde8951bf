"""Words to systemd, where it started us: sd_notify(3), which is one datagram."""

import asyncio
import contextlib
import os
import socket


def notify(state: str) -> None:
    """Send a state such as ``READY=1``; nothing where nobody asked for it, or listens any more."""
    address = os.environ.get("NOTIFY_SOCKET")
    if not address:
        return
    channel = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC)
    with channel, contextlib.suppress(OSError):
        channel.sendto(state.encode(), "\0" + address[1:] if address.startswith("@") else address)


def watchdog_interval() -> float | None:
    """Return how often systemd wants to hear ``WATCHDOG=1``, in seconds: half of its patience; None for never."""
    microseconds = os.environ.get("WATCHDOG_USEC", "")
    mine = os.environ.get("WATCHDOG_PID", str(os.getpid())) == str(os.getpid())
    return int(microseconds) / 2_000_000 if mine and microseconds.isdecimal() else None


async def beat() -> None:
    """Tell systemd that the loop turns, as often as it wants to hear that; until cancelled, or at once for never."""
    interval = watchdog_interval()
    while interval:
        notify("WATCHDOG=1")
        await asyncio.sleep(interval)
