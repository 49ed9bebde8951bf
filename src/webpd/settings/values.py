"""How values are written: one parser for each way, and the types that come of them."""

import json
import re
from grp import getgrnam
from pwd import getpwnam
from typing import NamedTuple


class Owner(NamedTuple):
    """User and group that a sidecar is given, as numbers."""

    uid: int
    gid: int

    def __str__(self) -> str:
        return f"{self.uid}:{self.gid}"


_NOBODY_AT_ALL = 2**32 - 1  # as chown(2) takes it: "leave as it is"


def as_list(value: object) -> object:
    if not isinstance(value, str):
        return value
    if value.lstrip().startswith("["):
        return json.loads(value)
    return [part.strip() for part in value.split(",") if part.strip()]


def as_owner(value: object) -> object:
    if not isinstance(value, str):
        return value
    if value == "keep":
        return None
    user, _, group = value.partition(":")
    try:
        uid = int(user) if user.isdecimal() else getpwnam(user).pw_uid
        gid = int(group) if group.isdecimal() else getgrnam(group).gr_gid
    except KeyError as error:
        raise ValueError(str(error)) from error
    if max(uid, gid) >= _NOBODY_AT_ALL:
        raise ValueError(value)
    return Owner(uid, gid)


def as_mode(value: object) -> object:
    if not isinstance(value, str):  # 644 in a TOML file is a decimal number, and no mode that anybody means
        raise ValueError(value)  # noqa: TRY004 - pydantic wants this one
    return int(value, 8)


_SECONDS = {"": 1, "s": 1, "m": 60, "h": 3600, "d": 86400}


def as_seconds(value: object) -> object:
    if not isinstance(value, str):
        return value
    found = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([smhd]?)", value.strip())
    if not found:
        raise ValueError(value)
    return float(found[1]) * _SECONDS[found[2]]


def none_if_auto(value: object) -> object:
    return None if value == "auto" else value


def as_seconds_or_auto(value: object) -> object:
    return None if value == "auto" else as_seconds(value)


class Address(NamedTuple):
    """Where to listen: a host's name or address, and a TCP port (0: any that is free)."""

    host: str
    port: int

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


def as_address(value: object) -> object:
    if not isinstance(value, str):
        return value
    if value == "off":
        return None
    host, colon, port = value.rpartition(":")
    if not colon or not port.isdecimal() or int(port) > 65_535:
        raise ValueError(value)
    return Address(host.strip("[]") or "127.0.0.1", int(port))


_UNITS = {"second": 1, "minute": 60, "hour": 3600, "day": 86_400}
_KIB = {"KiB": 1, "MiB": 1 << 10, "GiB": 1 << 20}


class Rate(NamedTuple):
    """So much within any stretch of so many seconds; what is counted is ``unit``: KiB, or images where it is empty."""

    amount: int
    seconds: int
    unit: str = ""

    def __str__(self) -> str:
        name = next(name for name, seconds in _UNITS.items() if seconds == self.seconds)
        return f"{self.amount}{self.unit}/{name}"


def as_rate(value: object) -> object:
    if not isinstance(value, str):
        return value
    if value == "none":
        return None
    found = re.fullmatch(r"([1-9]\d{0,4})/(second|minute|hour|day)", value.strip())
    if not found:
        raise ValueError(value)
    return Rate(int(found[1]), _UNITS[found[2]])


def as_byte_rate(value: object) -> object:
    if not isinstance(value, str):
        return value
    if value == "none":
        return None
    found = re.fullmatch(r"([1-9]\d{0,6}) ?([KMG]iB)/(second|minute|hour|day)", value.strip())
    if not found:
        raise ValueError(value)
    return Rate(int(found[1]) * _KIB[found[2]], _UNITS[found[3]], "KiB")


class RedisUrl(str):
    """Where a Redis server is; it may hold a password, which ``public`` leaves out."""

    __slots__ = ()

    @property
    def public(self) -> str:
        # Up to the last "@", as redis-py takes it; what is no URL at all may hold a password too.
        named = re.sub(r"(?<=[?&]password=)[^&]*", "***", self)
        return re.sub(r"^(\w+://)?([^/@:]*):.*@", r"\1\2:***@", named, flags=re.DOTALL)


def as_redis_url(value: object) -> object:
    if not isinstance(value, str):
        raise ValueError(value)  # noqa: TRY004 - pydantic wants this one
    if value in {"", "none"}:
        return None
    if not re.fullmatch(r"rediss?://[^/\s]+(/\d{0,2})?(\?\S*)?|unix://\S*/\S+", value):
        raise ValueError(value)
    return RedisUrl(value)


class Token(str):
    """What who may change something has to know; ``public`` is what may be shown of it."""

    __slots__ = ()

    @property
    def public(self) -> str:
        return "***"


def as_token(value: object) -> object:
    if not isinstance(value, str):
        raise ValueError("no text")  # noqa: TRY004 - pydantic wants this one
    if value == "none":
        return None
    # As a header carries it (RFC 6750 section 2.1), and too long to be guessed.
    if not re.fullmatch(r"[A-Za-z0-9._~+/-]{16,256}=*", value):
        raise ValueError("not of that form")
    return Token(value)


_LONGEST_SOCKET = 100  # bytes; sun_path of unix(7) takes 107, and nginx no more


def as_socket(value: object) -> object:
    if value == "off":
        return None
    if not isinstance(value, str) or not re.fullmatch(r"/[\w./-]+", value, re.ASCII):
        raise ValueError(value)
    if len(value) > _LONGEST_SOCKET:
        raise ValueError(value)
    return value


def as_hosts(value: object) -> object:
    names = as_list(value)
    if not isinstance(names, (list, tuple)):
        return names
    for name in names:
        if not isinstance(name, str) or not re.fullmatch(r"[A-Za-z0-9._-]+|\[[0-9A-Fa-f:.]+\]", name):
            raise ValueError(name)
    return tuple(name.lower() for name in names)
