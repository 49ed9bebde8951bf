"""A service whose standard error nobody reads."""

import fcntl
import subprocess

from tests.service.driver import Service


class Mute(Service):
    """Its log goes into a pipe that holds a page: some 20 lines."""

    def _read(self, process: subprocess.Popen[str]) -> None:
        assert process.stderr is not None
        with process.stderr:
            fcntl.fcntl(process.stderr, fcntl.F_SETPIPE_SZ, 4096)
            process.wait()
