"""Whatever happens to a tree, and whenever: once it rests, index and sidecars are what the tree asks for."""

import itertools
import os
import shutil
import tempfile
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.reconcile.scene import Clock, Scene, in_threads
from webpd.tree import naming
from webpd.tree.naming import Exclusion
from webpd.tree.scanner import Scanner

FOLDERS = ["", "a", "a/b", "a/b/c", "a!", "d"]
NAMES = ["1.jpg", "2.PNG", "note.txt"]

folders = st.sampled_from(FOLDERS)
files = st.builds(os.path.join, folders, st.sampled_from(NAMES))
steps = st.lists(
    st.one_of(
        st.tuples(st.just("write"), files),
        st.tuples(st.just("delete"), files),
        st.tuples(st.just("remove"), folders),
        st.tuples(st.just("move"), folders, folders),
        st.tuples(st.just("news"), folders),
        st.tuples(st.sampled_from(["cycle", "threads", "full", "work", "restart"])),
    ),
    max_size=30,
)


class World:
    """A scene to which anything may happen. The files that are written are all different."""

    def __init__(self, scene: Scene) -> None:
        self.scene = scene
        self.reconciler = scene.reconciler()
        self._numbers = itertools.count()

    def step(self, kind: str, *paths: str) -> None:
        root, scene = self.scene.root, self.scene
        whole = [root / path for path in paths]
        if kind == "write":
            scene.image(paths[0], b"an original" + b"!" * next(self._numbers))
        elif kind == "delete":
            whole[0].unlink(missing_ok=True)
        elif kind == "remove" and paths[0]:
            shutil.rmtree(whole[0], ignore_errors=True)
        elif kind == "move":
            self._move(*whole)
        elif kind == "news":
            self.reconciler.news(str(whole[0]))
        elif kind == "work":
            self._work()
        elif kind == "restart":
            self.reconciler = scene.restarted()
        elif kind == "threads":
            in_threads(self.reconciler)
        else:
            self.reconciler.forget(self.reconciler.cycle(full=kind == "full").vanished)
            scene.clock.pass_by(1.0)

    def rest(self) -> None:
        """Nothing more happens, but for the service's own doing."""
        self.scene.age()
        idle = 0
        for _ in range(40):
            self.scene.clock.pass_by(400.0)
            cycle = self.reconciler.cycle(full=idle == 1)
            self.reconciler.forget(cycle.vanished)
            if self._work():
                self.scene.age()
            idle = 0 if cycle.offered or (cycle.listed and idle != 1) else idle + 1
            if idle == 3:
                return
        raise AssertionError("it never comes to rest")

    def _move(self, source: Path, target: Path) -> None:
        inside = str(target).startswith(str(source))
        if source != self.scene.root and source.is_dir() and not target.exists() and not inside:
            target.parent.mkdir(parents=True, exist_ok=True)
            source.rename(target)

    def _work(self) -> int:
        """Convert what waits and is still there, as it is now."""
        jobs = self.scene.inbox.take()
        for job in jobs:
            if os.path.exists(job.path):
                self.scene.convert(job)
        return len(jobs)


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(happened=steps)
def test_the_index_and_the_sidecars_become_what_the_tree_asks_for(
    happened: list[tuple[str, ...]], monkeypatch: pytest.MonkeyPatch
) -> None:
    with tempfile.TemporaryDirectory() as temporary, monkeypatch.context() as patched:
        scene = Scene(Path(temporary), Clock(patched))
        world = World(scene)
        try:
            for step in happened:
                world.step(*step)
            world.rest()
            looks = list(Scanner(str(scene.root), Exclusion(())).walk())
            assert [job.path for look in looks for job in look.jobs] == []
            assert set(scene.remembered()) == {
                "" if look.directory == str(scene.root) else os.path.relpath(look.directory, scene.root)
                for look in looks
            }
            assert all(one.sure and one.mtime_ns is not None for one in scene.remembered().values())
            orphans = {path for look in looks for path in look.orphans}
            totals = scene.ledger.totals(str(scene.root))
            assert (totals.images, totals.orphans) == (sum(look.fresh for look in looks), len(orphans))
            counted = {path for found in world.reconciler.orphans.values() for path in found}
            assert orphans == {path for path in counted if os.path.exists(path)}
            assert not any(os.path.exists(str(naming.original_of(path))) for path in orphans)
        finally:
            scene.ledger.close()
