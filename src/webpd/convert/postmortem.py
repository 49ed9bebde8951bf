"""What a codec process died of."""

import signal
from typing import TYPE_CHECKING

from webpd.convert.frames import EXIT_MEMORY

if TYPE_CHECKING:
    import subprocess


def cause_of_death(process: "subprocess.Popen[bytes]") -> str:
    """Wait for the end of the process, and return in words how it ended."""
    status = process.wait()
    if status == EXIT_MEMORY:
        return "the codec process ran out of memory"
    if status >= 0:
        return f"the codec process ended with status {status}"
    name = signal.Signals(-status).name
    return f"the codec process was ended by {name}" + (", perhaps for want of memory" if name == "SIGKILL" else "")
