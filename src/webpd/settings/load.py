"""Where the value of each option comes from.

A value is looked for in the flags, then in the environment (``WEBPD_`` and the option's name in capitals), then in a
TOML file (``--config``, ``WEBPD_CONFIG``, else ``/etc/webpd.toml`` if it is there), then in the defaults. A variable
that is empty counts as not set, as it is meant in files of them; but an empty ``WEBPD_EXCLUDE`` excludes nothing,
and an empty ``WEBPD_ROOTS`` is refused: the default ones are not what its writer had in mind.
"""

import os
import tomllib
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from pydantic import ValidationError

from webpd.errors import UsageError
from webpd.settings.options import Settings
from webpd.settings.values import RedisUrl, Token

PREFIX = "WEBPD_"
DEFAULT_FILE = "/etc/webpd.toml"
_LISTS = {"exclude", "roots"}  # of which being empty says something


@dataclass(frozen=True, slots=True)
class Loaded:
    """The settings, for each option the place that its value came from, and what was read but is no option."""

    settings: Settings
    origin: Mapping[str, str]
    unknown: tuple[str, ...]


def load(flags: Mapping[str, object], environ: Mapping[str, str], file: str | None = None) -> Loaded:
    """Gather the options; ``flags`` holds only those that were given.

    Raises ``UsageError``: a file named that can't be read or is not TOML, an option that does not exist, a value that
    is not allowed, roots inside one another, two equal addresses.
    """
    path = file or environ.get(PREFIX + "CONFIG") or None
    values: dict[str, object] = {}
    origin = dict.fromkeys(Settings.model_fields, "default")
    for name, value in _read_file(path).items():
        values[name], origin[name] = value, f"{path or DEFAULT_FILE}: {name}"
    unknown = []
    for variable, text in environ.items():
        name = variable.removeprefix(PREFIX).lower()
        if variable.startswith(PREFIX) and name in Settings.model_fields:
            if not text and name not in _LISTS:
                continue
            values[name], origin[name] = text, variable
        elif variable.startswith(PREFIX) and name != "config":
            unknown.append(variable)
    for name, value in flags.items():
        values[name], origin[name] = value, "--" + name.replace("_", "-")
    try:
        settings = Settings.model_validate(values)
    except ValidationError as error:
        raise UsageError(_explain(error, values, origin)) from error
    refuse_nested(settings.roots, origin["roots"], os.path.abspath)  # asks no mount: the service does that
    _refuse_equal_addresses(settings, origin)
    return Loaded(settings, origin, tuple(sorted(unknown)))


def refuse_nested(roots: tuple[str, ...], where: str, resolve: Callable[[str], str] = os.path.realpath) -> None:
    """Raise ``UsageError`` when a root is named twice or lies inside another: its images would be done twice."""
    real = sorted((resolve(root), root) for root in roots)
    for place, (outer, named) in enumerate(real):
        for inner, other in real[place + 1 :]:
            if inner == outer or inner.startswith(os.path.join(outer, "")):
                raise UsageError(f"{where}: {other} lies inside {named}: name only the outer one")


def _refuse_equal_addresses(settings: Settings, origin: Mapping[str, str]) -> None:
    """Raise ``UsageError`` when two servers are to listen at one address; each port 0 becomes another."""
    address = settings.metrics_address
    if address is None or not address.port or address != settings.health_address:
        return
    names = sorted(("metrics_address", "health_address"), key=lambda name: origin[name] == "default")
    blamed, other = (f"{PREFIX}{name.upper()}" if origin[name] == "default" else origin[name] for name in names)
    raise UsageError(f"{blamed}={address}: {other} is the same: choose another port for one of them")


def _read_file(path: str | None) -> dict[str, object]:
    if path is None and not os.path.exists(DEFAULT_FILE):
        return {}
    path = path or DEFAULT_FILE
    try:
        with open(path, "rb") as file:
            return tomllib.load(file)
    except OSError as error:
        raise UsageError(f"{path}: the settings file can't be read: {error.strerror}") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise UsageError(f"{path}: not valid TOML: {error}") from error


def _explain(error: ValidationError, values: Mapping[str, object], origin: Mapping[str, str]) -> str:
    first = error.errors()[0]
    name = str(first["loc"][0])
    where = origin[name]
    if first["type"] == "extra_forbidden":
        return f"{where}: there is no such option; `webpd config` lists them"
    extra = Settings.model_fields[name].json_schema_extra
    assert isinstance(extra, dict)  # noqa: S101 - _option gives every field one
    value = Token().public if name == "token" else RedisUrl(values[name]).public  # whatever it is: no password
    return f"{where}={value}: allowed is {extra['allowed']}"
