"""Where the service answers: at a socket in its state folder, for health and with the page, and for Prometheus."""

import contextlib
import os
from collections.abc import AsyncIterator

import structlog

from webpd.service.hint_socket import hearing
from webpd.service.hints import Hints
from webpd.settings import Address, Settings, state_dir
from webpd.telemetry.metrics import Metrics
from webpd.web.access import Access, access_of
from webpd.web.app import Controlled, Subject, control_app, health_app, metrics_app
from webpd.web.client import SOCKET
from webpd.web.hint import hint_routes
from webpd.web.page import PageSubject, page_routes
from webpd.web.server import serving, serving_unix

_log = structlog.get_logger(__name__)


@contextlib.asynccontextmanager
async def served(
    service: Subject, page: PageSubject, hints: Hints, settings: Settings, metrics: Metrics, *, once: bool
) -> AsyncIterator[None]:
    """Answer at the addresses, and take hints, while the body runs.

    A single pass does neither: beside a service they are taken.

    Raises ``UnfitError`` where an address is not to be had.
    """
    if once:
        yield
        return
    access = access_of(settings)
    async with contextlib.AsyncExitStack() as servers:
        if settings.role != "work" and settings.hint_socket is not None:
            hints.trouble = servers.enter_context(hearing(settings.hint_socket, hints.hear))
        routes = [*page_routes(page, access), *hint_routes(hints, access)]
        for variable, address, app in (
            ("WEBPD_HEALTH_ADDRESS", settings.health_address, health_app(service, routes)),
            ("WEBPD_METRICS_ADDRESS", settings.metrics_address, metrics_app(metrics.exposition)),
        ):
            if address is not None:
                host, port = await servers.enter_async_context(serving(app, *address, variable))
                told = {"page": _page(host, port)} if variable == "WEBPD_HEALTH_ADDRESS" else {}
                _log.info("listening", variable=variable, address=str(Address(host, port)), **told)
        if access.exposed:
            _warn(access)
        yield


@contextlib.asynccontextmanager
async def controlled(service: Controlled, settings: Settings) -> AsyncIterator[None]:
    """Take orders at the socket in the state folder while the body runs; the folder must be this process's already.

    Raises ``UnfitError`` where the socket is not to be had.
    """
    if settings.role == "work":  # which remembers nothing, and has no folder
        yield
        return
    async with serving_unix(control_app(service), os.path.join(state_dir(settings), SOCKET)):
        yield


def _page(host: str, port: int) -> str:
    """Return where a browser on this host finds the page."""
    return f"http://{Address('localhost' if host in {'0.0.0.0', '::'} else host, port)}/"  # noqa: S104 - not bound


def _warn(access: Access) -> None:
    shows = (
        "numbers, names and pictures to whoever has the token" if access.token else "nothing: WEBPD_TOKEN is not set"
    )
    _log.warning(
        "OTHER HOSTS CAN REACH THE PAGE, unencrypted: unless a proxy with TLS stands before it, set "
        "WEBPD_HEALTH_ADDRESS=127.0.0.1:8088 and WEBPD_ALLOWED_HOSTS=localhost,127.0.0.1,[::1]",
        it_shows=shows,
    )
