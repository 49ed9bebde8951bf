"""The commands, and what they print. Nothing heavy is imported before a command needs it."""

import sys

import typer

from webpd import __version__
from webpd.cli.check import check
from webpd.cli.config import config
from webpd.cli.convert import convert
from webpd.cli.doctor import doctor
from webpd.cli.failures import failures
from webpd.cli.nginx import nginx
from webpd.cli.prune import prune
from webpd.cli.run import run
from webpd.cli.status import status
from webpd.cli.verify import verify
from webpd.errors import UsageError, WebpdError

cli = typer.Typer(
    name="webpd",
    help="Keep a WebP sidecar beside every JPEG and PNG of a tree: photo.jpg, photo.jpg.webp.",
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)
cli.command()(convert)
cli.command()(run)
cli.command()(status)
cli.command()(failures)
cli.command()(doctor)
cli.command()(check)
cli.command()(verify)
cli.command()(prune)
cli.command()(nginx)
cli.command()(config)


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"webpd {__version__}")
        raise typer.Exit


@cli.callback()
def _all(
    version: bool = typer.Option(
        False, "--version", callback=_print_version, is_eager=True, help="Print the version and stop."
    ),
) -> None:
    """Say what every command has in common."""


def main() -> None:
    """Run the command that the arguments name; end with its exit code."""
    try:
        cli()
    except UsageError as error:
        typer.echo(f"webpd: {error}", err=True)
        sys.exit(2)
    except WebpdError as error:  # what is neither the usage nor one image is the environment
        typer.echo(f"webpd: {error}", err=True)
        sys.exit(3)
