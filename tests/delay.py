"""Join standard input and output to 127.0.0.1:PORT and hold every byte back for DELAY seconds, in each direction.

An SSH ProxyCommand that makes a round trip of twice the delay: ``python tests/delay.py PORT DELAY``. Any number of
bytes may be under way, so the throughput stays what it was. Kernels of containers seldom have netem.
"""

import os
import queue
import socket
import sys
import threading
import time
from collections.abc import Callable

CHUNK = 1 << 16


def pump(read: Callable[[int], bytes], write: Callable[[bytes], object], delay: float) -> None:
    """Pass on what is read, each chunk when it is due; end the process with the stream."""
    held: queue.SimpleQueue[tuple[float, bytes]] = queue.SimpleQueue()

    def receive() -> None:
        data = b"x"
        while data:
            try:
                data = read(CHUNK)
            except OSError:
                data = b""
            held.put((time.monotonic() + delay, data))

    threading.Thread(target=receive, daemon=True).start()
    try:
        while True:
            due, data = held.get()
            time.sleep(max(0.0, due - time.monotonic()))
            if not data:
                break
            write(data)
    except OSError:
        pass  # who listened has gone, and so do we
    os._exit(0)


def write_all(data: bytes) -> None:
    """Write it all to standard output."""
    while data:
        data = data[os.write(1, data) :]


def main() -> None:
    port, delay = int(sys.argv[1]), float(sys.argv[2])
    remote = socket.create_connection(("127.0.0.1", port))
    remote.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    threading.Thread(target=pump, args=(lambda size: os.read(0, size), remote.sendall, delay), daemon=True).start()
    pump(remote.recv, write_all, delay)


if __name__ == "__main__":
    main()
