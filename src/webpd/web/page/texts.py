"""What the page says, in each of its languages: ``texts/*.toml`` have the words."""

import functools
import itertools
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
_FIELD = re.compile(r"\{(\w+)\}")
_NUMBER = "[0-9,]+"
_MOST_SAID = 256
"""Sentences kept in mind: those of now are said each second to each who watches."""


def texts(lang: str) -> Mapping[str, str]:
    """Return all texts in that language, by key."""
    with open(os.path.join(_FOLDER, f"{lang}.toml"), "rb") as file:
        return tomllib.load(file)


class Phrasebook:
    """Says in one language what the service says in English of its parts.

    A sentence is known again by its form: ``texts/*.sentences.toml`` have pairs in which ``{number}`` stands for a
    number, and any other ``{name}`` for any text, which is said in that language too where it is known. So those who
    make the sentences need no keys for them.
    """

    def __init__(self, pairs: Mapping[str, str]) -> None:
        # What is most like the sentence first: the form with the most letters of its own.
        forms = sorted(pairs, key=lambda form: -len(_FIELD.sub("", form)))
        self._forms = [(re.compile(_pattern(form), re.DOTALL), pairs[form]) for form in forms]
        self.say = functools.lru_cache(maxsize=_MOST_SAID)(self._say)
        """Return the sentence in that language, None where it is not known."""

    def _say(self, sentence: str) -> str | None:
        for form, said in self._forms:
            if found := form.fullmatch(sentence):
                return said.format(**{name: self._say(value) or value for name, value in found.groupdict().items()})
        return None


def phrasebook(lang: str) -> Phrasebook:
    """Return what the service's sentences are in that language; it knows none where there is no file of them."""
    try:
        with open(os.path.join(_FOLDER, f"{lang}.sentences.toml"), "rb") as file:
            return Phrasebook(tomllib.load(file))
    except FileNotFoundError:  # English needs none
        return Phrasebook({})


def _pattern(form: str) -> str:
    parts = _FIELD.split(form)
    fields = [f"(?P<{name}>{_NUMBER if name == 'number' else '.+?'})" for name in parts[1::2]]
    return "".join(itertools.chain(*zip(map(re.escape, parts[::2]), [*fields, ""], strict=True)))


def language_for(wanted: str, accepted: str) -> str:
    """Return the language asked for, else the one that an ``Accept-Language`` header likes best."""
    if wanted in LANGUAGES:
        return wanted
    found = filter(None, map(_RANGE.fullmatch, accepted[:_LONGEST].split(",")))
    liked = {each[1].lower(): float(each[2] or 1) for each in found}
    return max(LANGUAGES, key=lambda lang: liked.get(lang, 0.0))
