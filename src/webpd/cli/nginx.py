"""``webpd nginx``: the configuration by which nginx serves the sidecars."""

import os
from typing import Annotated, Literal

import typer

from webpd.cli.options import Config, settings_from
from webpd.errors import UsageError


def nginx(
    paths: Annotated[
        list[str] | None, typer.Argument(metavar="PATH", help="Folders; default: WEBPD_ROOTS.", show_default=False)
    ] = None,
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
    are in the site's URLs is told by WEBPD_DOCUMENT_ROOT. In a folder resize_cache, nothing but images is reachable
    then; in any other folder, other files are left to the locations of the site.

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
    for path in paths or ():
        if os.path.isfile(path):
            raise UsageError(f"{path}: this is a file: name the folder that the service keeps")

    from webpd.nginx.configuration import http_part, open_roots, server_part

    socket = None if hints is False else settings.hint_socket
    log = None if access_log == "off" else access_log
    http = http_part(socket=socket)
    server = server_part(settings, paths or settings.roots, socket=socket, access_log=log)
    if part != "http":
        for root in open_roots(settings, paths or settings.roots):
            typer.echo(
                f"webpd: {root}: this is no resize_cache: the configuration leaves all but JPEG and PNG there to the "
                "site, and must stand above the site's regex locations (docs/nginx.md)",
                err=True,
            )
    if part is None:
        typer.echo(
            f"# ===== /etc/nginx/conf.d/00-webpd.conf =====\n{http}\n# ===== /etc/nginx/snippets/webpd.conf ====="
        )
    typer.echo({"http": http, "server": server}.get(part or "server"), nl=False)
