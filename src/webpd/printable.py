"""Names that need not be UTF-8, as text."""


def printable(name: str) -> str:
    """Return the name as text that any terminal or JSON reader takes: what is not UTF-8 comes backslash-escaped."""
    return name.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
