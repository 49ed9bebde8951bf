"""Which names are originals, which are sidecars, which are ours for a moment, and which folders are left alone."""

import fnmatch
import os
from collections.abc import Iterable

SIDECAR = ".webp"
TEMPORARY_PREFIX = ".webpd-"
TEMPORARY_SUFFIX = ".tmp"

_ORIGINAL = (".jpg", ".jpeg", ".png")
_NAME_MAX = 255  # bytes, NAME_MAX of every file system that matters here


def is_original(name: str) -> bool:
    """Tell whether a file of this name is one to convert. Extensions count in any case; hidden files do not count."""
    return name.lower().endswith(_ORIGINAL) and not name.startswith(".")


def sidecar_of(path: str) -> str:
    """Return the sidecar's name (or path) for the original's."""
    return path + SIDECAR


def original_of(path: str) -> str | None:
    """Return the original's name (or path) for a sidecar's; None where the name is not that of a sidecar."""
    original = path.removesuffix(SIDECAR)
    return original if original != path and is_original(os.path.basename(original)) else None


def fits(name: str) -> bool:
    """Tell whether the sidecar's name still fits a directory entry."""
    return len(os.fsencode(name)) + len(SIDECAR) <= _NAME_MAX


def is_temporary(name: str) -> bool:
    """Tell whether the name is one that the publisher gives before the final one."""
    return name.startswith(TEMPORARY_PREFIX) and name.endswith(TEMPORARY_SUFFIX)


class Exclusion:
    """Folders left alone. A pattern matches the end of a folder's absolute path, component by component.

    ``apart`` are absolute paths of further ones.
    """

    def __init__(self, patterns: Iterable[str], apart: Iterable[str] = ()) -> None:
        self._patterns = [pattern.strip("/").split("/") for pattern in patterns]
        self._apart = frozenset(apart)

    def __contains__(self, directory: str) -> bool:
        if directory in self._apart:
            return True
        parts = directory.split("/")
        return any(
            len(pattern) <= len(parts) and all(map(fnmatch.fnmatchcase, parts[-len(pattern) :], pattern))
            for pattern in self._patterns
        )
