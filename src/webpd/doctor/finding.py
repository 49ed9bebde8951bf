"""What one check comes to."""

from dataclasses import dataclass
from enum import StrEnum

from webpd.printable import printable


class Verdict(StrEnum):
    """How what was looked at is."""

    OK = "ok"
    UNKNOWN = "unknown"
    """It could not be looked at; the detail says why."""
    WARNING = "warning"
    """The service does its work, but worse than it could, or not for long."""
    FAULT = "fault"
    """The service can't do its work."""


@dataclass(frozen=True, slots=True)
class Finding:
    """What was looked at, and how it is.

    ``id`` names the check and does not change between versions; ``subject`` is what it belongs to, such as a root.
    ``cure`` says what to do, with the command; it is empty where all is well.
    """

    id: str
    subject: str
    verdict: Verdict
    detail: str
    cure: str = ""


class Topic:
    """Makes the findings about one subject. Paths in them need not be UTF-8."""

    def __init__(self, subject: str) -> None:
        self._subject = printable(subject)

    def ok(self, id_: str, detail: str) -> Finding:
        return self._find(id_, Verdict.OK, detail, "")

    def unknown(self, id_: str, detail: str, cure: str) -> Finding:
        return self._find(id_, Verdict.UNKNOWN, detail, cure)

    def warning(self, id_: str, detail: str, cure: str) -> Finding:
        return self._find(id_, Verdict.WARNING, detail, cure)

    def fault(self, id_: str, detail: str, cure: str) -> Finding:
        return self._find(id_, Verdict.FAULT, detail, cure)

    def _find(self, id_: str, verdict: Verdict, detail: str, cure: str) -> Finding:
        return Finding(id_, self._subject, verdict, printable(detail), printable(cure))
