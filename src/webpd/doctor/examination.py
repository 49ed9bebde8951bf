"""All checks in their order, each where it can't hold the others."""

import shlex
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial

from webpd.doctor import codecs, hints, host, inotify, root, running, servers, state, vanishing
from webpd.doctor.apart import Apart, LateError, UnfinishedError
from webpd.doctor.finding import Finding, Topic
from webpd.settings import Loaded, Settings, state_dir


@dataclass(frozen=True, slots=True)
class _Theme:
    """Checks about a subject, the time that they get in seconds, and what it means, if anything, when they take more.

    ``name`` is what the ids of the findings begin with.
    """

    name: str
    subject: str
    look: Callable[[], Iterator[Finding]]
    seconds: float = 10.0
    late: Callable[[str], Finding] | None = None

    def unfinished(self, error: UnfinishedError) -> Finding:
        if self.late and isinstance(error, LateError):
            return self.late(str(error))
        return Topic(self.subject).unknown(
            f"{self.name}.looked", f"could not be looked at: {error}", "mend what is told of above, then try again"
        )


def examine(loaded: Loaded, paths: Sequence[str]) -> Iterator[Finding]:
    """Yield what all checks find, the cheap ones first. ``paths`` are the roots, as absolute paths.

    To be called while this process has one thread.
    """
    yield from _settings(loaded)
    themes = list(_themes(loaded.settings, paths))
    begun = [Apart(theme.look) for theme in themes]
    try:
        for theme, apart in zip(themes, begun, strict=True):
            try:
                yield from apart.findings(theme.seconds)
            except UnfinishedError as error:
                yield theme.unfinished(error)
    finally:
        for apart in begun:
            apart.close()


def _settings(loaded: Loaded) -> Iterator[Finding]:
    topic = Topic("settings")
    given = sum(origin != "default" for origin in loaded.origin.values())
    yield topic.ok("settings.valid", f"valid; {given:,} are not the default (`webpd config`)")
    for variable in loaded.unknown:
        yield topic.warning(
            "settings.unknown",
            f"{variable} is set, but there is no such option",
            f"`webpd config` lists all; `unset {variable}`",
        )


def _themes(settings: Settings, paths: Sequence[str]) -> Iterator[_Theme]:
    yield _Theme("host", "this host", lambda: host.look(settings))
    yield _Theme("state", "state folder", lambda: state.look(settings), late=lambda why: _hanging_state(settings, why))
    for path in paths:
        yield _Theme("root", path, partial(root.look, path, settings), 20, partial(root.hung, path))
    yield _Theme("inotify", "inotify", lambda: inotify.look(paths, settings))
    yield _Theme("hints", "hints", lambda: hints.look(settings))
    yield _Theme("redis", "Redis", lambda: servers.look(settings), 15)
    yield _Theme("service", "the service", lambda: running.look(settings, paths), 15)
    yield _Theme("sidecars", "sidecars", lambda: vanishing.look(settings, paths))
    yield _Theme("codecs", "codecs", lambda: codecs.look(settings), 60)


def _hanging_state(settings: Settings, why: str) -> Finding:
    return state.topic(settings).fault(
        "state.local",
        f"can't be looked at: {why}",
        f"`findmnt -T {shlex.quote(state_dir(settings))}` shows what it is on; "
        "`WEBPD_STATE_DIR=/var/lib/webpd` or another folder on a disk of this machine",
    )
