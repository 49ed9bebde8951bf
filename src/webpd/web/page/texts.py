"""What the page says, in each of its languages: ``texts/*.toml`` have the words."""

import os
import re
import tomllib
from collections.abc import Mapping
from types import MappingProxyType

LANGUAGES: Mapping[str, str] = MappingProxyType({"en": "English", "ru": "Русский"})
"""Each language by its code, in its own name; the first is for those who ask for none of them."""

_FOLDER = os.path.join(os.path.dirname(__file__), "texts")
# RFC 9110 sections 12.4.2 and 12.5.4: a language range and how much it is liked.
_RANGE = re.compile(r"\s*([a-zA-Z]{1,8})(?:-[a-zA-Z0-9]{1,8})*\s*(?:;\s*q\s*=\s*([01](?:\.\d{0,3})?))?\s*")
_LONGEST = 1000


def texts(lang: str) -> Mapping[str, str]:
    """Return all texts in that language, by key."""
    with open(os.path.join(_FOLDER, f"{lang}.toml"), "rb") as file:
        return tomllib.load(file)


def language_for(wanted: str, accepted: str) -> str:
    """Return the language asked for, else the one that an ``Accept-Language`` header likes best."""
    if wanted in LANGUAGES:
        return wanted
    found = filter(None, map(_RANGE.fullmatch, accepted[:_LONGEST].split(",")))
    liked = {each[1].lower(): float(each[2] or 1) for each in found}
    return max(LANGUAGES, key=lambda lang: liked.get(lang, 0.0))
