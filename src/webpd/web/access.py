"""Who may ask what of the page: by which name, from which site, with which token.

A page of somebody else, open in the administrator's browser, must neither read nor change anything here. It can't reach
us under a name of its own (DNS rebinding): only the names of ``WEBPD_ALLOWED_HOSTS`` are answered. What it sends under
one of ours is told by ``Sec-Fetch-Site`` and ``Origin``. And the token is no cookie: no browser adds it by itself.
"""

import hmac
import ipaddress
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from enum import Enum, auto
from urllib.parse import urlsplit

from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response

from webpd.settings import Settings

Endpoint = Callable[[Request], Awaitable[Response]]

HEADERS = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob:; "
    "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'; "
    "require-trusted-types-for 'script'; trusted-types 'none'",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
}
"""What every answer of the page bears. Pictures are shown as ``blob:``, since an ``<img>`` can't send a token."""

_MISNAMED = (
    "webpd does not answer by the name {name!r}: use a name that is in WEBPD_ALLOWED_HOSTS, or add this one there and "
    "restart webpd\n"
    "webpd не отвечает по имени {name!r}: откройте страницу по имени из WEBPD_ALLOWED_HOSTS или добавьте туда это и "
    "перезапустите webpd"
)
_LONGEST_NAME = 100


class Need(Enum):
    """What a request is for."""

    SHELL = auto()
    """The empty page, its script and its style: they tell nothing."""
    READ = auto()
    """Names of files, numbers, pictures."""
    WRITE = auto()
    HINT = auto()
    """Word of an image; mostly from programs, which have whatever name for us."""


@dataclass(frozen=True, slots=True)
class Access:
    """``hosts`` are the names that are answered, in lower case and without port.

    ``exposed`` tells that others than this host may reach the page: then reading takes the token too. Without a token
    nothing can be changed, and an exposed page shows nothing.
    """

    token: str | None
    hosts: frozenset[str]
    exposed: bool

    def refusal(self, request: Request, need: Need) -> Response | None:
        """Return the answer to a request that must not have what it asks for, None where it may."""
        called = request.headers.get("host", "")
        if _without_port(called) not in self.hosts and not (need is Need.HINT and _is_no_browser(request)):
            return _refuse(421, _MISNAMED.format(name=_without_port(called)[:_LONGEST_NAME]))
        if need is Need.SHELL:
            return None
        if _is_cross_site(request, called):
            return _refuse(403, "asked by the page of another site")
        if need is Need.READ and not self.exposed:
            return None
        if self.token is None:
            return _refuse(403, "this takes a token, and none is set: set WEBPD_TOKEN and restart webpd")
        scheme, _, given = request.headers.get("authorization", "").partition(" ")
        # As bytes: compare_digest takes no text beyond ASCII.
        if scheme.lower() != "bearer" or not hmac.compare_digest(given.strip().encode(), self.token.encode()):
            answer = _refuse(401, "this takes the token that WEBPD_TOKEN has")
            answer.headers["WWW-Authenticate"] = "Bearer"
            return answer
        return None

    def guard(self, endpoint: Endpoint, need: Need) -> Endpoint:
        """Return the endpoint for those alone who may have it, its answers with ``HEADERS``."""

        async def guarded(request: Request) -> Response:
            answer = self.refusal(request, need) or await endpoint(request)
            for name, value in HEADERS.items():
                answer.headers[name] = value
            answer.headers.setdefault("Cache-Control", "private, no-store")
            return answer

        return guarded


def access_of(settings: Settings) -> Access:
    """Return who may ask what under these settings."""
    address = settings.health_address
    names = frozenset(settings.allowed_hosts)
    exposed = address is not None and not all(map(_is_loopback, (address.host, *names)))
    return Access(settings.token, names, exposed)


def _is_loopback(name: str) -> bool:
    try:
        return ipaddress.ip_address(name.strip("[]")).is_loopback
    except ValueError:
        return name == "localhost"


def _without_port(host: str) -> str:
    name, colon, port = host.rpartition(":")
    return (name if colon and port.isdecimal() else host).lower()


def _is_no_browser(request: Request) -> bool:
    """Tell whether no browser sends this: each adds one of these headers to what a page has it POST."""
    return not {"origin", "sec-fetch-site"} & {*request.headers.keys()}


def _is_cross_site(request: Request, called: str) -> bool:
    if request.headers.get("sec-fetch-site", "none") not in {"same-origin", "none"}:
        return True
    origin = request.headers.get("origin")
    return origin is not None and urlsplit(origin).netloc.lower() != called.lower()


def _refuse(status: int, why: str) -> Response:
    return PlainTextResponse(f"{why}\n", status)
