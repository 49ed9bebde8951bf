"""The numbers of the page, gathered once for all who watch, and sent to each as they change."""

import asyncio
import json
import time
from collections.abc import AsyncIterator, Mapping
from typing import Any

import structlog

from webpd.web.page.aside import Aside
from webpd.web.page.subject import PageSubject
from webpd.web.page.texts import Phrasebook

_log = structlog.get_logger(__name__)

_INTERVAL = 1.0
"""Seconds between two looks."""
_SHARE = 10
"""Looking up rests this many times as long as it took: a large history costs its disk no more than a tenth."""
_PATIENCE = 0.3
"""Seconds for which a look is waited for; what it finds later is sent then."""
_WITHIN = 10.0
"""Seconds that looking up may take until the page is told so."""
_SILENCE = 15.0
"""Seconds after which something is sent although nothing changed: proxies cut what is silent."""
_CURE = "; upload it again"


class Feed:
    """What the page shows now, by section. Belongs to one event loop; asks the subject once however many watch."""

    def __init__(self, subject: PageSubject) -> None:
        self._subject = subject
        self._aside = Aside(1)
        self._look: asyncio.Task[None] | None = None
        self._due = 0.0
        self._remembered: Mapping[str, Any] = {}

    async def sections(self) -> dict[str, Any]:
        """Return what there is to show: how things stand now, and what the last look at the history found."""
        if (self._look is None or self._look.done()) and time.monotonic() >= self._due:
            self._look = asyncio.create_task(self._look_up())
        if self._look is not None:
            await asyncio.wait([self._look], timeout=_PATIENCE)
        return {**self._subject.live(), **self._remembered}

    async def events(self, phrasebook: Phrasebook) -> AsyncIterator[bytes]:
        """Yield server-sent events: each section at first, and then whenever it has changed, until the service stops.

        The event's type is the section's name, its data JSON. Parts and failures are told in the phrasebook's language.
        """
        sent: dict[str, str] = {}
        silent_since = time.monotonic()
        while True:
            sections = await self.sections()
            if "parts" in sections:
                sections["parts"] = [_said(part, phrasebook, "reason", "cure") for part in sections["parts"]]
            if "failures" in sections:
                failures = sections["failures"]
                sections["failures"] = {**failures, "shown": [_failed(one, phrasebook) for one in failures["shown"]]}
            told = {name: json.dumps(value, ensure_ascii=True) for name, value in sections.items()}
            news = "".join(f"event: {name}\ndata: {text}\n\n" for name, text in told.items() if sent.get(name) != text)
            if not news and time.monotonic() - silent_since >= _SILENCE:
                news = ": still here\n\n"
            if news:
                silent_since = time.monotonic()
                yield news.encode("ascii")
            sent = told
            if not await self._subject.pause(_INTERVAL):
                return

    async def _look_up(self) -> None:
        begun = time.monotonic()
        try:
            found = await self._aside.call(self._subject.remembered, _WITHIN)
            self._remembered = {**found, "trouble": found.get("trouble")}
        except TimeoutError:
            self._remembered = {**self._remembered, "trouble": "slow"}
        except Exception as error:
            if self._remembered.get("trouble") != str(error):
                _log.warning("the page can't show what is remembered", detail=str(error))
            self._remembered = {**self._remembered, "trouble": str(error)}
        now = time.monotonic()
        self._due = max(begun + 0.9 * _INTERVAL, now + _SHARE * (now - begun))


def _failed(failure: Mapping[str, Any], phrasebook: Phrasebook) -> Mapping[str, Any]:
    """Return the failure with its detail, but for the cure of a damaged image: the page has one for each reason."""
    return _said({**failure, "detail": failure["detail"].removesuffix(_CURE)}, phrasebook, "detail")


def _said(told: Mapping[str, Any], phrasebook: Phrasebook, *names: str) -> Mapping[str, Any]:
    """Return what is told with these texts as the phrasebook has them; ``in_english`` names those that it has not."""
    said = {name: phrasebook.say(told[name]) for name in names}
    known = {name: text for name, text in said.items() if text is not None}
    return {**told, **known, "in_english": [name for name in said if name not in known]}
