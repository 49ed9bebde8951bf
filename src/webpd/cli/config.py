"""``webpd config``: every option, its value, and where that came from."""

import json

import typer

from webpd.cli.options import Config, Json, settings_from
from webpd.settings import PREFIX, Settings, shown


def config(*, config_file: Config = None, as_json: Json = False) -> None:
    """Print every option with its value and where the value came from, as webpd would use it now.

    \b
    Examples:
      webpd config
      WEBPD_QUALITY=75 webpd config --config ./webpd.toml --json
    """
    loaded = settings_from(config_file)
    rows = [
        {
            "option": name,
            "variable": PREFIX + name.upper(),
            "value": shown(name, getattr(loaded.settings, name)),
            "origin": loaded.origin[name],
            "help": field.description,
        }
        for name, field in Settings.model_fields.items()
    ]
    if as_json:
        typer.echo(json.dumps(rows, ensure_ascii=False))
        return
    for row in rows:
        typer.echo(f"{row['variable']}={row['value']}  ({row['origin']})\n    {row['help']}")
