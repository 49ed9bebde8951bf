"""What several commands take, and the settings that come of it."""

import logging
import os
import signal
import sys
from types import FrameType
from typing import Annotated, NoReturn

import typer

from webpd.settings import Loaded, load

Paths = Annotated[
    list[str] | None,
    typer.Argument(metavar="PATH", help="Folders or images; default: WEBPD_ROOTS.", show_default=False),
]
Config = Annotated[
    str | None, typer.Option("--config", metavar="FILE", help="Settings file, TOML; default: /etc/webpd.toml if there.")
]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON object.")]
Quality = Annotated[str | None, typer.Option("--quality", metavar="0-100", help="WebP quality.")]
Method = Annotated[str | None, typer.Option("--method", metavar="0-6", help="WebP effort: 0 is fast, 6 is small.")]
Workers = Annotated[
    str | None, typer.Option("--workers", metavar="N", help="Codec processes; auto: one for each core.")
]
IoThreads = Annotated[str | None, typer.Option("--io-threads", metavar="N", help="Images in flight at once, or auto.")]
Owner = Annotated[str | None, typer.Option("--owner", metavar="USER:GROUP", help="Owner of the sidecars, or keep.")]
Exclude = Annotated[
    str | None, typer.Option("--exclude", metavar="PATTERNS", help="Folders left alone, comma-separated.")
]

StateDir = Annotated[
    str | None, typer.Option("--state-dir", metavar="DIR", help="Folder for what is remembered.", show_default=False)
]


def settings_from(config: str | None, **flags: object) -> Loaded:
    """Return the settings, warn of variables that are none of ours, and send warnings to standard error.

    Raises ``UsageError``.
    """
    logging.basicConfig(format="webpd: %(levelname)s: %(message)s", level=logging.WARNING, stream=sys.stderr)
    loaded = load({name: value for name, value in flags.items() if value is not None}, os.environ, config)
    for variable in loaded.unknown:
        logging.getLogger(__name__).warning("%s is set, but there is no such option", variable)
    return loaded


def interrupt_on_sigterm() -> None:
    """Let SIGTERM do what Ctrl-C does."""

    def interrupt(signum: int, frame: FrameType | None) -> NoReturn:  # noqa: ARG001 - the signature is Python's
        raise KeyboardInterrupt

    signal.signal(signal.SIGTERM, interrupt)
