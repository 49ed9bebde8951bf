"""A machine of its own with a real systemd as its first process: a container over a copy-on-write view of a folder."""

import contextlib
import os
import signal
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from tests.conftest import Ended
from tests.lab import family, wait_for

# Nothing from the journal to the log-in screen starts but what the test starts.
_TARGET = "sysinit.target"
# What a container usually may not, and the service asks for, as it does on a whole machine.
_CALLS = ("landlock_create_ruleset", "landlock_add_rule", "landlock_restrict_self")
_SYSTEM = ("/etc", "/home", "/opt", "/srv", "/usr", "/var")


class Machine:
    """The machine; ``booted`` makes one and cleans up after it. ``root`` is its root folder as seen from outside."""

    def __init__(self, root: Path, nspawn: int, init: int) -> None:
        self.root = root
        self._nspawn = nspawn
        self._init = init

    def run(self, *command: str, network: bool = False, environment: Mapping[str, str] | None = None) -> Ended:
        """Run a command in it and return how it ended; with ``network`` it has this host's, else only the machine's."""
        enter = ("nsenter", f"--target={self._init}", "--mount", "--uts", "--ipc", "--pid", "--cgroup", "--root")
        done = subprocess.run(
            [*enter, *(() if network else ("--net",)), "env", "--chdir=/", *command],
            env={"PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"} | dict(environment or {}),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
        )
        return Ended(done.returncode, done.stdout, done.stderr)

    def ask(self, *command: str) -> str:
        """Run a command that must succeed, and return what it printed."""
        ended = self.run(*command)
        assert ended.code == 0, f"{command}: {ended.code}: {ended.out}{ended.err}"
        return ended.out.rstrip("\n")

    def files(self) -> dict[str, str]:
        """Return what the system's own folders hold, mounts left out: the kind of each by path."""
        listed = self.ask("find", *_SYSTEM, "-xdev", "-printf", r"%y%l %p\0")
        return {path: kind for kind, _, path in (line.partition(" ") for line in listed.split("\0") if line)}


@contextlib.contextmanager
def booted(folder: Path, base: str = "/", binds: Sequence[str] = ()) -> Iterator[Machine]:
    """Boot a machine whose root folder is a view of ``base``; what it writes goes below ``folder`` and is lost.

    ``binds`` are folders and devices of this host that it has at the same path. Needs root, and Debian's systemd and
    systemd-container.
    """
    upper, work, root = (folder / name for name in ("upper", "work", "root"))
    for path in (upper, work, root):
        path.mkdir(parents=True)
    layers = f"lowerdir={base},upperdir={upper},workdir={work}"
    subprocess.run(["mount", "-t", "overlay", "overlay", "-o", layers, str(root)], check=True)
    try:
        bare = ("--register=no", "--keep-unit", "--private-network", "--machine=webpd-test", "--resolv-conf=off")
        given = [f"--bind={path}" for path in binds]
        given.append(f"--system-call-filter={' '.join(_CALLS)}")
        with open(folder / "console.log", "wb") as console:
            nspawn = subprocess.Popen(
                [
                    "systemd-nspawn",
                    "--quiet",
                    "-D",
                    str(root),
                    *bare,
                    *given,
                    "--console=pipe",
                    "--boot",
                    "--",
                    f"--unit={_TARGET}",
                ],
                stdin=subprocess.DEVNULL,
                stdout=console,
                stderr=console,
            )
        try:
            yield _up(root, nspawn, folder / "console.log")
        finally:
            for pid in family(nspawn.pid) - {nspawn.pid}:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            nspawn.kill()
            nspawn.wait()
    finally:
        subprocess.run(["umount", "-l", str(root)], check=True)


def _up(root: Path, nspawn: "subprocess.Popen[bytes]", console: Path) -> Machine:
    machine: list[Machine] = []

    def answers() -> bool:
        assert nspawn.poll() is None, console.read_text("utf-8", "replace")
        children = sorted(family(nspawn.pid) - {nspawn.pid})
        if children and Path(f"/proc/{children[0]}/comm").read_text().strip() == "systemd":
            machine[:] = [Machine(root, nspawn.pid, children[0])]
            return machine[0].run("systemctl", "is-active", "--quiet", _TARGET).code == 0
        return False

    wait_for(answers, "systemd boots", 60)
    return machine[0]
