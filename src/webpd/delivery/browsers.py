"""Who asks: browsers that can read WebP and some that can't, by the headers that they send for an ``<img>``."""

from dataclasses import dataclass
from typing import Final

_MACINTOSH = "Mozilla/5.0 (Macintosh; Intel Mac OS X 10_15_7)"
_ENCODINGS = "gzip, deflate, br, zstd"


@dataclass(frozen=True, slots=True)
class Browser:
    """Someone who asks for images. ``accept`` is the header as it is sent, None where none is."""

    name: str
    accept: str | None
    agent: str
    encodings: str | None = _ENCODINGS

    @property
    def headers(self) -> dict[str, str]:
        """What it sends with each request for an image."""
        sent = {"User-Agent": self.agent, "Accept": self.accept, "Accept-Encoding": self.encodings}
        return {name: value for name, value in sent.items() if value is not None}


# Accept for images as MDN lists it ("List of default Accept values"), and as these browsers are seen to send it.
CHROME: Final = Browser(
    "Chrome",
    "image/avif,image/webp,image/apng,image/svg+xml,image/*,*/*;q=0.8",
    "Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/138.0.0.0 Safari/537.36",
)
FIREFOX: Final = Browser(
    "Firefox",
    "image/avif,image/webp,image/png,image/svg+xml,image/*;q=0.8,*/*;q=0.5",
    "Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0",
)
SAFARI: Final = Browser(
    "Safari",
    "image/webp,image/avif,image/jxl,image/heic,image/heic-sequence,video/*;q=0.8,image/png,image/svg+xml,"
    "image/*;q=0.8,*/*;q=0.5",
    f"{_MACINTOSH} AppleWebKit/605.1.15 (KHTML, like Gecko) Version/18.5 Safari/605.1.15",
)
OLD_SAFARI: Final = Browser(
    "Safari 13",  # WebP came with Safari 14
    "image/png,image/svg+xml,image/*;q=0.8,video/*;q=0.8,*/*;q=0.5",
    f"{_MACINTOSH} AppleWebKit/605.1.15 (KHTML, like Gecko) Version/13.1.2 Safari/605.1.15",
    "gzip, deflate, br",
)
ANYTHING: Final = Browser("curl", "*/*", "curl/8.14.1", None)  # Firefox before 65 asks so too
NOTHING: Final = Browser("clients without Accept", None, "Mozilla/5.0 (compatible; webpd check)", None)
REFUSES: Final = Browser("clients with webp;q=0", "image/webp;q=0,image/*", "Mozilla/5.0 (compatible; webpd check)")

READ_WEBP: Final = (CHROME, FIREFOX, SAFARI)
DO_NOT: Final = (OLD_SAFARI, ANYTHING, NOTHING, REFUSES)
