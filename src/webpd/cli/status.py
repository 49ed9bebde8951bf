"""``webpd status``: how the service is, and what came of the images so far."""

import json
import sys
import time
from collections.abc import Iterator, Mapping
from datetime import datetime
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.filesize import decimal

from webpd.cli.options import Config, Json, StateDir, interrupt_on_sigterm, settings_from
from webpd.times import ago

if TYPE_CHECKING:
    from rich.console import Group

    from webpd.settings import Settings

_INTERVAL = 2.0  # seconds between two looks of --watch


def status(
    *,
    watch: Annotated[bool, typer.Option("--watch", help="Look again every 2 seconds, until Ctrl-C.")] = False,
    state_dir: StateDir = None,
    config: Config = None,
    as_json: Json = False,
) -> None:
    """Tell how the service is, what it converted and saved, what failed, what waits, and how each root is.

    The service is asked at the socket in WEBPD_STATE_DIR (as its user, or as root), and else at WEBPD_HEALTH_ADDRESS.
    The totals come from the database in WEBPD_STATE_DIR, which is read whether or not a service runs. They count every
    time that an image was worked on, for as long as days are kept (400), and may miss the last batch, of about a
    second, before a SIGKILL. What is counted in a root carries its time: it is as the last walk over the whole root
    found it. With WEBPD_REDIS_URL, Redis is asked for the other hosts, for at most 2 seconds.

    With --json, one object (with --watch, one each time, a line each); what can't be known is null:

    \b
      service      ok, degraded, stopped, silent or unknown; detail says why
      version      of the service, and its role (all, watch or work)
      as_of        when the numbers of the roots were true
      totals       all, day, hour: converted, kept_original, skipped, failed (images),
                   source_bytes, webp_bytes, saved_bytes, saved_percent (of what was converted)
      rate         images per second: now (over the last 5 minutes), hour, day
      failures     images by reason
      queue        images that wait, by lane, delayed, and in_flight
      redis, queue_redis
                   of the service: configured, up, since, detail
      roots        a list: root, kind, mount, detail, watch; directories, unsettled, images,
                   orphans (as known now); hosts (how many do its work, for the role watch);
                   counted: at, listed_at (when each folder had been listed last),
                   directories, images, orphans, kept_original, skipped, failed
      hosts        a list of the processes that share the Redis: name, role, pid, version,
                   started, rate, queue, in_flight, roots
      all_hosts    the totals of all hosts
      notes        what is wrong with the service, or could not be had, and what to do

    Exit code: 0 told, 1 the service is degraded or does not answer, 2 wrong usage or settings, 3 neither a service nor
    a database is there.

    \b
    Examples:
      webpd status
      webpd status --watch
      webpd status --json | jq .totals.day.saved_bytes
    """
    from webpd.cli.report import look

    settings = settings_from(config, state_dir=state_dir).settings
    if watch:
        _watch(settings, as_json=as_json)
        return
    told = look(settings, time.time())
    typer.echo(json.dumps(told, ensure_ascii=False) if as_json else text(told))
    if told["service"] in {"degraded", "silent"}:
        raise typer.Exit(1)


_NAMED = {"hour": "last hour", "day": "last day", "all": "in all"}


def text(told: Mapping[str, Any]) -> str:
    """Return it as lines for people."""
    return "\n".join(_lines(told))


def _lines(told: Mapping[str, Any]) -> Iterator[str]:
    from webpd.cli.report import RATE_MINUTES, SAID

    first = SAID[told["service"]].format(detail=told["detail"])
    if told["version"] is None:
        first += f"; as it was {ago(time.time() - datetime.fromisoformat(told['as_of']).timestamp())}:"
    yield first
    yield from told["notes"]
    if told["totals"] is not None:
        yield from _table(told["totals"], _NAMED)
        now, hour, day = (told["rate"][of] for of in ("now", "hour", "day"))
        rates = f"{now:,.2f} images/s over {RATE_MINUTES} minutes, {hour:,.2f} over an hour, {day:,.2f} over a day"
        yield f"rate      {rates}"
        reasons = ", ".join(f"{count:,} {reason}" for reason, count in told["failures"].items())
        yield f"failures  {f'{reasons}: `webpd failures` lists them' if reasons else 'none'}"
    if told["queue"] is not None:
        yield f"queue     {_depths(told['queue'])}"
    if told["role"] not in {None, "all"}:
        yield f"role      {told['role']}"
    for key, name in (("redis", "Redis"), ("queue_redis", "Redis of the queue")):
        if told[key] is not None and told[key]["configured"]:
            yield _link_line(name, told[key])
    for root in told["roots"]:
        yield from _root_lines(root)
    yield from _host_lines(told)


def _table(totals: Mapping[str, Mapping[str, float]], named: Mapping[str, str]) -> Iterator[str]:
    yield f"{'':<10}{'converted':>10}{'kept':>8}{'skipped':>8}{'failed':>7}{'originals':>10}{'WebP':>10}{'saved':>10}"
    for period, name in named.items():
        total = totals[period]
        counts = f"{total['converted']:>10,}{total['kept_original']:>8,}{total['skipped']:>8,}{total['failed']:>7,}"
        sizes = "".join(f"{decimal(int(total[key])):>10}" for key in ("source_bytes", "webp_bytes", "saved_bytes"))
        yield f"{name:<10}{counts}{sizes}{total['saved_percent']:>4.0f} %"


def _depths(queue: Mapping[str, int]) -> str:
    return ", ".join(f"{number:,} {name.replace('_', ' ')}" for name, number in queue.items())


def _link_line(name: str, link: Mapping[str, Any]) -> str:
    how = "is up" if link["up"] else "is DOWN"
    why = f": {link['detail']}" if link["detail"] else ""
    return f"{name} {how} since {link['since']}{why}"


def _root_lines(root: Mapping[str, Any]) -> Iterator[str]:
    how = [root["kind"] or "not mounted yet"]
    if root["mount"] is not None:
        how.append(f"mount {root['mount']}")  # what ails it is told above
    if root["watch"] is not None:
        how.append(f"watched by {_WATCHED_BY.get(root['watch'], root['watch'])}")
    yield f"{root['root']} ({', '.join(how)})"
    if root["hosts"] is not None:
        hosts = "NO HOST of the same version and settings"
        if root["hosts"]:
            hosts = f"{root['hosts']:,} host{'s' if root['hosts'] > 1 else ''}"
        yield f"          worked on by {hosts}"
    if (counted := root["counted"]) is not None:
        images = f"{counted['images']:,} images in {counted['directories']:,} directories"
        known = ", ".join(f"{counted[key]:,} {name}" for key, name in _COUNTED.items())
        yield f"          {images}, as counted at {counted['at']}"
        yield f"          of them {known}; {counted['orphans']:,} orphans"
        if root["unsettled"]:
            yield f"          unsettled now: {root['unsettled']:,} directories"
    elif root["images"] is not None:
        directories = f"{root['directories']:,} directories, {root['unsettled']:,} unsettled"
        # A service whose state folder is another one may have walked long ago: only where it knows none, it has not.
        walked = root["mount"] is not None and root["directories"]
        so_far = "" if walked else ", so far: the first walk has not ended"
        yield f"          {root['images']:,} images in {directories}{so_far}"


_WATCHED_BY = {"poll": "polling"}
_COUNTED = {"kept_original": "kept", "skipped": "skipped", "failed": "failed"}


def _host_lines(told: Mapping[str, Any]) -> Iterator[str]:
    for host in told["hosts"] or ():
        waits = _depths({**host["queue"], "in_flight": host["in_flight"]})
        yield f"host {host['name']} (role {host['role']}, process {host['pid']}), {host['rate']:,.1f} images/s; {waits}"
        yield from (f"          {root}: mount {mount}" for root, mount in host["roots"].items())
    if told["all_hosts"] is not None:
        yield from _table(told["all_hosts"], {"all": "all hosts"})


_STYLES = {"ok": "bold green", "degraded": "bold red", "silent": "bold red"}


def _screen(told: Mapping[str, Any]) -> "Group":
    """Return it for a terminal: what is wrong in full, however narrow it is, and the numbers cut rather than folded."""
    from rich.console import Group
    from rich.text import Text

    first, *rest = _lines(told)
    notes, numbers = rest[: len(told["notes"])], rest[len(told["notes"]) :]
    now = f"{datetime.now().astimezone():%H:%M:%S}, every {_INTERVAL:g} s; Ctrl-C ends this"
    return Group(
        Text(first, _STYLES.get(told["service"], "bold yellow")),
        *map(Text, notes),
        Text("\n".join(numbers), no_wrap=True, overflow="ellipsis"),
        Text(now, "dim"),
    )


def _watch(settings: "Settings", *, as_json: bool) -> None:
    from rich.live import Live

    from webpd.cli.report import look

    interrupt_on_sigterm()
    try:
        if as_json or not sys.stdout.isatty():
            while True:
                told = look(settings, time.time())
                print(json.dumps(told, ensure_ascii=False) if as_json else f"{text(told)}\n", flush=True)
                time.sleep(_INTERVAL)
        with Live(auto_refresh=False) as live:
            while True:
                live.update(_screen(look(settings, time.time())), refresh=True)
                time.sleep(_INTERVAL)
    except KeyboardInterrupt:
        return
