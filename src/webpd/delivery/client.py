"""One request as it is meant, and its answer: no header is added, nothing is tried again, nothing is kept."""

import contextlib
import http.client
import re
import socket
import ssl
import threading
import urllib.parse
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Final

from webpd.delivery.answer import Answer
from webpd.errors import UsageError, WebpdError
from webpd.printable import printable

BODY_LIMIT: Final = 64 << 20  # bytes; no thumbnail is near it
_HOPS = 5
_START = 1024  # bytes of a body that are kept
_CHUNK = 1 << 16
_REDIRECTS = {301, 302, 303, 307, 308}
_PORTS = {"http": 80, "https": 443}
# What may stand in a path or query as it is (RFC 3986, 3.3 and 3.4), and % for what is encoded already.
_AS_IT_IS = "/:@!$&'()*+,;=-._~%"


class AskingError(WebpdError):
    """No answer came, or none that can be used. ``cure`` says what to do."""

    def __init__(self, detail: str, cure: str) -> None:
        super().__init__(detail)
        self.cure = cure


@dataclass(frozen=True, slots=True)
class Target:
    """A URL in its parts, as they are sent: the host in ASCII, path and query percent-encoded."""

    scheme: str
    host: str
    port: int
    path: str
    query: str

    @property
    def authority(self) -> str:
        """The host, and the port where it is not the usual one."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return host if self.port == _PORTS[self.scheme] else f"{host}:{self.port}"

    @property
    def origin(self) -> str:
        return f"{self.scheme}://{self.authority}"

    @property
    def request(self) -> str:
        return f"{self.path}?{self.query}" if self.query else self.path

    @property
    def url(self) -> str:
        return self.origin + self.request

    def marked(self, mark: str) -> "Target":
        """Return the same with a parameter more in its query."""
        return replace(self, query=f"{self.query}&{mark}" if self.query else mark)


def target_of(url: str) -> Target:
    """Take a URL apart as browsers do. Raises ``UsageError``."""
    if re.search(r"[\0-\x1f\x7f]", url):
        raise UsageError(f"{url!r}: a URL has no control characters")
    try:
        parts = urllib.parse.urlsplit(url)
        name, port = parts.hostname or "", parts.port
        host = name if ":" in name else name.encode("idna").decode("ascii")
    except ValueError as error:  # UnicodeError is one
        raise UsageError(f"{printable(url)}: not a URL: {error}") from error
    if parts.scheme not in _PORTS or not host:
        raise UsageError(f"{printable(url)}: a URL begins with http:// or https:// and the name of a host")
    if parts.username is not None:
        raise UsageError("no user and password in a URL; `--header 'Authorization: Basic …'` sends them")
    path = urllib.parse.quote(parts.path or "/", safe=_AS_IT_IS, errors="surrogateescape")
    query = urllib.parse.quote(parts.query, safe=_AS_IT_IS + "?", errors="surrogateescape")
    return Target(parts.scheme, host, port or _PORTS[parts.scheme], path, query)


@contextlib.contextmanager
def _within(seconds: float, connected: socket.socket) -> Iterator[None]:
    """Break the connection off when the time is up: the time-out of a socket is for each call, this one is for all.

    Raises ``TimeoutError``, also where all seems well: an answer that ends where it was broken off may look whole.
    """
    late = threading.Event()

    def ring() -> None:
        late.set()
        with contextlib.suppress(OSError):  # that of TLS would tear down what another thread is reading from
            socket.socket.shutdown(connected, socket.SHUT_RDWR)

    timer = threading.Timer(seconds, ring)
    timer.daemon = True
    timer.start()
    try:
        yield
    except Exception as error:
        if late.is_set():
            raise TimeoutError from error
        raise
    finally:
        timer.cancel()
        timer.join()  # it has nothing to break off any more
    if late.is_set():
        raise TimeoutError


@dataclass(frozen=True, slots=True)
class Client:
    """Asks servers.

    ``timeout`` is what connecting to an address may take, in seconds, and then all the rest of one request. ``via`` is
    a host, and a port or None, to connect to instead of that of the URL: names in the request and in TLS stay.
    ``headers`` go with every request to the origin of the URL, and to no other. Certificates are not looked at where
    ``insecure``.
    """

    timeout: float = 15.0
    via: tuple[str, int | None] | None = None
    headers: Mapping[str, str] = field(default_factory=dict)
    insecure: bool = False

    def ask(self, target: Target, headers: Mapping[str, str], method: str = "GET") -> Answer:
        """Ask, and follow where the answer sends. Raises ``AskingError``."""
        first = target
        hops: list[str] = []
        while True:
            added = self.headers if target.origin == first.origin else {}
            host, port = self._address(target, first)
            where = f"{host}{'' if port == _PORTS[target.scheme] else f' (port {port})'}"
            with self._connected(target, host, port, where) as connection:
                _send(connection, method, target, _over(headers, added))
                answer = replace(_receive(connection, where), url=target.url, hops=tuple(hops))
            location = answer.header("Location")
            if answer.status not in _REDIRECTS or not location:
                return answer
            hops.append(target.url)
            target = _next(target, location, hops)

    def _address(self, target: Target, first: Target) -> tuple[str, int]:
        if self.via is None or target.host != first.host:
            return target.host, target.port
        host, port = self.via
        return host, port if port and target.origin == first.origin else target.port

    @contextlib.contextmanager
    def _connected(self, target: Target, host: str, port: int, where: str) -> Iterator[http.client.HTTPConnection]:
        """Give a connection that breaks when the time is up; what goes wrong comes out as ``AskingError``."""
        try:
            with self._socket(target, host, port) as connected, _within(self.timeout, connected):
                if isinstance(connected, ssl.SSLSocket):
                    connected.do_handshake()
                connection = http.client.HTTPConnection(target.host, target.port)
                connection.sock = connected
                yield connection
        except TimeoutError as error:
            raise _late(where, self.timeout) from error
        except (OSError, http.client.HTTPException, ValueError) as error:
            raise _explained(error, where) from error

    def _socket(self, target: Target, host: str, port: int) -> socket.socket:
        """Connect. For https, hands are still to be shaken."""
        if target.scheme == "http":
            return socket.create_connection((host, port), self.timeout)
        context = ssl.create_default_context()
        if self.insecure:
            context.check_hostname = False
            context.verify_mode = ssl.CERT_NONE
        connected = socket.create_connection((host, port), self.timeout)
        return context.wrap_socket(connected, server_hostname=target.host, do_handshake_on_connect=False)


def _over(headers: Mapping[str, str], added: Mapping[str, str]) -> dict[str, str]:
    """Return both; of a header that both name, in whatever case, that of ``added``."""
    given = {name.lower() for name in added}
    return {name: value for name, value in headers.items() if name.lower() not in given} | {**added}


def _send(connection: http.client.HTTPConnection, method: str, target: Target, headers: Mapping[str, str]) -> None:
    connection.putrequest(method, target.request, skip_host=True, skip_accept_encoding=True)
    for name, value in {"Host": target.authority, **headers, "Connection": "close"}.items():
        connection.putheader(name, value.encode("utf-8", "surrogateescape"))
    connection.endheaders()


def _receive(connection: http.client.HTTPConnection, where: str) -> Answer:
    start, size = b"", 0
    with connection.getresponse() as response:
        fields = tuple((name, _text(value)) for name, value in response.getheaders())
        while data := response.read(_CHUNK):
            start, size = start or data[:_START], size + len(data)
            if size > BODY_LIMIT:
                raise AskingError(
                    f"{where} sends more than {BODY_LIMIT >> 20} MiB: no more was read",
                    "give the URL of an image as pages show it",
                )
        if response.length:  # read by pieces, http.client does not complain
            raise http.client.IncompleteRead(b"", response.length)
        return Answer("", (), response.status, fields, start, size)


def _text(value: str) -> str:
    """Return a header as UTF-8 (http.client takes it for Latin-1), with nothing that a terminal would obey."""
    return _harmless(value.encode("latin-1").decode("utf-8", "surrogateescape"))


def _harmless(text: str) -> str:
    return re.sub(r"[\0-\x1f\x7f-\x9f]", lambda found: f"\\x{ord(found[0]):02x}", text)


def _next(target: Target, location: str, hops: list[str]) -> Target:
    cure = f"mend the redirect of {target.url} where it is made: web server, CDN or site"
    try:
        following = target_of(urllib.parse.urljoin(target.url, location))
    except (UsageError, ValueError) as error:
        raise AskingError(f"redirected to what can't be asked: {location}", cure) from error
    if following.url in hops or len(hops) > _HOPS:
        raise AskingError(f"redirects without end: {' -> '.join([*hops, following.url])}", cure)
    return following


def _late(where: str, seconds: float) -> AskingError:
    return AskingError(
        f"{where} gave no whole answer within {seconds:g} s",
        "is it up, and does a firewall let through? `--timeout` gives it more time",
    )


def _explained(error: Exception, where: str) -> AskingError:
    """Return what to say of a request that failed."""
    match error:
        case socket.gaierror():
            detail, cure = f"no address is known ({error.strerror})", "is the name right? `getent hosts NAME` asks DNS"
        case ConnectionRefusedError():
            detail, cure = "refuses connections", "is the web server running, and on this port? `ss -ltn` there"
        case ssl.SSLCertVerificationError():
            detail = f"certificate not valid: {error.verify_message}"
            cure = (
                "renew it (`certbot renew`), and serve it with its chain (fullchain.pem); --insecure asks all the same"
            )
        case ssl.SSLError():
            detail, cure = (
                f"TLS failed: {error.reason or error}",
                "does this port speak TLS? `openssl s_client -connect`",
            )
        case http.client.IncompleteRead():
            missing = f"{error.expected:,} bytes too soon" if error.expected else "too soon"
            detail, cure = f"the answer ended {missing}", "the error log of the web server, or of what is before it"
        case http.client.HTTPException() | ConnectionError():
            said = _harmless(str(error))[:100] or type(error).__name__  # it may be what the server sent instead
            detail = f"ended the connection without an answer in HTTP ({said})"
            cure = "the error log of the web server, or of what is before it"
        case _:
            detail, cure = str(error), "`curl -v` on the same URL shows each step"
    return AskingError(f"{where}: {detail}", cure)
