"""Write docs/settings.md from the settings themselves: what stands there is never edited.

python -m tools.settings_doc [FILE]
"""

import sys
from pathlib import Path

from pydantic.fields import FieldInfo

from webpd.settings import PREFIX, Settings, shown

FILE = Path(__file__).parents[1] / "docs" / "settings.md"

GROUPS = {
    "Which images": ("roots", "exclude", "document_root", "max_pixels", "max_source"),
    "How they are encoded": ("quality", "method"),
    "What sidecars are given": ("owner", "mode", "fsync"),
    "Finding changes": ("watch", "poll_interval", "full_interval", "settle", "cache_time"),
    "Sidecars whose original is gone": ("prune_after", "prune_folders_after", "prune_share"),
    "How much it may take": (
        "workers",
        "worker_memory",
        "job_timeout",
        "io_threads",
        "rate_limit",
        "rate_limit_bytes",
        "rate_limit_urgent",
    ),
    "The service": ("state_dir", "shutdown_timeout", "log_format"),
    "What it answers, and to whom": ("health_address", "metrics_address", "token", "allowed_hosts", "hint_socket"),
    "Several hosts": ("role", "host_name", "redis_url", "queue_url"),
}

_HEAD = """\
# Settings

An option is looked for in the command's flags, then in the environment (`WEBPD_` and its name in capitals), then in a
TOML file (`--config FILE`, else the one that `WEBPD_CONFIG` names, else `/etc/webpd.toml` if it is there), then in the
defaults below. In the file the names are those of the variables without `WEBPD_`, in small letters:

    roots = ["/var/www/cdn/upload/resize_cache"]
    quality = 80
    owner = "bitrix:bitrix"
    rate_limit = "600/minute"

`webpd config` prints every option, its value, and where that came from. A wrong value ends the command with code 2 and
a line that names the variable, the value and what is allowed; so does an option in the file that does not exist, while
a variable that is none is only warned of. `webpd run` reads all of them anew on SIGHUP. Which options a command has as
flags, its `--help` says.

A variable that is empty counts as not set; but an empty `WEBPD_EXCLUDE` leaves no folder alone, and an empty
`WEBPD_ROOTS` is refused.

Lists are comma-separated or JSON, sizes such as `128MiB`, times such as `90`, `1.5s`, `2m`, `1h` or `30d`.
"""

_ROW = "| `{variable}` | {default} | {allowed} | {what} |"


def page() -> str:
    """Return the page. Raises ``ValueError`` where an option is in no group, or in two."""
    named = [name for names in GROUPS.values() for name in names]
    if sorted(named) != sorted(Settings.model_fields):
        raise ValueError(f"GROUPS and the settings differ: {set(named) ^ set(Settings.model_fields)}, or a name twice")
    parts = [_HEAD]
    for title, names in GROUPS.items():
        rows = "\n".join(_row(name, Settings.model_fields[name]) for name in names)
        parts.append(f"## {title}\n\n| variable | default | allowed | what for |\n|---|---|---|---|\n{rows}\n")
    return "\n".join(parts)


def _row(name: str, field: FieldInfo) -> str:
    extra = field.json_schema_extra
    assert isinstance(extra, dict)  # noqa: S101 - every option has one
    default = ", ".join(f"`{part}`" for part in shown(name, field.default).replace(".0MiB", "MiB").split(","))
    cells = {"default": default, "allowed": str(extra["allowed"]), "what": str(field.description)}
    escaped = {key: text.replace("|", r"\|") for key, text in cells.items()}
    return _ROW.format(variable=PREFIX + name.upper(), **escaped)


if __name__ == "__main__":
    (Path(sys.argv[1]) if sys.argv[1:] else FILE).write_text(page(), "utf-8")
