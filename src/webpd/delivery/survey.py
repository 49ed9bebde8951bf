"""One image asked for by all browsers, in an order that shows what a cache does, and what that says."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Self

from webpd.delivery.answer import MODERN, ORIGINALS, Answer, Kind
from webpd.delivery.browsers import (
    ANYTHING,
    CHROME,
    DO_NOT,
    FIREFOX,
    NOTHING,
    OLD_SAFARI,
    READ_WEBP,
    REFUSES,
    SAFARI,
    Browser,
)
from webpd.delivery.client import Client, Target


@dataclass(frozen=True, slots=True)
class Asked:
    """Who asked, and what came back."""

    browser: Browser
    answer: Answer


@dataclass(frozen=True, slots=True)
class Survey:
    """All that was asked for one URL, in order; the first one is Chrome."""

    asked: tuple[Asked, ...]

    @classmethod
    def of(cls, client: Client, target: Target, first: Answer) -> Self:
        """Ask on after Chrome's ``first`` answer. Raises ``AskingError``.

        Each kind of browser asks after the other, twice: a cache gives what it keeps from one to the other.
        """
        asked = [Asked(CHROME, first)]

        def ask(browsers: Iterable[Browser]) -> None:
            asked.extend(Asked(browser, client.ask(target, headers_of(browser, target))) for browser in browsers)

        ask((OLD_SAFARI, FIREFOX, ANYTHING, SAFARI, NOTHING, REFUSES, OLD_SAFARI, CHROME))
        survey = cls(tuple(asked))
        if survey.webp is not None:  # made while we asked: those who were early ask again
            ask(browser for browser in READ_WEBP if survey.last(browser).kind in ORIGINALS)
        return cls(tuple(asked))

    def last(self, browser: Browser) -> Answer:
        """Return what the browser was given when it asked last."""
        return [each.answer for each in self.asked if each.browser is browser][-1]

    def given(self, browsers: Iterable[Browser], kinds: Iterable[Kind]) -> list[Asked]:
        """Return when one of the browsers was given one of the kinds."""
        wanted, among = {*kinds}, [*browsers]
        return [each for each in self.images if each.browser in among and each.answer.kind in wanted]

    @property
    def images(self) -> list[Asked]:
        """Who was given an image."""
        return [each for each in self.asked if each.answer.is_image]

    @property
    def webp(self) -> Asked | None:
        """Who reads WebP and was given it, or AVIF; the last one."""
        found = self.given(READ_WEBP, MODERN)
        return found[-1] if found else None

    @property
    def original(self) -> Asked | None:
        """Who does not and was given the original; the first one."""
        found = self.given(DO_NOT, ORIGINALS)
        return found[0] if found else None


def headers_of(browser: Browser, target: Target) -> dict[str, str]:
    """Return what the browser sends for an image in a page of the same site."""
    return {**browser.headers, "Referer": f"{target.origin}/"}


def names(asked: Iterable[Asked]) -> str:
    """Return who they are, each once."""
    return ", ".join(dict.fromkeys(each.browser.name for each in asked))
