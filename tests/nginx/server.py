"""A real nginx (Debian's) in a folder of its own, on a free port, with the configuration that webpd prints."""

import contextlib
import http.client
import os
import shutil
import signal
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from email.message import Message
from pathlib import Path
from types import TracebackType

from tests.lab import free_port, wait_for
from webpd.nginx.configuration import http_part, server_part
from webpd.settings import load

NGINX = shutil.which("nginx", path=f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin") or "/usr/sbin/nginx"

_CONFIGURATION = """
{main}
daemon off;
worker_processes 1;
pid {folder}/nginx.pid;
error_log {folder}/error.log info;
events {{ worker_connections 256; }}
http {{
    include /etc/nginx/mime.types;
    default_type application/octet-stream;
    access_log {folder}/access.log;
    client_body_temp_path {folder}/tmp;
    proxy_temp_path {folder}/tmp;
    fastcgi_temp_path {folder}/tmp;
    uwsgi_temp_path {folder}/tmp;
    scgi_temp_path {folder}/tmp;
{http}
    server {{
        listen 127.0.0.1:{port};
        root {folder}/site;
{server}
    }}
}}
"""


@dataclass(frozen=True)
class Answer:
    """What a client got."""

    status: int
    headers: Message
    body: bytes

    @property
    def type(self) -> str | None:
        return self.headers["Content-Type"]


class Nginx:
    """A server whose ``http`` and ``server`` blocks, and the top, hold these parts. As a context manager it runs.

    What it writes is below ``folder``: ``error.log``, ``access.log``; ``site`` is the server's own root, empty.
    """

    def __init__(self, folder: Path, http: str = "", server: str = "", main: str = "") -> None:
        self.folder = folder
        self._main = main
        self.port = free_port()
        self._process: subprocess.Popen[bytes] | None = None
        (folder / "site").mkdir(parents=True, exist_ok=True)
        self.configure(http, server)

    def configure(self, http: str, server: str) -> None:
        """Write the configuration; a server that runs is to be told to ``reload``."""
        text = _CONFIGURATION.format(
            main=self._main + ("user root;" if os.geteuid() == 0 else ""),  # folders of tests are closed to others
            folder=self.folder,
            http=http,
            port=self.port,
            server=server,
        )
        self._file.write_text(text, "utf-8")

    def check(self) -> str:
        """Return what ``nginx -t`` has to complain of."""
        done = subprocess.run((NGINX, "-t", "-q", *self._where), capture_output=True, text=True, check=False)
        return done.stderr + done.stdout

    def start(self) -> None:
        """Start it and wait until it listens. Raises ``RuntimeError`` with its words where it does not."""
        with (self.folder / "output").open("ab") as output:
            command = (NGINX, *self._where)
            process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=output, stderr=output)
        self._process = process
        wait_for(lambda: process.poll() is not None or self._listens(), "nginx listens")
        if process.poll() is not None:
            raise RuntimeError((self.folder / "output").read_text("utf-8", "replace")[-2000:])

    def reload(self) -> None:
        """Let it take its configuration anew, and wait until new workers answer."""
        before = self.errors.count("start worker process ")
        os.kill(self.pid, signal.SIGHUP)
        wait_for(lambda: self.errors.count("start worker process ") > before, "nginx has new workers")

    def stop(self) -> None:
        """End it at once, if it runs."""
        if self._process is not None:
            self._process.terminate()
            self._process.wait(30)
            self._process = None

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def errors(self) -> str:
        """Its error log, from level info on."""
        return (self.folder / "error.log").read_text("utf-8", "replace")

    def ask(self, path: str, method: str = "GET", **headers: str) -> Answer:
        """Ask for the path (encoded); ``if_none_match="…"`` is a header. Sends none of its own but Host."""
        return self.ask_with(path, {name.replace("_", "-"): value for name, value in headers.items()}, method)

    def ask_with(self, path: str, headers: Mapping[str, str], method: str = "GET") -> Answer:
        """The same with the headers as they are."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=30)
        try:
            connection.putrequest(method, path, skip_accept_encoding=True)
            for name, value in headers.items():
                connection.putheader(name, value)
            connection.endheaders()
            answer = connection.getresponse()
            return Answer(answer.status, answer.headers, answer.read())
        finally:
            connection.close()

    def __enter__(self) -> "Nginx":
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    @property
    def _file(self) -> Path:
        return self.folder / "nginx.conf"

    @property
    def _where(self) -> tuple[str, ...]:
        return "-p", str(self.folder), "-c", str(self._file), "-e", str(self.folder / "error.log")

    def _listens(self) -> bool:
        with contextlib.suppress(OSError):
            self.ask("/")
            return True
        return False


def printed(*roots: Path, **environment: str) -> tuple[str, str]:
    """Return what ``webpd nginx`` prints for http {} and for server {}; requests of images are not logged there."""
    settings = load({}, environment).settings
    socket = settings.hint_socket
    places = [str(root) for root in roots] or settings.roots
    return http_part(socket=socket), server_part(settings, places, socket=socket, access_log=None)
