"""The settings: every option, how its value is written, and where it comes from."""

from webpd.settings.load import DEFAULT_FILE, PREFIX, Loaded, load, refuse_nested
from webpd.settings.options import Settings, available_cores, database_of, shown, state_dir
from webpd.settings.urls import Site, site_of
from webpd.settings.values import Address, Owner, Rate, RedisUrl, Token

__all__ = [
    "DEFAULT_FILE",
    "PREFIX",
    "Address",
    "Loaded",
    "Owner",
    "Rate",
    "RedisUrl",
    "Settings",
    "Site",
    "Token",
    "available_cores",
    "database_of",
    "load",
    "refuse_nested",
    "shown",
    "site_of",
    "state_dir",
]
