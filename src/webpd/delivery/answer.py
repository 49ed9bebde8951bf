"""What came back, and what it says."""

import contextlib
import re
import zlib
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from enum import StrEnum


class Kind(StrEnum):
    """What the bytes are, whatever the headers say."""

    JPEG = "image/jpeg"
    PNG = "image/png"
    WEBP = "image/webp"
    AVIF = "image/avif"
    GIF = "image/gif"
    OTHER = "no image"
    EMPTY = "empty"

    @property
    def label(self) -> str:
        """What people call it."""
        return "WebP" if self is Kind.WEBP else self.value.removeprefix("image/").upper()


ORIGINALS = (Kind.JPEG, Kind.PNG)
MODERN = (Kind.WEBP, Kind.AVIF)  # what a browser has to say that it takes


def kind_of(start: bytes) -> Kind:
    """Tell from the first bytes (16 suffice) what a file is."""
    if not start:
        return Kind.EMPTY
    if start.startswith(b"\xff\xd8\xff"):
        return Kind.JPEG
    if start.startswith(b"\x89PNG\r\n\x1a\n"):
        return Kind.PNG
    if start[:4] == b"RIFF" and start[8:12] == b"WEBP":
        return Kind.WEBP
    if start[4:8] == b"ftyp" and start[8:12] in {b"avif", b"avis"}:
        return Kind.AVIF
    if start.startswith((b"GIF87a", b"GIF89a")):
        return Kind.GIF
    return Kind.OTHER


# "RefreshHit from cloudfront", "TCP_HIT" of Akamai; what nginx and Cloudflare say when they give what is old.
_HIT = re.compile(r"hit\b|\b(?:stale|updating|revalidated)\b", re.IGNORECASE)
# Cache-Status is RFC 9211; the others are what Cloudflare, Bunny, CloudFront, Fastly, Varnish, nginx and others send.
_TELLING = {
    "age",
    "cache-status",
    "cdn-cache",
    "cf-cache-status",
    "x-cache",
    "x-cache-status",
    "x-cached",
    "x-nginx-cache",
    "x-proxy-cache",
    "x-varnish-cache",
    "cache",
}


def _date(text: str) -> datetime | None:
    """Return what a header says; None where it is no date."""
    with contextlib.suppress(ValueError, OverflowError):
        date = parsedate_to_datetime(text)
        return date if date.tzinfo else date.replace(tzinfo=UTC)
    return None


@dataclass(frozen=True, slots=True)
class Answer:
    """What a server answered.

    ``url`` is where it came from in the end, ``hops`` the addresses that sent on to it. ``start`` is the beginning of
    the body, ``size`` its length in bytes.
    """

    url: str
    hops: tuple[str, ...]
    status: int
    fields: tuple[tuple[str, str], ...]
    start: bytes = b""
    size: int = 0

    def header(self, name: str) -> str:
        """Return the header, several joined by commas; empty where there is none."""
        return ", ".join(value.strip() for given, value in self.fields if given.lower() == name.lower())

    def words(self, name: str) -> list[str]:
        """Return the parts of a list, in lower case."""
        return [part.strip().lower() for part in self.header(name).split(",") if part.strip()]

    @property
    def type(self) -> str:
        """The Content-Type without parameters, in lower case."""
        return self.header("Content-Type").partition(";")[0].strip().lower()

    @property
    def kind(self) -> Kind:
        encoding = self.header("Content-Encoding").lower()
        if encoding in {"", "identity"}:
            return kind_of(self.start)
        if encoding in {"gzip", "deflate"}:
            with contextlib.suppress(zlib.error):
                return kind_of(zlib.decompressobj(wbits=47).decompress(self.start))  # 47: either, told by its header
        return Kind(self.type) if self.type in {*Kind} else Kind.OTHER  # nothing here can unpack it: believed

    @property
    def is_image(self) -> bool:
        """Whether an image was given, of whatever kind."""
        return self.status == 200 and self.kind not in {Kind.OTHER, Kind.EMPTY}

    @property
    def what(self) -> str:
        """What was given, for people."""
        if self.status != 200:
            return f"status {self.status}"
        if self.kind is Kind.EMPTY:
            return "an empty answer"
        if self.kind is not Kind.OTHER:
            return self.kind.label
        if self.type.startswith("image/"):
            return f"bytes that are no image (Content-Type {self.type})"
        return self.type or "something without Content-Type"

    @property
    def varies(self) -> bool:
        """Whether it says that it depends on Accept."""
        return "accept" in self.words("Vary") or "*" in self.words("Vary")

    @property
    def etag(self) -> str:
        return self.header("ETag")

    @property
    def lifetime(self) -> float | None:
        """For how many seconds a browser may keep it without asking; None where the answer does not say."""
        words = self.words("Cache-Control")
        if {"no-store", "no-cache"} & {*words}:
            return 0.0
        ages = [re.fullmatch(r'max-age="?(\d+)"?', word) for word in words]
        if any(ages):
            return next(float(age[1]) for age in ages if age)
        if not self.header("Expires"):
            return None
        expires, date = _date(self.header("Expires")), _date(self.header("Date"))
        return max(0.0, (expires - date).total_seconds()) if expires and date else 0.0  # RFC 9111, 5.3: 0 is past

    @property
    def from_cache(self) -> bool:
        """Whether a cache between says that it had this answer already."""
        age = self.header("Age")
        return (age.isdecimal() and int(age) > 0) or bool(_HIT.search(self.cache))

    @property
    def cache(self) -> str:
        """The headers in which caches tell of themselves, as text."""
        return ", ".join(f"{name}: {value}" for name, value in self.fields if name.lower() in _TELLING)
