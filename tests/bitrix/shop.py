"""A shop whose pages make and delete thumbnails, under real PHP."""

import json
import os
import re
import shutil
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.bitrix.listener import TOKEN
from tests.conftest import write

HERE = Path(__file__).parent
HANDLER = HERE.parents[1] / "deploy" / "bitrix" / "webpd.php"
PHOTO = ("iblock/0ab", "photo.jpg")
OTHER_TOKEN = "another-token-of-the-tests"  # noqa: S105 - nobody has it


TELL = r"""
function tell(string $path): void
{
    $none = null;
    foreach (GetModuleEvents('main', 'OnAfterResizeImage') as $event) {
        ExecuteModuleEventEx($event, [[], [], &$none, &$path, &$none, &$none]);
    }
}
"""
"""What Bitrix does once the thumbnail of that path is made."""

LATER = """
function later(): void
{
    $since = new ReflectionProperty('WebpdHint', 'since');
    $since->setAccessible(true);
    $since->setValue(null, $since->getValue() - (WebpdHint::SPAN + 1) * 1000000000);
}
"""
"""Lets a span of time pass, without waiting for it."""


@dataclass(frozen=True)
class Page:
    """What the visitor got, and what it cost him, in seconds."""

    text: str
    handlers: float
    end: float
    finished: bool

    @property
    def cost(self) -> float:
        return self.handlers + self.end


class Shop:
    """A document root with uploads, and pages that make and delete thumbnails of them."""

    def __init__(self, root: Path, photograph: Callable[..., bytes]) -> None:
        self.root = root
        self.handler = HANDLER
        self.cache = root / "upload" / "resize_cache"
        self.original = photograph(400)
        self.thumbnail = write(root / "thumbnail.tmp", photograph(120))

    def change_handler(self, pattern: str, by: str) -> None:
        """Take a file for init.php in which this regex is replaced; it must be there."""
        text, times = re.subn(pattern, by, self.handler.read_text("utf-8"))
        assert times
        self.handler = write(self.root / "webpd.php", text.encode())

    def have_time(self) -> None:
        """Give no hint up because others have the processor."""
        self.change_handler(r"BUDGET = 0\.08;", "BUDGET = 20.0;")

    def upload(self, subdir: str, name: str) -> None:
        write(self.root / "upload" / subdir / name, self.original)

    def page(self, url: str | None, *options: str, token: str = TOKEN, address: str = "", **events: Any) -> Page:
        """Show a page on which this happens (``page.php``). Fails where PHP says anything but the page."""
        define = {} if url is None else {"WEBPD_HINT_URL": url, "WEBPD_TOKEN": token, "WEBPD_HINT_ADDRESS": address}
        cost = self.root / "cost.json"
        asked = {
            "root": str(self.root),
            "handler": str(self.handler),
            "cost": str(cost),
            "define": define,
            **events,
        }
        # Without php.ini, whose error_log may be a file.
        strict = ("-n", "-d", "error_reporting=-1", "-d", "display_errors=stderr", "-d", "html_errors=0")
        done = subprocess.run(
            ("php", *strict, *options, str(HERE / "page.php")),
            input=json.dumps(asked),
            env={name: value for name, value in os.environ.items() if not name.startswith("WEBPD_")},
            capture_output=True,
            text=True,
            check=False,
            timeout=60,
        )
        assert (done.returncode, done.stderr) == (0, "")
        measured = json.loads(cost.read_text())
        return Page(done.stdout, measured["handlers"] / 1e9, measured["end"] / 1e9, measured["finished"])

    def run(self, code: str, port: int) -> None:
        """Run this PHP, as agents of cron would be. Fails where PHP says anything."""
        define = f"define('WEBPD_HINT_URL', '{url_of(port)}'); define('WEBPD_TOKEN', '{TOKEN}');"
        whole = f"{define} require '{HERE}/bitrix.php'; require '{self.handler}'; {TELL} {LATER} {code}"
        command = ("php", "-n", "-d", "extension=iconv", "-r", whole)
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
        assert (done.returncode, done.stdout, done.stderr) == (0, "", "")

    def pages_until(self, seconds: float, url: str, resize: list[list[Any]]) -> Iterator[Page]:
        """Show the page, all its thumbnails to be made anew, until it costs less than that, 120 times at most.

        For what may be late now and then because others have the processor.
        """
        for _ in range(120):
            shutil.rmtree(self.cache, ignore_errors=True)
            page = self.page(url, resize=resize)
            yield page
            if page.cost < seconds:
                return

    def resize(self, *images: tuple[str, str], width: int = 120) -> list[list[Any]]:
        """Return what a page is to be told so that it makes these thumbnails; the originals are uploaded."""
        for subdir, name in images:
            self.upload(subdir, name)
        return [[subdir, name, width, str(self.thumbnail)] for subdir, name in images]


def url_of(port: int, scheme: str = "http", host: str = "127.0.0.1") -> str:
    return f"{scheme}://{host}:{port}/hint"
