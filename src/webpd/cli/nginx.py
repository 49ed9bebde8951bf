"""``webpd nginx``: the configuration by which nginx serves the sidecars."""

from typing import Annotated, Literal

import typer

from webpd.cli.options import Config, Paths, settings_from
from webpd.errors import UsageError


def nginx(
    paths: Paths = None,
    *,
    part: Annotated[
        Literal["http", "server"] | None,
        typer.Option("--part", help="Print only what goes into http {}, or into server {}.", show_default=False),
    ] = None,
    hints: Annotated[
        bool | None,
        typer.Option(
            "--hints/--no-hints",
            help="Whether nginx tells webpd of images without a sidecar; default: unless WEBPD_HINT_SOCKET is off.",
            show_default=False,
        ),
    ] = None,
    access_log: Annotated[
        str,
        typer.Option(
            "--access-log", metavar="FILE [FORMAT]", help="The site's own log of requests for images, or off."
        ),
    ] = "/var/log/nginx/access.log",
    config: Config = None,
) -> None:
    """Print the configuration by which nginx serves the sidecars of the folders PATH to browsers that take WebP.

    It has two parts: one for http {}, once on a host, and one for each server {} that serves the images. Where these
    are in the site's URLs is told by WEBPD_DOCUMENT_ROOT.

    \b
    Examples:
      webpd nginx
      webpd nginx --part http > /etc/nginx/conf.d/00-webpd.conf
      webpd nginx --part server > /etc/nginx/snippets/webpd.conf
      webpd nginx --part server --access-log "/var/log/nginx/shop.log main" /home/bitrix/www/upload/resize_cache
    """
    settings = settings_from(config).settings
    if hints and settings.hint_socket is None:
        raise UsageError("--hints: WEBPD_HINT_SOCKET is off: name a socket")

    from webpd.nginx.configuration import http_part, server_part

    socket = None if hints is False else settings.hint_socket
    log = None if access_log == "off" else access_log
    http = http_part(socket=socket)
    server = server_part(settings, paths or settings.roots, socket=socket, access_log=log)
    if part is None:
        typer.echo(f"# ===== /etc/nginx/conf.d/00-webpd.conf =====\n{http}\n# ===== /etc/nginx/snippets/webpd.conf =====")
    typer.echo({"http": http, "server": server}.get(part or "server"), nl=False)
