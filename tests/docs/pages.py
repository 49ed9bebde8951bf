"""The documents as text: their links, their commands, the names they mention."""

import re
from collections.abc import Iterator
from pathlib import Path

CHECKOUT = Path(__file__).parents[2]
# Their ``sh`` blocks are commands, every one of which a test runs.
RUN = ("README.md", "README.ru.md", "docs/install.md", "docs/install.ru.md")

_BLOCK = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")
_HEREDOC = re.compile(r"<<-?\s*['\"]?(\w+)")


def pages() -> list[Path]:
    """Return every page."""
    return sorted(
        path
        for path in (*CHECKOUT.glob("*.md"), *(CHECKOUT / "docs").rglob("*.md"), *(CHECKOUT / "bench").glob("*.md"))
        if path.is_file()
    )


def name_of(page: Path) -> str:
    return str(page.relative_to(CHECKOUT))


def commands(page: str) -> Iterator[str]:
    """Yield the commands of the page's ``sh`` blocks: a line, with those it goes on in; no comments."""
    for language, block in _BLOCK.findall((CHECKOUT / page).read_text("utf-8")):
        if language == "sh":
            yield from _commands(block)


def _commands(block: str) -> Iterator[str]:
    lines = iter(block.splitlines())
    for line in lines:
        command = line
        while command.endswith("\\"):
            command = f"{command[:-1].rstrip()} {next(lines).strip()}"
        if found := _HEREDOC.search(command):
            for more in lines:
                command += f"\n{more}"
                if more.strip() == found[1]:
                    break
        command = re.sub(r"\s+# .*$", "", command) if "\n" not in command else command
        if command.strip() and not command.lstrip().startswith("#"):
            yield command.strip()


def links(page: Path) -> Iterator[str]:
    """Yield where the page's links lead, those in code aside."""
    text = _BLOCK.sub("", page.read_text("utf-8"))
    yield from _LINK.findall(re.sub(r"`[^`\n]*`", "", text))


def anchors(page: Path) -> set[str]:
    """Return the names of the page's headings as GitHub makes them."""
    headings = re.findall(r"^#+ (.+)$", _BLOCK.sub("", page.read_text("utf-8")), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}
