"""Where a site has the files of a root: which path of a URL leads to which file."""

import os
from dataclasses import dataclass

from webpd.errors import UsageError
from webpd.settings.options import Settings


@dataclass(frozen=True, slots=True)
class Site:
    """A root as the site serves it: ``root`` lies in ``document_root``, and ``url`` is the path that leads to it.

    ``/var/www/cdn/upload/resize_cache`` is ``/upload/resize_cache`` below ``/var/www/cdn``. Never ends in a slash.
    """

    root: str
    document_root: str
    url: str

    def file_of(self, path: str) -> str | None:
        """Return the file that the path of a URL (decoded, without query) leads to; None where it is not below."""
        below = path.startswith(f"{self.url}/") and not {"", ".", ".."} & {*path[len(self.url) + 1 :].split("/")}
        return f"{self.root}/{path[len(self.url) + 1 :]}" if below and "\0" not in path else None


def site_of(settings: Settings, root: str) -> Site:
    """Return the root as the site serves it. Raises ``UsageError`` where the root is not in the document root."""
    root = os.path.abspath(root)
    given = settings.document_root
    document_root = os.path.abspath(given) if given is not None else _above_upload(root)
    prefix = "" if document_root == "/" else document_root
    if not root.startswith(f"{prefix}/") or root == document_root:
        raise UsageError(
            f"WEBPD_DOCUMENT_ROOT={document_root}: the root {root} is not inside it: name the folder that the site "
            "serves from /"
        )
    return Site(root, document_root, root[len(prefix) :])


def _above_upload(root: str) -> str:
    """Return the folder that holds the ``upload`` that the root is, or is in; else the root's parent."""
    above, upload, _ = f"{root}/".rpartition("/upload/")
    return (above or "/") if upload else os.path.dirname(root)
