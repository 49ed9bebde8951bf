"""``webpd check``: what browsers are given by a site."""

import re
from typing import TYPE_CHECKING, Annotated

import typer

from webpd.cli.findings import tell
from webpd.cli.options import Json, interrupt_on_sigterm
from webpd.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from webpd.doctor.finding import Finding

_TOKEN = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")  # RFC 9110, 5.6.2
_SET_BY_BROWSERS = {
    "accept",
    "accept-encoding",
    "connection",
    "host",
    "if-modified-since",
    "if-none-match",
    "if-range",
    "range",
}


def check(
    urls: Annotated[
        list[str], typer.Argument(metavar="URL", help="Addresses of images, as pages name them.", show_default=False)
    ],
    *,
    fresh: Annotated[
        bool,
        typer.Option(
            "--fresh", help="Ask also with a query that no cache has seen, WebP first and the other way round."
        ),
    ] = False,
    via: Annotated[
        str | None,
        typer.Option("--via", metavar="HOST[:PORT]", help="Connect there instead, such as to the server behind a CDN."),
    ] = None,
    header: Annotated[
        list[str] | None,
        typer.Option("--header", metavar="'NAME: VALUE'", help="Send this as well; may be given several times."),
    ] = None,
    timeout: Annotated[
        float, typer.Option("--timeout", metavar="SECONDS", min=0.1, max=600, help="What one request may take.")
    ] = 15.0,
    insecure: Annotated[bool, typer.Option("--insecure", help="Do not look at certificates.")] = False,
    as_json: Json = False,
) -> None:
    """Ask a site for images as several browsers would, and say what is wrong and how to mend it.

    It asks as browsers that take WebP and as some that don't, several times, through whatever stands between: about
    twenty requests for each URL. Looked at are types, Vary, bytes saved, caching, ETags, ranges, and what a cache
    or CDN makes of it.

    With --json, a list of the checks: id, subject (the URL), verdict (ok, unknown, warning, fault), detail, cure.

    Exit code: 0 no fault, 2 wrong usage, 3 a fault, 130 interrupted.

    \b
    Examples:
      webpd check https://shop.example/upload/resize_cache/iblock/abc/200_200_1/photo.jpg
      webpd check --fresh https://cdn.example/upload/resize_cache/iblock/abc/200_200_1/photo.jpg
      webpd check --via 192.0.2.10 https://cdn.example/upload/resize_cache/iblock/abc/200_200_1/photo.jpg
      webpd check --json URL | jq '.[] | select(.verdict == "fault")'
    """
    from webpd.delivery.client import Client, target_of
    from webpd.delivery.examination import examine

    interrupt_on_sigterm()
    client = Client(timeout, _address(via), dict(map(_header, header or ())), insecure)
    targets = [target_of(url) for url in urls]

    def findings() -> "Iterator[Finding]":
        for target in targets:
            yield from examine(client, target, fresh=fresh)

    tell(findings(), as_json)


def _address(text: str | None) -> tuple[str, int | None] | None:
    if text is None:
        return None
    found = re.fullmatch(
        r"(?:\[([0-9A-Fa-f:.]+)\]|([^:/\s]+)|([0-9A-Fa-f]*:[0-9A-Fa-f:.]*:[0-9A-Fa-f:.]*))(?::(\d{1,5}))?", text
    )
    if not found or (found[4] and not 0 < int(found[4]) < 65_536):
        raise UsageError(f"--via {text}: give a host or an address, and a port if it is another: 192.0.2.10:8080")
    return found[1] or found[2] or found[3], int(found[4]) if found[4] else None


def _header(text: str) -> tuple[str, str]:
    name, colon, value = text.partition(":")
    if not colon or not _TOKEN.fullmatch(name) or re.search(r"[\0-\x08\x0a-\x1f\x7f]", value):
        raise UsageError(f"--header {text}: give it as 'NAME: VALUE'")
    if name.lower() in _SET_BY_BROWSERS:
        raise UsageError(f"--header {text}: {name} is what is tried here, it can't be given")
    return name, value.strip()
