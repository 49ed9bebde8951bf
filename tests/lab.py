"""A real SSHFS mount on this machine: its own sshd on 127.0.0.1, own keys, a chosen round trip, faults on demand.

``LAB/origin`` is the folder on the "other host", ``LAB/mnt`` the mount; what is written into the origin sends no events
to who watches the mount. Needs Debian's openssh-server, sshfs and fuse3, and ``/dev/fuse``.
"""

import contextlib
import getpass
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

DELAY = Path(__file__).parent / "delay.py"
SFTP_SERVER = "/usr/lib/openssh/sftp-server"  # Debian's openssh-sftp-server

# What OpenSSH's sftp-server logs of each request at level DEBUG3; lines of its answers begin with "sent".
_REQUEST = re.compile(r"^debug\d: request \d+: (?!sent )([a-z-]+)", re.MULTILINE)


def wait_for(condition: Callable[[], object], what: str, seconds: float = 30) -> None:
    """Wait until the condition holds. Raises ``TimeoutError`` that says what was waited for."""
    give_up = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > give_up:
            raise TimeoutError(f"waited {seconds:g} s in vain: {what}")
        time.sleep(0.02)


@contextlib.contextmanager
def repeatedly(seconds: float, work: Callable[[], object]) -> Iterator[None]:
    """Do the work in a thread, every so many seconds, until the block ends."""
    ended = threading.Event()

    def repeat() -> None:
        while not ended.wait(seconds):
            work()

    thread = threading.Thread(target=repeat)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()


_given: list[socket.socket] = []


def free_port() -> int:
    """Return a port of 127.0.0.1 that nobody listens on and that no other process of the tests is given."""
    while True:
        with socket.socket() as one:
            one.bind(("127.0.0.1", 0))
            port = int(one.getsockname()[1])
        mark = socket.socket(socket.AF_UNIX)
        _given.append(mark)  # for as long as this process lives
        with contextlib.suppress(OSError):
            mark.bind(f"\0webpd-test-port-{port}")
            return port


def family(pid: int) -> set[int]:
    """Return this process and all that it, and these in turn, have started."""
    found = {pid}
    for task in Path(f"/proc/{pid}/task").glob("*/children"):
        with contextlib.suppress(OSError):
            for child in task.read_text("ascii").split():
                found |= family(int(child))
    return found


class SshfsLab:
    """The laboratory; ``sshfs_lab`` makes one and cleans up after it.

    ``rtt`` is the round trip in seconds. ``options`` go to ``sshfs -o``, those of ssh among them. With ``count``
    the SFTP server logs its requests, and ``calls`` counts them.
    """

    def __init__(self, folder: Path, rtt: float, options: Sequence[str], count: bool) -> None:
        self.origin = folder / "origin"
        self.mnt = folder / "mnt"
        self._ssh = folder / "ssh"
        self._rtt = rtt
        self._options = options
        self._log = self._ssh / "sftp.log"
        self._port = free_port()
        self._sshd: subprocess.Popen[bytes] | None = None
        self._sshfs: subprocess.Popen[bytes] | None = None
        for path in (self.origin, self.mnt, self._ssh):
            path.mkdir(parents=True, exist_ok=True)
        self._write_configuration(count)

    def start_sshd(self) -> None:
        """Start the server again, on the same port."""
        if os.geteuid() == 0:
            os.makedirs("/run/sshd", mode=0o755, exist_ok=True)  # sshd wants it; systemd would have made it
        sshd = shutil.which("sshd", path=f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin") or "/usr/sbin/sshd"
        log = str(self._ssh / "sshd.log")
        self._sshd = subprocess.Popen([sshd, "-D", "-f", str(self._ssh / "sshd_config"), "-E", log])
        wait_for(self._listens, f"sshd listens (see {log})")

    def kill_sshd(self) -> None:
        """End the server and all its sessions at once."""
        if self._sshd is not None:
            for pid in family(self._sshd.pid):
                _send(pid, signal.SIGKILL)
            self._sshd.wait()
            self._sshd = None

    def stop(self) -> None:
        """Make the server answer nobody any more, without a word: what a lost link looks like."""
        assert self._sshd is not None
        for pid in family(self._sshd.pid):
            _send(pid, signal.SIGSTOP)

    def cont(self) -> None:
        """Let it go on."""
        assert self._sshd is not None
        for pid in family(self._sshd.pid):
            _send(pid, signal.SIGCONT)

    def mount(self) -> None:
        """Mount the origin; what is left of a mount before is ended and taken away."""
        self.kill_sshfs()
        while self.mounted:
            self.unmount()
        options = ",".join(("reconnect", *self._options))
        command = ["sshfs", "-f", "-F", str(self._ssh / "config"), "-o", options, f"lab:{self.origin}", str(self.mnt)]
        with open(self._ssh / "sshfs.log", "ab") as log:
            self._sshfs = subprocess.Popen(command, start_new_session=True, stderr=log)
        sshfs = self._sshfs
        wait_for(lambda: sshfs.poll() is not None or self.mounted, "sshfs mounts")
        with contextlib.suppress(OSError):
            os.statvfs(self.mnt)  # sshfs mounts before it connects, and takes the mount away if it cannot
        if not self.mounted:
            raise RuntimeError(f"{self.mnt}: sshfs ended: {(self._ssh / 'sshfs.log').read_text()}")

    def unmount(self) -> None:
        """Take the mount away, in use or not: the empty folder below it shows. sshfs ends when nothing is open."""
        subprocess.run(["fusermount3", "-u", "-z", str(self.mnt)], check=True)

    def kill_sshfs(self) -> None:
        """End sshfs without unmounting: every call answers ENOTCONN."""
        if self._sshfs is not None:
            others = family(self._sshfs.pid) - {self._sshfs.pid}
            self._sshfs.kill()  # before its ssh: while it connects, it unmounts when that one ends
            for pid in others:
                _send(pid, signal.SIGKILL)
            self._sshfs.wait()
            self._sshfs = None

    @property
    def mounted(self) -> bool:
        """Whether something is mounted there, alive or not."""
        points = [line.split()[4] for line in Path("/proc/self/mountinfo").read_text().splitlines()]
        return str(self.mnt) in points

    def calls(self) -> Counter[str]:
        """Return how many requests of each kind the server has had since the start; a read or write is 32 or 64 KiB."""
        return Counter(_REQUEST.findall(self._log.read_text("utf-8", "replace")))

    def close(self) -> None:
        """End all and unmount."""
        self.kill_sshfs()
        while self.mounted:
            self.unmount()
        self.kill_sshd()

    def _listens(self) -> bool:
        assert self._sshd is not None
        assert self._sshd.poll() is None, (self._ssh / "sshd.log").read_text()
        try:
            socket.create_connection(("127.0.0.1", self._port), 1).close()
        except OSError:
            return False
        return True

    def _write_configuration(self, count: bool) -> None:
        ssh = self._ssh
        for key in ("host", "user"):
            if not (ssh / key).exists():
                subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(ssh / key)], check=True)
        shutil.copyfile(ssh / "user.pub", ssh / "authorized_keys")
        server = ssh / "sftp-server"
        server.write_text(f"#!/bin/sh\nexec {SFTP_SERVER} -e -l DEBUG3 2>>{self._log}\n")
        server.chmod(0o755)
        self._log.touch()
        (ssh / "sshd_config").write_text(
            f"Port {self._port}\nListenAddress 127.0.0.1\n"
            f"HostKey {ssh}/host\nAuthorizedKeysFile {ssh}/authorized_keys\n"
            "StrictModes no\nUsePAM no\nPasswordAuthentication no\nPermitRootLogin prohibit-password\nPidFile none\n"
            f"Subsystem sftp {server if count else 'internal-sftp'}\n"
        )
        proxy = f"ProxyCommand {sys.executable} -I -S {DELAY} %p {self._rtt / 2}\n" if self._rtt else ""
        (ssh / "config").write_text(
            f"Host lab\nHostName 127.0.0.1\nPort {self._port}\nUser {getpass.getuser()}\nIdentityFile {ssh}/user\n"
            "IdentitiesOnly yes\nStrictHostKeyChecking no\nUserKnownHostsFile /dev/null\nLogLevel ERROR\n" + proxy
        )


def _send(pid: int, number: signal.Signals) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, number)


@contextlib.contextmanager
def sshfs_lab(folder: Path, rtt: float = 0, options: Sequence[str] = (), *, count: bool = False) -> Iterator[SshfsLab]:
    """Set up the laboratory in ``folder``, mounted, and clear it away at the end."""
    lab = SshfsLab(folder, rtt, options, count)
    try:
        lab.start_sshd()
        lab.mount()
        yield lab
    finally:
        lab.close()
