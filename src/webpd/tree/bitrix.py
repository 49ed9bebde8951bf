"""What 1C-Bitrix does in ``resize_cache``, as far as it decides when a file may be believed.

``CFile::ResizeImageGet`` keeps a thumbnail in a folder named ``{WIDTH}_{HEIGHT}_{type}``. It first copies the full-size
original to the thumbnail's own path, and some moments later puts the thumbnail there: until then the picture is larger
than its folder says.
"""

import os
import re

_FOLDER = re.compile(r"([1-9]\d{0,4})_([1-9]\d{0,4})_[012][0-9a-f]*")
_PNG = b"\x89PNG\r\n\x1a\n"
# Frame headers of ITU-T T.81, table B.1: SOF0 to SOF15 but DHT, JPG and DAC.
_FRAMES = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}


def oversized(path: str, data: bytes) -> bool:
    """Tell whether the picture is larger than its ``{WIDTH}_{HEIGHT}_{type}`` folder allows, either way up."""
    folder = _FOLDER.fullmatch(os.path.basename(os.path.dirname(path)))
    size = folder and _size(data)
    if not folder or not size:
        return False
    allowed = sorted((int(folder[1]), int(folder[2])))
    return any(side > limit for side, limit in zip(sorted(size), allowed, strict=True))


def _size(data: bytes) -> tuple[int, int] | None:
    """Return width and height in pixels as the header says, None where it is not found. Decodes nothing."""
    if data.startswith(_PNG) and len(data) >= 24:
        return int.from_bytes(data[16:20], "big"), int.from_bytes(data[20:24], "big")
    at = 2
    while data.startswith(b"\xff\xd8") and at + 9 <= len(data) and data[at] == 0xFF:
        if data[at + 1] in _FRAMES:
            return int.from_bytes(data[at + 7 : at + 9], "big"), int.from_bytes(data[at + 5 : at + 7], "big")
        at += 1 if data[at + 1] == 0xFF else 2 + int.from_bytes(data[at + 2 : at + 4], "big")
    return None
