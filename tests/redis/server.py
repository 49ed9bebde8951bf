"""A real redis-server (Debian's), started with the very configuration that webpd ships, and faults on demand."""

import contextlib
import hashlib
import os
import shutil
import signal
import subprocess
from pathlib import Path
from types import TracebackType

from tests.lab import free_port, wait_for
from webpd.settings import RedisUrl

DEPLOY = Path(__file__).parents[2] / "deploy" / "redis"
PASSWORD = "the service's p@ss:word/1"  # noqa: S105 - of servers that live as long as a test
_ADMINISTRATOR = "administrator"


class RedisServer:
    """A server on a free port of 127.0.0.1 that keeps its data in ``folder``. As a context manager it runs within.

    ``configuration`` is ``redis.conf`` (the cache, which evicts) or ``queue.conf``, as they are: the port, the folder,
    the place of the ACL file and ``options`` (such as ``"--maxmemory", "20mb"``) come on the command line. The ACL file
    is the one shipped with the hash of ``PASSWORD`` filled in and an administrator added.
    """

    def __init__(self, folder: Path, configuration: str = "redis.conf", *options: str) -> None:
        self._folder = folder
        self._configuration = DEPLOY / configuration
        self._options = options
        self._port = free_port()
        self._process: subprocess.Popen[bytes] | None = None
        self._users = folder / "users.acl"
        folder.mkdir(parents=True, exist_ok=True)
        self.allow(PASSWORD)

    @property
    def url(self) -> RedisUrl:
        """Where the service finds it: its own user, with few rights."""
        return self.url_of("webpd", PASSWORD)

    @property
    def administrator(self) -> RedisUrl:
        """The same for a user who may do everything."""
        return self.url_of(_ADMINISTRATOR, PASSWORD)

    @property
    def address(self) -> tuple[str, int]:
        return "127.0.0.1", self._port

    @property
    def pid(self) -> int:
        assert self._process
        return self._process.pid

    def url_of(self, user: str, password: str) -> RedisUrl:
        """Return the URL for another user or password."""
        quoted = "".join(f"%{byte:02X}" for byte in password.encode())
        return RedisUrl(f"redis://{user}:{quoted}@127.0.0.1:{self._port}/0")

    def allow(self, password: str) -> None:
        """Write the ACL file with this password of the service's user; a server that runs is to be told ACL LOAD."""
        shipped = (DEPLOY / "users.acl").read_text("ascii")
        filled = shipped.replace("PUT-THE-SHA256-OF-THE-PASSWORD-HERE", _hash(password))
        self._users.write_text(f"{filled}user {_ADMINISTRATOR} on #{_hash(PASSWORD)} ~* &* +@all\n", "ascii")

    def start(self, *options: str) -> None:
        """Start it, with further options, and wait until it answers, if only that it is loading."""
        places = ("--port", str(self._port), "--dir", str(self._folder), "--aclfile", str(self._users))
        with (self._folder / "log").open("ab") as log:
            command = ("redis-server", str(self._configuration), *places, *self._options, *options)
            self._process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        wait_for(lambda: self._answers() or self._process is None or self._process.poll() is not None, "redis-server")
        if self._process.poll() is not None:
            raise RuntimeError(self.log[-2000:])

    def stop(self) -> None:
        """End it in order, if it runs."""
        self._end(signal.SIGTERM)

    def kill(self) -> None:
        """End it as a crash would."""
        self._end(signal.SIGKILL)

    def restart(self, *options: str, empty: bool = False) -> None:
        """Stop it and start it again, with its data or ``empty``."""
        self.stop()
        if empty:
            for kept in filter(Path.is_dir, self._folder.iterdir()):  # its log of what was written
                shutil.rmtree(kept)
        self.start(*options)

    def loaded(self) -> bool:
        """Tell whether it has read the data that it started with."""
        return self.info("persistence")["loading"] == "0"

    def freeze(self) -> None:
        """Let it hang: connections are still taken in, by the kernel, and nothing is answered."""
        os.kill(self.pid, signal.SIGSTOP)

    def thaw(self) -> None:
        os.kill(self.pid, signal.SIGCONT)

    def cli(self, *command: str) -> str:
        """Return what redis-cli prints for this command of the administrator."""
        options = ("-h", "127.0.0.1", "-p", str(self._port), "--user", _ADMINISTRATOR)
        done = subprocess.run(
            ("redis-cli", *options, *command),
            env=os.environ | {"REDISCLI_AUTH": PASSWORD},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="surrogateescape",
            check=True,
            timeout=60,
        )
        return done.stdout.rstrip("\n")

    def info(self, section: str) -> dict[str, str]:
        """Return what INFO tells of this section."""
        return dict(line.split(":", 1) for line in self.cli("INFO", section).splitlines() if ":" in line)

    @property
    def log(self) -> str:
        """What it has said so far."""
        return (self._folder / "log").read_text("utf-8", "replace")

    def __enter__(self) -> "RedisServer":
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.kill()

    def _answers(self) -> bool:
        with contextlib.suppress(subprocess.CalledProcessError):
            return self.cli("PING").startswith(("PONG", "LOADING"))
        return False

    def _end(self, number: signal.Signals) -> None:
        if self._process is None:
            return
        with contextlib.suppress(ProcessLookupError):
            os.kill(self._process.pid, number)
            os.kill(self._process.pid, signal.SIGCONT)
        self._process.wait(30)
        self._process = None


def _hash(password: str) -> str:
    return hashlib.sha256(password.encode()).hexdigest()
