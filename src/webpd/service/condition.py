"""How each part of the service is: since when, why, and what to do about it."""

import asyncio
import contextlib
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Protocol

from webpd.convert.pool import CodecPool
from webpd.errors import WebpdError
from webpd.ledger.sqlite import SqliteLedger
from webpd.printable import printable
from webpd.queue.port import Lane, QueueState
from webpd.redis.link import LinkState
from webpd.service.commons import shown
from webpd.service.hints import Hints
from webpd.service.keeper import Keeper
from webpd.settings import Settings
from webpd.telemetry.metrics import Metrics
from webpd.times import utc
from webpd.watch.health import Health

_INTERVAL = 1.0
"""Seconds between two looks: so far off is ``since``."""


class State(StrEnum):
    """How a part is."""

    OK = "ok"
    DEGRADED = "degraded"
    """It works, and yet somebody should look; or it only starts or stops."""
    DOWN = "down"
    """It does not do what it is for."""
    OFF = "off"
    """It is not wanted, by the settings."""


@dataclass(frozen=True, slots=True)
class Condition:
    """How a part is. ``subject`` tells parts of a kind apart; ``hinders`` tells that the service is not ready by it.

    ``key`` stands for the reason where it is said in other words, as the page does.
    """

    part: str
    key: str
    state: State
    reason: str
    cure: str = ""
    subject: str = ""
    hinders: bool = False


class Standing(Protocol):
    """What is asked; all of it answers at once."""

    @property
    def started(self) -> float:
        """Unix time, seconds."""

    @property
    def facts(self) -> Mapping[str, str]:
        """Version, host and role, among others."""

    @property
    def keepers(self) -> Sequence[Keeper]: ...
    @property
    def queue(self) -> QueueState | None: ...
    @property
    def pool(self) -> CodecPool | None: ...
    @property
    def codecs_ready(self) -> bool: ...
    @property
    def ledger(self) -> SqliteLedger | None: ...
    @property
    def links(self) -> Sequence[LinkState | None]:
        """Those to the Redis of what is shared and to that of the queue."""

    @property
    def hints(self) -> Hints: ...
    def hosts(self, root: str) -> int | None:
        """How many hosts do the work of the root, None where that is for this one to do."""

    @property
    def metrics(self) -> Metrics: ...
    @property
    def stopping(self) -> asyncio.Event: ...


class Conditions:
    """Tells how the parts of a service are, and remembers since when. Belongs to its event loop."""

    def __init__(self, service: Standing, settings: Settings) -> None:
        self._service = service
        self._settings = settings
        self._since: dict[tuple[str, str], tuple[State, float]] = {}
        self._trial: asyncio.Task[object] | None = None

    async def run(self) -> None:
        """Look now and then, until cancelled."""
        while True:
            self.now()
            self._try_codecs()
            await asyncio.sleep(_INTERVAL)

    def now(self) -> list[Condition]:
        """Return how each part is."""
        conditions = [*_conditions(self._service, self._settings)]
        seen = {(one.part, one.subject): one.state for one in conditions}
        moment = time.time()
        before = self._since
        self._since = {
            key: before[key] if key in before and before[key][0] is state else (state, moment)
            for key, state in seen.items()
        }
        return conditions

    def since(self, one: Condition) -> float:
        """Return when the part began to be in the state that it is in (Unix time, seconds)."""
        return self._since[one.part, one.subject][1]

    def hindrances(self) -> list[str]:
        """Return why the service is not ready, in words; nothing where it is."""
        return [f"{' '.join(filter(None, (one.part, one.subject)))}: {one.reason}" for one in self.now() if one.hinders]

    def health(self) -> dict[str, Any]:
        """Return how things stand, ready for JSON, as ``docs/health.schema.json`` has it."""
        service = self._service
        conditions = self.now()
        queue = service.queue
        cache_link, queue_link = service.links
        return {
            "status": "degraded" if any(one.hinders for one in conditions) else "ok",
            "since": utc(service.started),
            **{fact: service.facts[fact] for fact in ("version", "host", "role")},
            "parts": [self._shown(one) for one in conditions],
            "roots": [{**keeper.state(), "hosts": service.hosts(keeper.root)} for keeper in service.keepers],
            "queue": {
                **{lane.name.lower(): queue.depth[lane] if queue else 0 for lane in Lane},
                "delayed": queue.delayed if queue else 0,
                "in_flight": queue.in_flight if queue else 0,
            },
            "oldest": {lane.name.lower(): round(queue.oldest[lane], 1) if queue else 0.0 for lane in Lane},
            "limited": round(queue.limited, 1) if queue else 0.0,
            "outcomes": service.metrics.outcomes,
            "pruned": service.metrics.pruned,
            "redis": shown(cache_link),
            "queue_redis": shown(queue_link),
        }

    def _shown(self, one: Condition) -> dict[str, str]:
        return {
            "part": one.part,
            "subject": one.subject,
            "state": one.state,
            "since": utc(self.since(one)),
            "reason": printable(one.reason),
            "cure": printable(one.cure),
        }

    def _try_codecs(self) -> None:
        """Let a codec process prove itself where the last ones did not start: nobody else would, with nothing to do."""
        pool = self._service.pool
        if pool is not None and pool.starts.trouble and not pool.starts.unfit and self._trial is None:
            self._trial = asyncio.create_task(self._greet(pool))

    async def _greet(self, pool: CodecPool) -> None:
        try:
            with contextlib.suppress(WebpdError):  # the pool tells by itself
                await asyncio.to_thread(pool.ready)
        finally:
            self._trial = None


_ASK_DOCTOR = "run `webpd doctor`, and see the log"
_WAIT = "wait: it ends by itself"


def _conditions(service: Standing, settings: Settings) -> Iterator[Condition]:
    if service.stopping.is_set():
        yield Condition("service", "stopping", State.DEGRADED, "stops, or begins anew", _WAIT, hinders=True)
    elif not service.keepers:
        reason = "is starting: opens its database and asks the mounts"
        yield Condition("service", "starting", State.DEGRADED, reason, _WAIT, hinders=True)
    else:
        yield Condition("service", "running", State.OK, "runs")
    if not service.keepers:
        return  # nothing is known of the other parts yet
    for keeper in service.keepers:
        yield _root(keeper, service.hosts(keeper.root))
    yield _codecs(service, settings.role)
    if service.queue is not None:
        yield Condition("queue", "queue", State.OK, _waiting(service.queue))
    yield _ledger(service.ledger)
    yield _hints(service.hints, settings)
    cache, queue = service.links
    yield _link("redis", cache, "WEBPD_REDIS_URL is not set", needed=False)
    yield _link("queue_redis", queue, f"the role {settings.role} needs none", needed=True)


def _root(keeper: Keeper, hosts: int | None) -> Condition:
    def tell(key: str, state: State, reason: str, cure: str = "", *, hinders: bool = False) -> Condition:
        return Condition("root", key, state, reason, cure, keeper.label, hinders)

    state = keeper.state()
    if keeper.health != Health.WELL:
        # "/root: what is wrong: what to do", as MountProbe has it.
        reason, _, cure = state["detail"].removeprefix(f"{keeper.label}: ").rpartition(": ")
        return tell(keeper.health, State.DOWN, f"mount {keeper.health}: {reason}", cure or _ASK_DOCTOR, hinders=True)
    if keeper.poller is None:
        return tell("works_for_others", State.OK, "what other hosts find in it is converted")
    if keeper.poller.trouble:
        told = printable(keeper.poller.trouble)
        hinders = not keeper.poller.watching
        return tell("broken_off", State.DEGRADED, f"polling was broken off: {told}", _ASK_DOCTOR, hinders=hinders)
    if not keeper.poller.watching:
        return tell("first_look", State.DEGRADED, "is looked at for the first time", _WAIT, hinders=True)
    if hosts == 0:
        cure = "start one with the role work, the same version and settings, and the root at the same path"
        return tell("no_host", State.DEGRADED, "no host does the work that is found in it", cure)
    troubles = [*_troubles(state, keeper.label)]
    if troubles:
        keys, reasons, cures = zip(*troubles, strict=True)
        return tell(keys[0], State.DEGRADED, "; ".join(reasons), "; ".join(cures))
    how = "inotify and polling" if state["watch"] == "inotify" else "polling"
    return tell(state["watch"], State.OK, f"watched by {how}, {state['images']:,} images")


def _troubles(state: Mapping[str, Any], root: str) -> Iterator[tuple[str, str, str]]:
    """Yield key, reason and cure of what is wrong with a root on which all the same everything goes on."""
    if number := state["prune_refused"]:
        why = f"{number:,} sidecars whose originals are gone are kept: too many at once"
        yield "prune_refused", why, f"if they are to go, `webpd prune --yes {root}`; see WEBPD_PRUNE_SHARE"
    if number := state["unreadable"]:
        why = f"{number:,} folders can't be read in full"
        yield "unreadable", why, "let the user of webpd read them: the log names them"
    if number := state["watch_failures"]:
        why = f"{number:,} times a folder could not be watched by inotify: it is polled"
        yield "watch_failures", why, "raise fs.inotify.max_user_watches by sysctl, and restart webpd"


def _codecs(service: Standing, role: str) -> Condition:
    if role == "watch":
        return Condition("codecs", "codecs_off", State.OFF, "the role watch leaves conversion to other hosts")
    pool = service.pool
    if pool is not None and pool.starts.trouble:
        reason, _, cure = pool.starts.trouble.partition(". ")
        return Condition(
            "codecs", "codecs_failing", State.DOWN, reason, f"{cure} One more is tried within a minute.", hinders=True
        )
    if pool is None or not service.codecs_ready:
        return Condition("codecs", "codecs_starting", State.DEGRADED, "are starting", _WAIT, hinders=True)
    return Condition("codecs", "codecs_ready", State.OK, f"{pool.running} processes")


def _waiting(queue: QueueState) -> str:
    depth = sum(queue.depth.values())
    words = f"{depth:,} images wait, {queue.in_flight:,} are in work"
    if depth:
        words += f", the oldest for {max(queue.oldest.values()):,.0f} s"
    if queue.limited >= 1:
        words += f"; the rate limit has held images back for {queue.limited:,.0f} s in all"
    return words


def _ledger(ledger: SqliteLedger | None) -> Condition:
    if ledger is None:
        return Condition("ledger", "ledger_off", State.OFF, "the role work remembers nothing")
    if ledger.fault:
        cure = (
            "make room in WEBPD_STATE_DIR and make it writable: images are converted all the same, and looked at again "
            "later"
        )
        return Condition("ledger", "ledger_fault", State.DEGRADED, ledger.fault, cure)
    if ledger.aside:
        reason = f"begun anew: a damaged one was set aside as {ledger.aside}, and its history is lost"
        return Condition(
            "ledger", "ledger_aside", State.OK, reason, "check the disk (`dmesg`), and remove the one set aside"
        )
    return Condition("ledger", "ledger_written", State.OK, "is written")


def _hints(hints: Hints, settings: Settings) -> Condition:
    if settings.role == "work":
        return Condition("hints", "hints_off", State.OFF, "the role work leaves them to who watches")
    if settings.hint_socket is None:
        return Condition("hints", "hints_off", State.OFF, "WEBPD_HINT_SOCKET is off")
    if hints.trouble:
        path, reason, cure = hints.trouble.split(": ", 2)
        return Condition("hints", "hints_unheard", State.DEGRADED, f"{path}: {reason}", cure)
    return Condition("hints", "hints_heard", State.OK, f"nginx can tell of images at {settings.hint_socket}")


def _link(part: str, link: LinkState | None, without: str, *, needed: bool) -> Condition:
    if link is None:
        return Condition(part, "redis_off", State.OFF, without)
    if link.up:
        return Condition(part, "redis_up", State.OK, "answers")
    reason, _, cure = link.detail.partition(": ")
    reason = reason if needed else f"{reason}; this host goes on by itself"
    return Condition(
        part, f"{part}_down", State.DOWN if needed else State.DEGRADED, reason, cure or _ASK_DOCTOR, hinders=needed
    )
