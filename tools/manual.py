"""Write the manual page and the completions for shells, which tell what the commands tell of themselves.

python -m tools.manual [FOLDER]
"""

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import typer

from webpd.cli import cli
from webpd.settings import PREFIX, Settings, shown

FOLDER = Path(__file__).parents[1] / "docs" / "man"
COMPLETIONS = {"bash": "webpd.bash", "zsh": "_webpd", "fish": "webpd.fish"}
"""Shells, and the names that their completions must have."""

_EXITS = {
    0: "done",
    1: "some images failed; with verify, something is wrong",
    2: "wrong usage or settings",
    3: "the environment is not fit: mount, disk, permission",
    130: "interrupted",
}
_FILES = {
    "/etc/webpd.toml": "settings: one line for each option, in lower case and without WEBPD_, such as quality = 75",
    "/etc/webpd.env": "variables for webpd.service that nobody else is to read, such as WEBPD_TOKEN",
    "/var/lib/webpd": "what `webpd run` remembers: folders that are done, images that fail, totals",
    "/run/webpd/hint.sock": "where nginx tells `webpd run` of images that visitors ask for",
}
# Not on paper that carries a date: the same commands always make the same page.
_HEAD = '.TH WEBPD 1 "" webpd "Commands"'


def write(folder: Path = FOLDER) -> None:
    """Write all files into the folder; it is made if need be."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in files().items():
        (folder / name).write_text(text, "utf-8")


def files() -> dict[str, str]:
    """Return the texts by name of file."""
    return {"webpd.1": page()} | {name: completion(shell) for shell, name in COMPLETIONS.items()}


def completion(shell: str) -> str:
    """Return the script by which the shell completes webpd's commands and options."""
    environment = os.environ | {f"_{cli.info.name}_complete".upper(): f"source_{shell}"}
    command = Path(sys.executable).with_name("webpd")
    done = subprocess.run([command], env=environment, capture_output=True, text=True, check=True)  # noqa: S603 - ours
    script = done.stdout.strip() + "\n"
    if shell == "zsh":  # loaded by zsh itself at the first completion, which it then is to answer
        script += '[[ $zsh_eval_context[-1] == loadautofunc ]] && _webpd_completion "$@"\n'
    return script


def page() -> str:
    """Return the manual page."""
    lines = [
        _HEAD,
        *_section("Name"),
        r"webpd \- keeps a WebP sidecar beside every JPEG and PNG of a tree",
        *_section("Synopsis"),
        r".B webpd",
        r"COMMAND [\fIOPTION\fR]... [\fIPATH\fR]...",
        *_section("Description"),
        _text(
            "webpd makes photo.jpg.webp beside photo.jpg, so that a web server can give the smaller file to browsers "
            "that take it, and keeps such sidecars right while the tree changes. It converts in sealed processes, "
            "publishes only whole files, and touches no file that it did not make."
        ),
        *_section("Commands"),
    ]
    group: Any = typer.main.get_command(cli)
    for name, command in group.commands.items():
        lines += _command(name, command)
    lines += [
        *_section("Settings"),
        _text(
            "Options come from flags, from these variables, and from a TOML file (--config, WEBPD_CONFIG, else "
            "/etc/webpd.toml), in that order. `webpd config` prints the values and where each came from."
        ),
        *_settings(),
        *_section("Exit status"),
        *_definitions({str(code): meaning for code, meaning in _EXITS.items()}),
        *_section("Signals of webpd run"),
        _text(
            "SIGTERM and SIGINT end it when what is in flight is done; twice: at once. SIGHUP has it read its settings."
        ),
        *_section("Files"),
        *_definitions(_FILES),
    ]
    return "\n".join(lines) + "\n"


def _section(title: str) -> list[str]:
    return [f'.SH "{title.upper()}"']


def _command(name: str, command: Any) -> Iterator[str]:
    arguments = [f"[\\fI{_text(each.metavar.strip('[].'))}\\fR]..." for each in _arguments(command)]
    synopsis = " ".join(["webpd", _text(name), r"[\fIOPTION\fR]...", *arguments])
    yield f'.SS "{synopsis}"'
    *blocks, last = command.help.strip().split("\n\n")
    examples = last.partition("\b\n")[2] if "\b\nExamples:" in last else ""
    for block in blocks if examples else [*blocks, last]:
        before, _, lines = block.partition("\b\n")
        yield from _as_it_is(lines.splitlines()) if lines else (_text(" ".join(before.split())), ".PP")
    context = typer.Context(command)
    records = (option.get_help_record(context) for option in command.params if option.param_type_name == "option")
    yield from _definitions(dict(record for record in records if record))
    if examples:
        heading, *rest = examples.splitlines()
        yield from (".PP", _text(heading), ".PP", *_as_it_is([f"    {line.strip()}" for line in rest]))


def _as_it_is(lines: list[str]) -> Iterator[str]:
    yield from (".nf", *map(_text, lines), ".fi", ".PP")


def _arguments(command: Any) -> list[Any]:
    return [each for each in command.params if each.param_type_name == "argument"]


def _settings() -> Iterator[str]:
    told = {}
    for name, field in Settings.model_fields.items():
        extra: Any = field.json_schema_extra
        default = shown(name, field.get_default(call_default_factory=True))
        told[PREFIX + name.upper()] = f"{field.description} Allowed: {extra['allowed']}. Default: {default}."
    yield from _definitions(told)


def _definitions(told: dict[str, str]) -> Iterator[str]:
    for term, meaning in told.items():
        yield from (".TP", f".B {_text(term)}", _text(meaning))


def _text(text: str) -> str:
    """Return it so that groff prints it as it is, what stands between backquotes in bold."""
    escaped = text.replace("\\", "\\e").replace("-", "\\-")
    escaped = re.sub(r"`([^`]+)`", r"\\fB\1\\fR", escaped)
    return f"\\&{escaped}" if escaped.startswith((".", "'")) else escaped


if __name__ == "__main__":
    write(Path(sys.argv[1]) if sys.argv[1:] else FOLDER)
