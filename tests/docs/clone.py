"""A fresh clone for the commands of the documents, run word for word, with files and a network of its own.

What is written below ``OWN`` goes to a tmpfs over the real folders, and is gone with it; 127.0.0.1 is its
own, so every port is free. Needs root, as CI has it.
"""

import contextlib
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

from tests.lab import wait_for

CHECKOUT = Path(__file__).parents[2]
OWN = ("/etc", "/opt", "/run", "/srv", "/usr/local", "/var")

_HOLDER = """
import fcntl, os, socket, struct, subprocess, sys, time
folder, *own = sys.argv[1:]
subprocess.run(["mount", "-t", "tmpfs", "tmpfs", folder], check=True)
for number, path in enumerate(own):
    upper, work = f"{folder}/{number}", f"{folder}/{number}.work"
    os.mkdir(upper)
    os.mkdir(work)
    options = f"lowerdir={path},upperdir={upper},workdir={work}"
    subprocess.run(["mount", "-t", "overlay", "overlay", "-o", options, path], check=True)
with socket.socket() as any_socket:  # the loopback interface is down in a new network: netdevice(7)
    fcntl.ioctl(any_socket, 0x8914, struct.pack("16sh22x", b"lo", 0x1 | 0x40))  # SIOCSIFFLAGS, IFF_UP | IFF_RUNNING
print("ready", flush=True)
sys.stdin.read()
"""


class Clone:
    """``checkout`` is what a clone of the project would be, with ``.venv`` installed as ``make`` would have it."""

    def __init__(self, folder: Path) -> None:
        self.checkout = folder / "webpd"
        own = folder / "own"
        own.mkdir()
        command = ["unshare", "--mount", "--net", "--propagation", "private", sys.executable, "-c", _HOLDER, str(own)]
        self._holder = subprocess.Popen(
            [*command, *(path for path in OWN if os.path.isdir(path))],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert self._holder.stdout is not None
        assert self._holder.stdout.readline() == "ready\n"
        _clone(self.checkout)
        self.run('ln -s "$PWD/.venv/bin/webpd" /usr/local/bin/webpd')  # where the script puts the program

    def run(self, command: str) -> str:
        """Run the command in the checkout; return what it said. It must succeed."""
        done = subprocess.run(
            self._inside(command),
            env=_environment(),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=120,
            check=False,
        )
        assert done.returncode == 0, f"{command}: exit code {done.returncode}\n{done.stdout}"
        return done.stdout

    def run_until(self, command: str, done: Callable[[], object]) -> str:
        """Run a command that goes on for ever; press Ctrl-C when it is done, and return what it said."""
        process = subprocess.Popen(
            self._inside(command),
            env=_environment(),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )
        try:
            wait_for(lambda: process.poll() is not None or done(), command, 120)
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGINT)  # as a terminal does: to all of them
            said, _ = process.communicate(timeout=60)
        assert done(), f"{command}: it ended before that was so\n{said}"
        return said

    def path(self, absolute: str) -> Path:
        """Return where a file of it can be reached from outside."""
        return Path(f"/proc/{self._holder.pid}/root{absolute}")

    def close(self) -> None:
        self._holder.communicate()  # its input ends, and so does it

    def _inside(self, command: str) -> list[str]:
        enter = ["nsenter", "--target", str(self._holder.pid), "--mount", "--net", f"--wd={self.checkout}"]
        return [*enter, "bash", "-euo", "pipefail", "-c", command]


@contextlib.contextmanager
def cloned(folder: Path) -> Iterator[Clone]:
    """Have a clone, and let it go."""
    one = Clone(folder)
    try:
        yield one
    finally:
        one.close()


def _environment() -> dict[str, str]:
    return {name: value for name, value in os.environ.items() if not name.startswith(("WEBPD_", "MAKE", "MFLAGS"))}


def _clone(target: Path) -> None:
    """Copy what git knows, and stand in for the one slow step: .venv is this environment, found up to date."""
    listed = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    try:
        output = subprocess.run(listed, cwd=CHECKOUT, stdout=subprocess.PIPE, check=True).stdout
        names = [name for name in os.fsdecode(output).split("\0") if name and (CHECKOUT / name).is_file()]
    except (OSError, subprocess.CalledProcessError):  # an unpacked archive
        names = [str(path.relative_to(CHECKOUT)) for top in ("src", "tools", "deploy", "docs") for path in _below(top)]
        names += [path.name for path in CHECKOUT.iterdir() if path.is_file()]
    for name in names:
        (target / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(CHECKOUT / name, target / name)
    venv = target / ".venv"
    venv.mkdir()
    for name in ("bin", "lib", "pyvenv.cfg"):
        (venv / name).symlink_to(Path(sys.prefix) / name)
    for extra in ("run", "sample", "test", "check"):
        (venv / f".installed-{extra}").touch()


def _below(top: str) -> Iterator[Path]:
    return (path for path in (CHECKOUT / top).rglob("*") if path.is_file() and "__pycache__" not in path.parts)
