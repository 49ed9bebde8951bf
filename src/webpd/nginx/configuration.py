"""The configuration of nginx, printed from the settings: a part for ``http {}`` and one for ``server {}``."""

import fnmatch
import os
import re
from collections.abc import Sequence
from dataclasses import dataclass

import jinja2

from webpd.errors import UsageError
from webpd.settings import Settings, Site, site_of
from webpd.watch.mount import mount_at

_THUMBNAILS = "resize_cache"
_HERE = os.path.dirname(os.path.abspath(__file__))


@dataclass(frozen=True, slots=True)
class _Place:
    """A site as the template has it; all but ``comment`` and ``remote`` are quoted for nginx.

    ``closed``: whether nothing but images is to be reachable; ``others``, ``plain`` and ``apart`` are for that case.

    ``originals``, ``others`` and ``plain`` are regexes: of what has sidecars, of other images, and of what lies in
    excluded folders that no prefix tells, if there are any. ``missing`` is a location's name. ``apart`` are prefixes of
    excluded folders.
    """

    comment: str
    remote: bool
    closed: bool
    location: str
    root: str
    originals: str
    others: str
    plain: str | None
    missing: str
    apart: list[str]


def http_part(*, socket: str | None) -> str:
    """Return what goes into ``http {}``; ``socket``: where hints go, None: nowhere."""
    return _template("http.conf").render(socket=socket)


def server_part(settings: Settings, roots: Sequence[str], *, socket: str | None, access_log: str | None) -> str:
    """Return what goes into ``server {}`` for these roots.

    ``access_log`` are the arguments of that directive for requests of images, beside the hints; None: no such log.

    Raises ``UsageError``: a path that nginx can't be told, roots of different servers, a root outside of the document
    root.
    """
    sites = [site_of(settings, root) for root in roots]
    _refuse_twins(sites)
    if access_log is not None and not re.fullmatch(r"[^;{}\"'\\\s#][^;{}\"'\\\n]*", access_log):
        raise UsageError(f"--access-log {access_log!r}: allowed is what nginx's access_log takes, or off")
    places = [_place(site, settings.exclude) for site in sites]
    return _template("server.conf").render(sites=places, socket=socket, access_log=access_log)


def open_roots(settings: Settings, roots: Sequence[str]) -> list[str]:
    """Return those that hold more than thumbnails, as their names tell: their other files are left to the site."""
    return [site.root for site in (site_of(settings, root) for root in roots) if not _closed(site)]


def _closed(site: Site) -> bool:
    return _THUMBNAILS in site.url.split("/")


def _template(name: str) -> jinja2.Template:
    # Nothing to escape for HTML: what needs quoting is quoted for nginx.
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(_HERE),
        autoescape=False,  # noqa: S701 - not HTML
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    return environment.get_template(name)


def _refuse_twins(sites: Sequence[Site]) -> None:
    first: dict[str, Site] = {}
    for site in sites:
        if (twin := first.setdefault(site.url, site)) is not site:
            raise UsageError(
                f"{twin.root} and {site.root} are both served as {site.url}, so by different servers: print a part for "
                f"each: webpd nginx --part server {site.root}"
            )


def _place(site: Site, exclude: Sequence[str]) -> _Place:
    url = re.escape(site.url)
    closed = _closed(site)
    prefixes, anchored, anywhere = _excluded(site, exclude, by_prefix=closed)
    excluded = [*anchored, *(f"(?:.*/)?{folder}" for folder in anywhere)]
    first = f"(?!/(?:{'|'.join(anchored)})/)" if anchored else ""
    each = f"|(?:{'|'.join(anywhere)})/" if anywhere else ""
    visible = rf"^{url}{first}(?:/(?!\.{each})[^/]+)+(?i)"
    return _Place(
        comment=f"{site.root}, served as {site.url}",
        remote=not mount_at(site.root).local,
        closed=closed,
        location=_quoted(f"{site.url}/"),
        root=_quoted(site.document_root),
        originals=_quoted(rf"{visible}\.(?:jpe?g|png)$", regex=True),
        others=_quoted(rf"{visible}(?<!\.jpg|\.jpeg|\.png)\.(?:avif|bmp|gif|webp)$", regex=True),
        plain=_quoted(f"(?s)^{url}/(?:{'|'.join(excluded)})/", regex=True) if excluded else None,
        missing=_quoted(f"@webpd{site.url}"),
        apart=[_quoted(prefix) for prefix in prefixes],
    )


def _excluded(site: Site, patterns: Sequence[str], *, by_prefix: bool) -> tuple[list[str], list[str], list[str]]:
    """Return the excluded folders below the root: prefixes of URLs; regexes of paths right below it, and at any depth.

    A pattern matches the end of a folder's path (``tree.naming.Exclusion``), so its first components may be the last
    ones of the root; then, without * and ?, it is one folder, which can be told by a prefix.
    """
    above = site.root.strip("/").split("/")
    prefixes, anchored, anywhere = [], [], []
    for pattern in patterns:
        parts = pattern.strip("/").split("/")
        anywhere.append("/".join(map(_regex_of, parts)))
        for split in range(1, min(len(parts), len(above) + 1)):
            head, tail = parts[:split], parts[split:]
            if not all(map(fnmatch.fnmatchcase, above[len(above) - split :], head)):
                continue
            if not by_prefix or {*"*?"} & {*"".join(tail)}:
                anchored.append("/".join(map(_regex_of, tail)))
            else:
                prefixes.append(f"{site.url}/{'/'.join(tail)}/")
    return list(dict.fromkeys(prefixes)), anchored, anywhere


def _regex_of(pattern: str) -> str:
    """Return the regex for a component in which * and ? stand for any characters and for one."""
    return re.escape(pattern).replace(r"\*", "[^/]*").replace(r"\?", "[^/]")


def _quoted(text: str, *, regex: bool = False) -> str:
    """Return the text as a quoted word of nginx' configuration. Raises ``UsageError`` where it can't be one."""
    if not text.isprintable() or ("$" in text and not regex):
        raise UsageError(
            f"{text!r}: nginx can't be told this path: name the folder without $ and control characters, in UTF-8"
        )
    escaped = text.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'
