"""What a conversion gives, on either side of the process border."""

from dataclasses import dataclass

from webpd.model import Picture


@dataclass(frozen=True, slots=True)
class Converted:
    """A complete WebP file, and what was learnt of the source on the way."""

    webp: bytes
    picture: Picture


# Counts up when the same source under the same settings comes out better than before, so that
# `webpd convert --reconvert-changed` finds the sidecars that an older version made.
REVISION = 1
