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
# Of the first sentences themselves, a list of commands would show the beginnings.
cli.command(short_help="Convert what has no right sidecar yet, in one pass.")(convert)
cli.command(short_help="Be the service: watch folders, and keep the sidecars right.")(run)
cli.command(short_help="Tell how the service is, and what came of the images.")(status)
cli.command(short_help="List the images that failed, or have them tried again.")(failures)
cli.command(short_help="Look at all that the service needs, and say what to do.")(doctor)
cli.command(short_help="Ask a site for images as browsers do, and say what is wrong.")(check)
cli.command(short_help="Check that each sidecar decodes and shows its original.")(verify)
cli.command(short_help="Show the sidecars whose original is gone, or remove them.")(prune)
cli.command(short_help="Print the configuration by which nginx serves the sidecars.")(nginx)
cli.command(short_help="Print every option, its value, and where that came from.")(config)


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
