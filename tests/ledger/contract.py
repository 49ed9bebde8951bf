"""What every ledger keeps, whatever it is made of."""

import itertools
import os
import threading
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule, run_state_machine_as_test

from webpd.ledger.port import Directory, Ledger, Pass, Totals
from webpd.model import Failure, Known, Result, Sidecar, Skip

ROOT = "/srv/resize_cache"

# Opens the ledger: the same again each time, after closing the one it gave before.
Reopen = Callable[[], Ledger]


def known(size: int = 1000, result: Result = Result.KEPT_ORIGINAL, reason: str = "", detail: str = "") -> Known:
    return Known(size, 1_790_000_000_123_456_789, Sidecar.ABSENT, b"12345678", result, reason, detail)


def paths_in_pages(ledger: Ledger, root: str, limit: int) -> list[str]:
    """Return the paths of all directories, asked for page by page."""
    found: list[str] = []
    while page := ledger.directories(root, found[-1] if found else None, limit):
        assert len(page) <= limit
        found += [directory.path for directory in page]
    return found


class LedgerContract:
    """Subclasses give the fixture ``reopen``."""

    @pytest.fixture
    def ledger(self, reopen: Reopen) -> Ledger:
        return reopen()

    def test_nothing_is_known_of_a_root_that_was_never_seen(self, ledger: Ledger) -> None:
        assert ledger.directories(ROOT, None, 10) == []
        assert ledger.directory(ROOT, "") is None
        assert ledger.totals(ROOT) == Totals(0, 0, 0, 0)
        assert ledger.known(ROOT, "") == {}
        assert ledger.results(ROOT) == {}
        assert ledger.kind(ROOT) is None
        assert ledger.passed(ROOT) is None
        assert ledger.roots() == []

    def test_every_root_that_anything_is_known_of_is_told_in_the_order_of_bytes(self, ledger: Ledger) -> None:
        ledger.note_kind("/srv/\udcff", "ext4")
        ledger.note_pass("/srv/ж", 1.0, full=False)
        ledger.record("/srv", Directory(""))
        ledger.learn("/srv0", "", {"photo.jpg": known()})
        assert ledger.roots() == ["/srv", "/srv/ж", "/srv/\udcff", "/srv0"]

    def test_a_walk_keeps_the_numbers_as_they_were_when_it_ended(self, ledger: Ledger, reopen: Reopen) -> None:
        ledger.record(ROOT, Directory("a", 5, images=4, orphans=1))
        ledger.discover(ROOT, ["b"])
        ledger.learn(ROOT, "a", {"1.jpg": known(), "2.jpg": known(result=Result.FAILED, reason=Failure.DAMAGED)})
        ledger.learn(ROOT, "a", {"3.jpg": known(result=Result.FAILED, reason=Failure.IO)})
        ledger.learn(ROOT, "b", {"4.jpg": known(result=Result.SKIPPED), "5.jpg": known(result=Result.CONVERTED)})
        ledger.note_pass(ROOT, 1000.25, full=False)
        ledger.record(ROOT, Directory("c", 5, images=100, orphans=3))
        ledger.unlearn(ROOT, "a", ["1.jpg", "2.jpg", "3.jpg"])
        expected = Pass(1000.25, None, Totals(2, 1, 4, 1), kept=1, skipped=1, failed=2)
        assert ledger.passed(ROOT) == expected
        ledger.close()
        assert reopen().passed(ROOT) == expected

    def test_when_every_directory_was_listed_last_stays_known(self, ledger: Ledger) -> None:
        ledger.note_pass(ROOT, 1.5, full=True)
        assert ledger.passed(ROOT) == Pass(1.5, 1.5, Totals(0, 0, 0, 0), 0, 0, 0)
        ledger.record(ROOT, Directory("a", 5, images=4))
        ledger.note_pass(ROOT, 2.5, full=False)
        assert ledger.passed(ROOT) == Pass(2.5, 1.5, Totals(1, 0, 4, 0), 0, 0, 0)
        ledger.note_pass(ROOT, 3.5, full=True)
        assert ledger.passed(ROOT) == Pass(3.5, 3.5, Totals(1, 0, 4, 0), 0, 0, 0)
        assert ledger.passed("/another") is None

    def test_what_was_recorded_is_there_after_a_restart(self, ledger: Ledger, reopen: Reopen) -> None:
        directory = Directory("iblock/abc", 1_790_000_000_123_456_789, True, 12345.678, 7, 2, 12000.25, True)
        ledger.record(ROOT, directory)
        ledger.learn(ROOT, "iblock/abc", {"photo.jpg": known()})
        ledger.note_kind(ROOT, "fuse.sshfs")
        ledger.close()
        again = reopen()
        found = again.directory(ROOT, "iblock/abc")
        assert found == directory
        assert found.sure is True
        assert found.pruned is True
        assert again.known(ROOT, "iblock/abc") == {"photo.jpg": known()}
        assert again.kind(ROOT) == "fuse.sshfs"

    def test_a_discovered_directory_has_to_be_looked_at_and_a_known_one_stays_as_it_is(self, ledger: Ledger) -> None:
        ledger.record(ROOT, Directory("a", 5, images=3))
        assert ledger.discover(ROOT, ["b", "a", "b"]) == ["b"]
        assert ledger.discover(ROOT, ["a", "b"]) == []
        assert ledger.directories(ROOT, None, 10) == [Directory("a", 5, images=3), Directory("b")]

    def test_pages_come_in_the_order_of_the_bytes_of_the_path(self, ledger: Ledger) -> None:
        raw = [b"", b"a", b"a b", b"a-b", b"a/b", b"a/b/c", b"a0", "ж".encode(), b"\xff", b"\xff/x", b"\xff\xff"]
        ledger.discover(ROOT, (os.fsdecode(path) for path in reversed(raw)))
        for limit in (1, 2, 3, 100):
            assert paths_in_pages(ledger, ROOT, limit) == [os.fsdecode(path) for path in sorted(raw)]

    def test_a_folder_found_while_paging_comes_in_the_same_cycle(self, ledger: Ledger) -> None:
        ledger.discover(ROOT, ["", "a", "z"])
        seen: list[str] = []
        while page := ledger.directories(ROOT, seen[-1] if seen else None, 1):
            seen.append(page[0].path)
            if page[0].path == "a":
                ledger.discover(ROOT, ["a/below"])
        assert seen == ["", "a", "a/below", "z"]

    def test_a_doubted_directory_keeps_all_but_its_mtime(self, ledger: Ledger) -> None:
        directory = Directory("a", 5, True, 2.5, 3, 1, 1.5, True)
        ledger.record(ROOT, directory)
        ledger.doubt(ROOT, ["a", "never seen"])
        assert ledger.directories(ROOT, None, 10) == [directory._replace(mtime_ns=None)]

    def test_a_forgotten_directory_takes_all_below_it_along_and_nothing_beside_it(self, ledger: Ledger) -> None:
        beside = ["x", "x/a-", "x/a0", "x/a%", "x/A", "x/a b", "y/a/b"]
        below = ["x/a", "x/a/b", "x/a/\udcff", "x/a/b/c"]
        for path in (*beside, *below):
            ledger.record(ROOT, Directory(path, 5))
            ledger.learn(ROOT, path, {"photo.jpg": known()})
        ledger.record("/other", Directory("x/a", 5))
        ledger.forget(ROOT, "x/a")
        expected = [Directory(path, None if path == "x" else 5) for path in sorted(beside)]
        assert ledger.directories(ROOT, None, 100) == expected
        assert [path for path in below if ledger.known(ROOT, path)] == []
        assert [path for path in beside if not ledger.known(ROOT, path)] == []
        assert ledger.directory("/other", "x/a") == Directory("x/a", 5)

    def test_a_forgotten_root_leaves_nothing_and_can_be_filled_again(self, ledger: Ledger) -> None:
        for path in ("", "a", "\udcff\udcff"):
            ledger.record(ROOT, Directory(path, 5, images=2))
            ledger.learn(ROOT, path, {"photo.jpg": known()})
        ledger.note_pass(ROOT, 1.0, full=True)
        ledger.forget(ROOT, "a")
        assert ledger.passed(ROOT) == Pass(1.0, 1.0, Totals(3, 0, 6, 0), 3, 0, 0)
        ledger.forget(ROOT, "")
        assert ledger.passed(ROOT) is None
        assert ledger.totals(ROOT) == Totals(0, 0, 0, 0)
        assert ledger.results(ROOT) == {}
        ledger.discover(ROOT, [""])
        assert ledger.directories(ROOT, None, 10) == [Directory("")]

    def test_orphans_are_told_oldest_first_once_they_are_old_enough(self, ledger: Ledger) -> None:
        for path, since in (("c", 10.0), ("a", 30.0), ("b", 20.0), ("d", 40.0)):
            ledger.record(ROOT, Directory(path, 5, orphans=1, orphaned=since))
        ledger.record(ROOT, Directory("without", 5))
        assert [directory.path for directory in ledger.orphaned(ROOT, 40.0, 10)] == ["c", "b", "a"]
        assert [directory.path for directory in ledger.orphaned(ROOT, 40.0, 2)] == ["c", "b"]
        ledger.record(ROOT, Directory("c", 5))
        assert [directory.path for directory in ledger.orphaned(ROOT, 40.0, 10)] == ["b", "a"]

    def test_emptied_folders_come_before_the_folder_that_holds_them(self, ledger: Ledger) -> None:
        for path in ("a", "a/b", "a/b/c", "d"):
            ledger.record(ROOT, Directory(path, 5, pruned=path != "d"))
        assert [directory.path for directory in ledger.emptied(ROOT, 10)] == ["a/b/c", "a/b", "a"]
        assert [directory.path for directory in ledger.emptied(ROOT, 1)] == ["a/b/c"]

    def test_directories_of_files_known_under_other_settings_have_to_be_looked_at(self, ledger: Ledger) -> None:
        for path, fingerprint in (("a", b"old"), ("b", b"new"), ("c", b"")):
            ledger.record(ROOT, Directory(path, 5, sure=True))
            ledger.learn(ROOT, path, {"1.jpg": replace(known(), fingerprint=fingerprint)})
        ledger.record("/another", Directory("a", 5))
        ledger.learn("/another", "a", {"1.jpg": replace(known(), fingerprint=b"old")})
        ledger.outdate(ROOT, b"new")
        assert [each.mtime_ns for each in ledger.directories(ROOT, None, 10)] == [None, 5, 5]
        assert ledger.directory("/another", "a") == Directory("a", 5)

    def test_a_folder_stays_pruned_until_it_is_spared(self, ledger: Ledger) -> None:
        ledger.record(ROOT, Directory("a", 5, pruned=True))
        ledger.record(ROOT, Directory("a", 6))
        assert ledger.emptied(ROOT, 10) == [Directory("a", 6, pruned=True)]
        ledger.spare(ROOT, "a")
        assert ledger.emptied(ROOT, 10) == []
        assert ledger.directory(ROOT, "a") == Directory("a", 6)

    def test_what_is_known_of_a_file_is_replaced_and_forgotten_by_its_name(self, ledger: Ledger) -> None:
        failed = known(2000, Result.FAILED, Failure.DAMAGED, "cut off in \udcff.jpg after 12 of 34 bytes")
        ledger.learn(ROOT, "a", {"1.jpg": known(), "\udcff.jpg": failed})
        ledger.learn(ROOT, "a", {"1.jpg": failed})
        assert ledger.known(ROOT, "a") == {"1.jpg": failed, "\udcff.jpg": failed}
        assert ledger.known(ROOT, "a", "\udcff.jpg") == {"\udcff.jpg": failed}
        assert ledger.known(ROOT, "a", "never seen") == {}
        ledger.unlearn(ROOT, "a", ["1.jpg", "never seen"])
        assert ledger.known(ROOT, "a") == {"\udcff.jpg": failed}
        assert ledger.known(ROOT, "") == ledger.known("/other", "a") == {}

    def test_files_are_counted_by_result_and_reason(self, ledger: Ledger) -> None:
        ledger.learn(ROOT, "a", {f"{n}.jpg": known() for n in range(5)})
        ledger.learn(ROOT, "b", {"x.jpg": known(result=Result.FAILED, reason=Failure.DAMAGED)})
        ledger.learn(ROOT, "b", {"y.jpg": known(result=Result.SKIPPED, reason=Skip.EMPTY)})
        ledger.learn(ROOT, "a", {"0.jpg": known(result=Result.FAILED, reason=Failure.DAMAGED)})
        ledger.unlearn(ROOT, "b", ["y.jpg"])
        assert ledger.results(ROOT) == {(Result.KEPT_ORIGINAL, ""): 4, (Result.FAILED, "damaged"): 2}

    def test_files_that_came_to_something_are_told_by_name_in_the_order_of_their_bytes(self, ledger: Ledger) -> None:
        failed = known(result=Result.FAILED, reason=Failure.DAMAGED)
        ledger.learn(ROOT, "b", {"1.jpg": failed, "\udcff.jpg": failed, "kept.jpg": known()})
        ledger.learn(ROOT, "", {"2.jpg": failed, "3.jpg": known(result=Result.FAILED, reason=Failure.IO)})
        ledger.learn("/another", "b", {"4.jpg": failed})
        named = ["2.jpg", "b/1.jpg", "b/\udcff.jpg"]
        for limit in (1, 2, 3, 4):
            assert ledger.files(ROOT, Result.FAILED, Failure.DAMAGED, limit) == named[:limit]
        assert ledger.files(ROOT, Result.FAILED, Failure.MEMORY, 9) == []
        assert ledger.files("/never seen", Result.FAILED, Failure.DAMAGED, 9) == []

    def test_a_file_of_the_year_2500_disturbs_nothing(self, ledger: Ledger) -> None:
        far = 16_725_225_600_000_000_000
        ledger.record(ROOT, Directory("a", far))
        ledger.learn(ROOT, "a", {"1.jpg": Known(1, far, Sidecar.FRESH, b"", Result.KEPT_ORIGINAL)})
        assert [directory.path for directory in ledger.directories(ROOT, None, 10)] == ["a"]
        assert list(ledger.known(ROOT, "a")) == ["1.jpg"]

    def test_many_threads_at_once_lose_nothing(self, ledger: Ledger) -> None:
        def work(thread: int) -> None:
            for number in range(100):
                path = f"{number:03}/{thread}"
                ledger.discover(ROOT, [path])
                ledger.record(ROOT, Directory(path, number, images=1))
                ledger.learn(ROOT, path, {"photo.jpg": known()})
                assert ledger.directory(ROOT, path) == Directory(path, number, images=1)
                ledger.directories(ROOT, path, 10)

        threads = [threading.Thread(target=work, args=(number,)) for number in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert ledger.totals(ROOT) == Totals(800, 0, 800, 0)
        assert ledger.results(ROOT) == {(Result.KEPT_ORIGINAL, ""): 800}

    def test_any_order_of_calls_and_restarts_leaves_what_a_plain_dictionary_would(self, reopen: Reopen) -> None:
        roots = (f"/srv/{number}" for number in itertools.count())

        class Comparison(_Comparison):
            def __init__(self) -> None:
                super().__init__(reopen, next(roots))

        run_state_machine_as_test(Comparison, settings=settings(max_examples=40, stateful_step_count=20, deadline=None))


@dataclass
class _Model:
    """A root in plain dictionaries."""

    directories: dict[str, Directory] = field(default_factory=dict)
    known: dict[tuple[str, str], Known] = field(default_factory=dict)
    passed: Pass | None = None

    def totals(self) -> Totals:
        of = self.directories.values()
        unsettled = sum(it.mtime_ns is None for it in of)
        return Totals(len(of), unsettled, sum(it.images for it in of), sum(it.orphans for it in of))

    def ordered(self) -> list[Directory]:
        return sorted(self.directories.values(), key=lambda directory: os.fsencode(directory.path))

    def doubt(self, paths: Iterable[str]) -> None:
        for path in paths:
            if path in self.directories:
                self.directories[path] = self.directories[path]._replace(mtime_ns=None)

    def forget(self, path: str) -> None:
        def held(other: str) -> bool:
            return path in ("", other) or other.startswith(path + "/")

        self.directories = {other: it for other, it in self.directories.items() if not held(other)}
        self.known = {key: it for key, it in self.known.items() if not held(key[0])}
        if path:
            self.doubt([os.path.dirname(path)])
        else:
            self.passed = None


# Few names, so that calls meet; "-" and "0" stand on either side of "/".
_NAMES = st.sampled_from(["a", "b", "-", "0", "a0", "%", "_", "ж", "\udcff", "\udcff\udcfe"])
_PATHS = st.lists(_NAMES, max_size=3).map("/".join)
_NUMBERS = st.integers(0, 3)
_CLOCK = st.sampled_from([0.0, 1.5, 2.5, 1e6])
_DIRECTORIES = st.builds(
    Directory,
    _PATHS,
    st.none() | st.integers(-(2**63), 2**63 - 1),
    st.booleans(),
    _CLOCK,
    _NUMBERS,
    _NUMBERS,
    _CLOCK,
    st.booleans(),
)
_KNOWN = st.builds(
    Known,
    st.integers(0, 2**63 - 1),
    st.integers(-(2**63), 2**63 - 1),
    st.sampled_from(Sidecar),
    st.binary(max_size=8),
    st.sampled_from(Result),
    st.sampled_from(["", *Skip, *Failure]),
    st.text(st.characters(codec=None), max_size=20),
)


class _Comparison(RuleBasedStateMachine):
    """A root of its own in the ledger, beside the same in plain dictionaries."""

    def __init__(self, reopen: Reopen, root: str) -> None:
        super().__init__()
        self.reopen_ledger = reopen
        self.ledger = reopen()
        self.root = root
        self.model = _Model()

    @rule(paths=st.lists(_PATHS, max_size=4))
    def discover(self, paths: list[str]) -> None:
        new = [path for path in dict.fromkeys(paths) if path not in self.model.directories]
        assert self.ledger.discover(self.root, paths) == new
        for path in paths:
            self.model.directories.setdefault(path, Directory(path))

    @rule(directory=_DIRECTORIES)
    def record(self, directory: Directory) -> None:
        self.ledger.record(self.root, directory)
        before = self.model.directories.get(directory.path, directory)
        self.model.directories[directory.path] = directory._replace(pruned=directory.pruned or before.pruned)

    @rule(path=_PATHS)
    def spare(self, path: str) -> None:
        self.ledger.spare(self.root, path)
        if path in self.model.directories:
            self.model.directories[path] = self.model.directories[path]._replace(pruned=False)

    @rule(paths=st.lists(_PATHS, max_size=4))
    def doubt(self, paths: list[str]) -> None:
        self.ledger.doubt(self.root, paths)
        self.model.doubt(paths)

    @rule(path=_PATHS)
    def forget(self, path: str) -> None:
        self.ledger.forget(self.root, path)
        self.model.forget(path)

    @rule(directory=_PATHS, known=st.dictionaries(_NAMES, _KNOWN, max_size=3))
    def learn(self, directory: str, known: dict[str, Known]) -> None:
        self.ledger.learn(self.root, directory, known)
        self.model.known.update({(directory, name): it for name, it in known.items()})

    @rule(directory=_PATHS, names=st.lists(_NAMES, max_size=3))
    def unlearn(self, directory: str, names: list[str]) -> None:
        self.ledger.unlearn(self.root, directory, names)
        for name in names:
            self.model.known.pop((directory, name), None)

    @rule(at=_CLOCK, full=st.booleans())
    def note_pass(self, at: float, full: bool) -> None:
        self.ledger.note_pass(self.root, at, full=full)
        before = self.model.passed.full if self.model.passed else None
        results = Counter(it.result for it in self.model.known.values())
        of = (results[result] for result in (Result.KEPT_ORIGINAL, Result.SKIPPED, Result.FAILED))
        self.model.passed = Pass(at, at if full else before, self.model.totals(), *of)

    @rule()
    def flush(self) -> None:
        self.ledger.flush()

    @rule()
    def restart(self) -> None:
        self.ledger = self.reopen_ledger()

    @rule(path=_PATHS, limit=_NUMBERS)
    def ask_for_a_page(self, path: str, limit: int) -> None:
        later = [it for it in self.model.ordered() if os.fsencode(it.path) > os.fsencode(path)]
        assert self.ledger.directories(self.root, path, limit) == later[:limit]

    @rule(before=_CLOCK)
    def ask_for_orphans(self, before: float) -> None:
        orphaned = [it for it in self.model.ordered() if it.orphans and it.orphaned < before]
        found = self.ledger.orphaned(self.root, before, 100)
        assert Counter(found) == Counter(orphaned)
        assert [it.orphaned for it in found] == sorted(it.orphaned for it in orphaned)

    @invariant()
    def both_say_the_same(self) -> None:
        ordered = self.model.ordered()
        assert self.ledger.directories(self.root, None, 1000) == ordered
        assert self.ledger.emptied(self.root, 1000) == [it for it in reversed(ordered) if it.pruned]
        assert self.ledger.totals(self.root) == self.model.totals()
        assert self.ledger.passed(self.root) == self.model.passed
        assert self.ledger.results(self.root) == Counter((it.result, it.reason) for it in self.model.known.values())
        for folder in {folder for folder, _ in self.model.known}:
            of_folder = {name: it for (directory, name), it in self.model.known.items() if directory == folder}
            assert self.ledger.known(self.root, folder) == of_folder
