"""What a real nginx answers with the printed configuration, for every case that matters; the table in docs/nginx.md.

python -m tests.nginx.matrix      writes the table anew
"""

import os
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from tests.nginx.server import Answer, Nginx, printed

DOCUMENT = Path(__file__).parents[2] / "docs" / "nginx.md"
BEGIN, END = "<!-- matrix: python -m tests.nginx.matrix -->\n", "<!-- end of matrix -->\n"

TAKES = {
    "Chrome": "image/avif,image/webp,image/apng,image/svg+xml,image/*,*/*;q=0.8",
    "Firefox": "image/avif,image/webp,image/png,image/svg+xml,image/*;q=0.8,*/*;q=0.5",
    "Safari 16": "image/webp,image/avif,video/*;q=0.8,image/png,image/svg+xml,image/*;q=0.8,*/*;q=0.5",
    "capitals, spaces": "image/jpeg, IMAGE/WEBP ; Q=0.8",
    "hardly": "image/jpeg,image/webp;q=0.001",
}
TAKES_NOT: dict[str, str | None] = {
    "Safari 13": "image/png,image/svg+xml,image/*;q=0.8,video/*;q=0.8,*/*;q=0.5",
    "curl": "*/*",
    "any image": "image/*",
    "no header": None,
    "refuses it": "image/webp;q=0,image/jpeg",
    "with a parameter": "image/jpeg,image/webp;level=1;q=0.000,*/*",
    "something else": "image/webpx,x-image/webp,image/*",
}
ACCEPTS = TAKES | TAKES_NOT
STATES = ("there", "missing", "foreign", "stale")
REQUESTS = ("GET", "HEAD", "If-None-Match", "Range")
PATH = "/upload/resize_cache/iblock/abc/300_300_1/{state}.jpg"

JPEG, NEW_JPEG = b"\xff\xd8\xff the original" * 60, b"\xff\xd8\xff overwritten in place" * 60
WEBP, FOREIGN = b"RIFF....WEBP the sidecar" * 20, b"RIFF....WEBP of somebody else" * 20
_DATE = 1_700_000_000


@dataclass(frozen=True)
class Case:
    """One request, and its answer; ``first`` is the answer to a plain GET by the same browser, ``other`` to a browser
    of the other kind."""

    browser: str
    state: str
    request: str
    answer: Answer
    first: Answer
    other: Answer

    @property
    def sidecar(self) -> bool:
        """Whether the sidecar is wanted."""
        return self.browser in TAKES and self.state != "missing"

    @property
    def body(self) -> bytes:
        """The whole of the file that is wanted."""
        if self.sidecar:
            return FOREIGN if self.state == "foreign" else WEBP
        return NEW_JPEG if self.state == "stale" else JPEG

    @property
    def seconds(self) -> int:
        """How long the answer is wanted to be kept."""
        return 60 if self.browser in TAKES and self.state == "missing" else 30 * 86_400


def lay_out(folder: Path) -> Path:
    """Lay out an original in each state, and return the root."""
    root = folder / "www" / "upload" / "resize_cache"
    for state in STATES:
        original = root.parent.parent / PATH.format(state=state)[1:]
        original.parent.mkdir(parents=True, exist_ok=True)
        original.write_bytes(NEW_JPEG if state == "stale" else JPEG)
        os.utime(original, (_DATE + 60, _DATE + 60) if state == "stale" else (_DATE, _DATE))
        if state != "missing":
            sidecar = original.with_name(f"{original.name}.webp")
            sidecar.write_bytes(FOREIGN if state == "foreign" else WEBP)
            date = _DATE - 60 if state == "foreign" else _DATE
            os.utime(sidecar, (date, date))
    return root


def observe(nginx: Nginx) -> Iterator[Case]:
    """Ask for everything."""
    for browser, accept in ACCEPTS.items():
        headers = {} if accept is None else {"Accept": accept}
        for state in STATES:
            path = PATH.format(state=state)
            first = nginx.ask_with(path, headers)
            other = nginx.ask_with(path, {} if browser in TAKES else {"Accept": "image/webp"})
            further = {"If-None-Match": {"If-None-Match": first.headers["ETag"]}, "Range": {"Range": "bytes=5-24"}}
            for request in REQUESTS:
                method = "HEAD" if request == "HEAD" else "GET"
                answer = nginx.ask_with(path, headers | further.get(request, {}), method)
                yield Case(browser, state, request, answer, first, other)


def table(cases: list[Case]) -> str:
    """Return what was answered, as the table of the document."""
    lines = [f"| `Accept` | {' | '.join(STATES)} |", "|---|" + "---|" * len(STATES)]
    for browser, accept in ACCEPTS.items():
        told = f"{browser}: `{accept}`" if accept else browser
        lines.append(f"| {told} | {' | '.join(_cell(cases, browser, state) for state in STATES)} |")
    return "\n".join(lines) + "\n"


def _cell(cases: list[Case], browser: str, state: str) -> str:
    answers = [case.answer for case in cases if (case.browser, case.state) == (browser, state)]
    kind = {"image/webp": "**WebP**", "image/jpeg": "JPEG"}[answers[0].headers["Content-Type"]]
    seconds = int(answers[0].headers["Cache-Control"].removeprefix("max-age="))
    return f"{kind} {' '.join(str(answer.status) for answer in answers)}, {_shown(seconds)}"


def _shown(seconds: int) -> str:
    return f"{seconds // 86_400} d" if seconds >= 86_400 else f"{seconds} s"


def documented() -> str:
    """Return the table as the document has it."""
    return DOCUMENT.read_text("utf-8").partition(BEGIN)[2].partition(END)[0]


def main() -> None:
    """Ask, and write the table into the document."""
    with tempfile.TemporaryDirectory(prefix="webpd-matrix-") as name:
        folder = Path(name)
        with Nginx(folder / "nginx", *printed(lay_out(folder))) as nginx:
            found = table(list(observe(nginx)))
    text = DOCUMENT.read_text("utf-8")
    DOCUMENT.write_text(text.replace(f"{BEGIN}{documented()}{END}", f"{BEGIN}{found}{END}"), "utf-8")


if __name__ == "__main__":
    main()
