"""``webpd convert``: one pass over a tree."""

import contextlib
import json
from collections.abc import Callable, Iterator
from functools import partial
from typing import TYPE_CHECKING, Annotated

import typer
from rich.filesize import decimal

from webpd.cli.options import (
    Config,
    Exclude,
    IoThreads,
    Json,
    Method,
    Owner,
    Paths,
    Quality,
    Workers,
    interrupt_on_sigterm,
    settings_from,
)
from webpd.model import Result
from webpd.printable import printable
from webpd.summary import Summary

if TYPE_CHECKING:
    from webpd.app import Estimate

_FAILURES_SHOWN = 10


def convert(
    paths: Paths = None,
    *,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Tell what would be done and saved; write nothing.")
    ] = False,
    reconvert_changed: Annotated[
        bool, typer.Option("--reconvert-changed", help="Encode again what was made with other settings.")
    ] = False,
    overwrite_foreign: Annotated[
        bool, typer.Option("--overwrite-foreign", help="Replace .webp files that webpd did not make.")
    ] = False,
    quality: Quality = None,
    method: Method = None,
    workers: Workers = None,
    io_threads: IoThreads = None,
    owner: Owner = None,
    exclude: Exclude = None,
    config: Config = None,
    as_json: Json = False,
) -> None:
    """Convert every JPEG and PNG below PATH that has no right sidecar yet, in one pass.

    Exit code: 0 done, 1 some images failed, 2 wrong usage or settings, 3 the environment is not fit, 130 interrupted.

    \b
    Examples:
      webpd convert /var/www/cdn/upload/resize_cache
      webpd convert --dry-run upload/resize_cache
      webpd convert --quality 75 --workers 4 --json upload/resize_cache
    """
    settings = settings_from(
        config,
        quality=quality,
        method=method,
        workers=workers,
        io_threads=io_threads,
        owner=owner,
        exclude=exclude,
    ).settings
    interrupt_on_sigterm()

    from webpd import app

    roots, summary = app.roots_of(paths or settings.roots), Summary()
    if dry_run:
        estimate = app.estimate(
            settings, roots, summary, reconvert_changed=reconvert_changed, overwrite_foreign=overwrite_foreign
        )
        _print_estimate(estimate, summary, as_json)
    else:
        counts = partial(app.count, settings, roots, every=reconvert_changed or overwrite_foreign)
        try:
            with contextlib.nullcontext() if as_json else _shown(summary, counts):
                app.convert(
                    settings,
                    roots,
                    summary,
                    reconvert_changed=reconvert_changed,
                    overwrite_foreign=overwrite_foreign,
                )
        except KeyboardInterrupt:
            summary.interrupt()
        finally:
            _print_summary(summary, as_json)
    if summary.interrupted:
        raise typer.Exit(130)
    if summary.results[Result.FAILED]:
        raise typer.Exit(1)


def _shown(summary: Summary, counts: Callable[[], Iterator[int]]) -> contextlib.AbstractContextManager[None]:
    from webpd.cli.progress import shown

    return shown(summary, counts)


def _print_summary(summary: Summary, as_json: bool) -> None:
    if as_json:
        typer.echo(json.dumps(summary.as_dict(), ensure_ascii=False))
        return
    results, seconds = summary.results, summary.seconds
    rate = f"{summary.worked / seconds:.1f} images/s" if seconds else ""
    typer.echo(f"{summary.found:,} images found in {seconds:.1f} s{', interrupted' if summary.interrupted else ''}")
    typer.echo(f"  converted      {results[Result.CONVERTED]:>10,}  {_sizes(summary)}  {rate}")
    typer.echo(f"  fresh          {results[Result.FRESH]:>10,}  had a right sidecar already")
    typer.echo(f"  kept original  {results[Result.KEPT_ORIGINAL]:>10,}  WebP would be no smaller, or not show the same")
    skipped = ", ".join(f"{count:,} {reason}" for reason, count in sorted(summary.skipped.items()))
    typer.echo(f"  skipped        {results[Result.SKIPPED]:>10,}  {skipped}")
    typer.echo(f"  failed         {results[Result.FAILED]:>10,}")
    for failure in summary.failed[:_FAILURES_SHOWN]:
        typer.echo(f"    {printable(failure.path)}: {failure.reason}: {printable(failure.detail)}")
    if (more := results[Result.FAILED] - _FAILURES_SHOWN) > 0:
        typer.echo(f"    and {more:,} more: `--json` lists the first 1,000")


def _sizes(summary: Summary) -> str:
    if not summary.source_bytes:
        return ""
    share = summary.saved_bytes / summary.source_bytes
    return f"{decimal(summary.source_bytes)} became {decimal(summary.webp_bytes)}, {share:.0%} saved"


def _print_estimate(estimate: "Estimate", summary: Summary, as_json: bool) -> None:
    if as_json:
        typer.echo(json.dumps({"dry_run": True, "found": summary.found, **estimate.as_dict()}))
        return
    typer.echo(f"{summary.found:,} images found, nothing written")
    typer.echo(f"  to look at  {estimate.originals:>10,}  {decimal(estimate.source_bytes)}")
    if estimate.sampled:
        share = estimate.saved_bytes / max(1, estimate.source_bytes)
        results = ", ".join(f"{count:,} {result}" for result, count in sorted(estimate.sampled_results.items()))
        typer.echo(f"  tried       {estimate.sampled:>10,}  {results}")
        typer.echo(f"  would save  about {decimal(estimate.saved_bytes)}, {share:.0%}, if the rest is like those tried")
