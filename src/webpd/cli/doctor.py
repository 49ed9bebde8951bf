"""``webpd doctor``: what is wrong, and what to do."""

import os
from typing import TYPE_CHECKING

from webpd.cli.findings import tell
from webpd.cli.options import Config, Json, Paths, StateDir, interrupt_on_sigterm
from webpd.errors import UsageError
from webpd.settings import load, refuse_nested

if TYPE_CHECKING:
    from collections.abc import Iterator

    from webpd.doctor.finding import Finding


def doctor(
    paths: Paths = None,
    *,
    state_dir: StateDir = None,
    config: Config = None,
    as_json: Json = False,
) -> None:
    """Look at all that the service needs, and say for each fault what to do.

    The folders PATH and how they are mounted, whether sidecars can be written there as the service writes them, the
    state folder, limits of the kernel, Redis, addresses, the codecs, other modules, and the service if it runs. It
    writes small files of its own, and removes them. Run it as the user of the service, with the service's settings.

    With --json, a list of the checks: id, subject, verdict (ok, unknown, warning, fault), detail, cure.

    Exit code: 0 no fault, 2 wrong usage, 3 a fault, 130 interrupted.

    \b
    Examples:
      webpd doctor
      webpd doctor /var/www/cdn/upload/resize_cache
      webpd doctor --json | jq '.[] | select(.verdict == "fault")'
    """
    interrupt_on_sigterm()
    tell(_examine(paths, state_dir, config), as_json)


def _examine(paths: list[str] | None, state_dir: str | None, config: str | None) -> "Iterator[Finding]":
    from webpd.doctor.examination import examine
    from webpd.doctor.finding import Topic

    try:
        loaded = load({"state_dir": state_dir} if state_dir else {}, os.environ, config)
    except UsageError as error:
        cure = "correct it where it is set; `webpd config` then shows all options"
        yield Topic("settings").fault("settings.valid", str(error), cure)
        return
    if paths:
        if "" in paths:
            raise UsageError("PATH: an empty path: is a variable unset?")
        refuse_nested(tuple(paths), "PATH", os.path.abspath)  # asks no mount
    yield from examine(loaded, [os.path.abspath(path) for path in paths or loaded.settings.roots])
