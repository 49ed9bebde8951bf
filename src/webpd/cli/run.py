"""``webpd run``: the service."""

import signal
from typing import Annotated

import typer
from rich.filesize import decimal

from webpd.cli.options import (
    Config,
    Exclude,
    IoThreads,
    Method,
    Owner,
    Paths,
    Quality,
    StateDir,
    Workers,
    settings_from,
)
from webpd.model import Result
from webpd.settings import Settings


def run(
    paths: Paths = None,
    *,
    role: Annotated[
        str | None,
        typer.Option("--role", metavar="ROLE", help="all; or, for a tree shared by several hosts, watch or work."),
    ] = None,
    once: Annotated[bool, typer.Option("--once", help="End when all is done that there is to do now.")] = False,
    quality: Quality = None,
    method: Method = None,
    workers: Workers = None,
    io_threads: IoThreads = None,
    owner: Owner = None,
    exclude: Exclude = None,
    state_dir: StateDir = None,
    config: Config = None,
) -> None:
    """Watch the folders PATH and keep the sidecars right, until told to stop.

    SIGTERM and Ctrl-C end it when what is in flight is done; SIGHUP has it read the settings again.

    Hosts that mount the tree at the same path can share the work: --role watch finds it and hands it out by the Redis
    at WEBPD_QUEUE_URL, --role work does it, on any number of them.

    Exit code: 0 done, 1 some images failed (with --once), 2 wrong usage or settings, 3 the environment is not fit.

    \b
    Examples:
      webpd run /var/www/cdn/upload/resize_cache
      webpd run --once --state-dir ./state upload/resize_cache
      webpd run --role work /var/www/cdn/upload/resize_cache
      WEBPD_RATE_LIMIT=600/minute webpd run --config /etc/webpd.toml
    """

    def load() -> Settings:
        return settings_from(
            config,
            quality=quality,
            method=method,
            workers=workers,
            io_threads=io_threads,
            owner=owner,
            exclude=exclude,
            state_dir=state_dir,
            role=role,
        ).settings

    signal.signal(signal.SIGHUP, signal.SIG_IGN)  # until there is something that it could mean
    settings = load()

    from webpd.service.service import run as run_service

    metrics = run_service(settings, paths or None, load, once=once)
    if once:
        counts = metrics.outcomes
        shown = (Result.CONVERTED, Result.KEPT_ORIGINAL, Result.SKIPPED, Result.FAILED)
        told = ", ".join(f"{counts[result]:,} {result.replace('_', ' ')}" for result in shown)
        typer.echo(f"{told}; {decimal(metrics.source_bytes)} became {decimal(metrics.webp_bytes)}")
        if counts[Result.FAILED]:
            raise typer.Exit(1)
