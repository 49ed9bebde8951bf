"""Moments as people and programs read them."""

from datetime import UTC, datetime


def ago(seconds: float) -> str:
    """Return in words how long that is past."""
    if seconds < 1:
        return "just now"
    for length, word in ((86_400, "day"), (3600, "hour"), (60, "minute"), (1, "second")):
        if (count := int(seconds // length)) > 0:
            return f"{count:,} {word}{'s' if count > 1 else ''} ago"
    raise AssertionError(seconds)


def utc(moment: float) -> str:
    """Return the Unix time as RFC 3339 has it, in whole seconds of UTC."""
    return datetime.fromtimestamp(moment, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
