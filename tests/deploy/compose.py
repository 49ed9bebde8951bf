"""compose.yaml as Docker Compose would have it, without Docker Compose."""

import re
from pathlib import Path
from typing import Any

import yaml

REPOSITORY = Path(__file__).parents[2]
COMPOSE = (REPOSITORY / "compose.yaml").read_text("utf-8")
EXAMPLE = (REPOSITORY / ".env.example").read_text("utf-8")
DOCKERFILE = (REPOSITORY / "Dockerfile").read_text("utf-8")
DOCKERFILES = (REPOSITORY / "Dockerfile", REPOSITORY / "deploy" / "docker" / "sshfs.Dockerfile")
SECRETS = {"WEBPD_TOKEN", "REDIS_PASSWORD", "GRAFANA_PASSWORD"}
SECRET = "0123456789abcdef0123456789abcdef"  # noqa: S105 - of no server

VARIABLE = re.compile(r"(?<!\$)\$\{(\w+)(?:(:-|:\?)([^}]*))?\}")


def interpolated(whole: Any, values: dict[str, str]) -> Any:
    """Put the values in, as Compose does: ``${NAME}``, ``${NAME:-default}``, ``${NAME:?error}``, ``$$``."""

    def value(found: re.Match[str]) -> str:
        name, sign, word = found.groups()
        if given := values.get(name):
            return given
        assert sign == ":-", f"{name} is not set"
        return str(word)

    match whole:
        case str():
            return VARIABLE.sub(value, whole).replace("$$", "$")
        case list():
            return [interpolated(part, values) for part in whole]
        case dict():
            return {name: interpolated(part, values) for name, part in whole.items()}
    return whole


def composed(**values: str) -> Any:
    """Return compose.yaml with the secrets, and these values, put in."""
    return interpolated(yaml.safe_load(COMPOSE), dict.fromkeys(SECRETS, SECRET) | values)


SERVICES: dict[str, dict[str, Any]] = composed()["services"]


def mounted(service: str) -> dict[str, str]:
    """Return what is mounted in a service: by the place in the container, the place on the host or the volume."""
    found = {}
    for volume in SERVICES[service].get("volumes", ()):
        if isinstance(volume, str):
            source, target, *_ = volume.split(":")
            found[target] = source
        else:
            found[volume["target"]] = volume["source"]
    return found
