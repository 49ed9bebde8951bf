"""One original as the service takes it: once, if it is still what was seen, and raising what may pass."""

import io
import os
from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image

from tests.conftest import LIMITS, write
from webpd.convert.pool import CodecPool, PoolClosedError
from webpd.convert.result import Converted
from webpd.model import Encoding, Failure, Job, Outcome, Result, Skip
from webpd.pipeline import Pipeline, UnsettledError
from webpd.tree.naming import Exclusion
from webpd.tree.publisher import Publisher, StorageError
from webpd.tree.scanner import Scanner
from webpd.tree.source import ChangedError, GoneError

ENCODING = Encoding(quality=80, method=4)
MTIME = 1_600_000_000.5


def tiny_png() -> bytes:
    """Return a picture that no WebP is smaller than."""
    file = io.BytesIO()
    Image.new("L", (8, 8)).save(file, "PNG")
    return file.getvalue()


def fill(folder: Path) -> None:
    """Leave no room on the disk."""
    with open(folder / "ballast", "wb", buffering=0) as file:
        try:
            while True:
                file.write(bytes(4096))
        except OSError:
            pass


class Attempts:
    """The service's pipeline, on real codecs: it counts what it has them do, and can be made to meddle."""

    def __init__(self, pool: CodecPool) -> None:
        self.converted = 0
        self.before: Callable[[], object] = lambda: None
        self.after: Callable[[], object] = lambda: None
        self._pool = pool
        self._pipeline = Pipeline(self, Publisher(None, 0o644, fsync=False), ENCODING, 1 << 20)

    def convert(self, data: bytes) -> Converted:
        self.converted += 1
        self.before()
        answer = self._pool.convert(data)
        self.after()
        return answer

    def job(self, path: Path) -> Job:
        """Return what a look at the folder makes of the image."""
        looks = Scanner(str(path.parent), Exclusion([]), every=True).look(str(path.parent))
        return next(job for look in looks for job in look.jobs if job.path == str(path))

    def run(self, job: Job, *, believed: bool = False) -> Outcome:
        return self._pipeline.attempt(job, believed=believed)


@pytest.fixture
def attempts(pool: CodecPool) -> Attempts:
    return Attempts(pool)


@pytest.fixture
def original(tmp_path: Path, photograph: Callable[..., bytes]) -> Path:
    return write(tmp_path / "a.jpg", photograph(), MTIME)


def test_an_attempt_at_what_has_settled_converts_it(attempts: Attempts, original: Path) -> None:
    outcome = attempts.run(attempts.job(original))
    assert (outcome.result, outcome.source_bytes) == (Result.CONVERTED, original.stat().st_size)
    assert outcome.seconds > 0
    assert attempts.run(attempts.job(original)).result is Result.FRESH
    assert attempts.converted == 1


@pytest.mark.parametrize("later", [MTIME, MTIME + 1])
def test_an_attempt_at_what_is_no_longer_as_it_was_seen_does_nothing(
    later: float, attempts: Attempts, original: Path, photograph: Callable[..., bytes]
) -> None:
    job = attempts.job(original)
    write(original, photograph(name="coffee.png") if later == MTIME else original.read_bytes(), later)
    with pytest.raises(ChangedError, match="since it was looked at"):
        attempts.run(job)
    assert attempts.converted == 0
    assert os.listdir(original.parent) == ["a.jpg"]


def test_an_attempt_at_what_changes_meanwhile_publishes_nothing_and_tries_no_second_time(
    attempts: Attempts, original: Path
) -> None:
    attempts.after = lambda: os.utime(original, (MTIME + 1,) * 2)
    with pytest.raises(ChangedError):
        attempts.run(attempts.job(original))
    assert attempts.converted == 1
    assert os.listdir(original.parent) == ["a.jpg"]


@pytest.mark.parametrize("when", ["before", "meanwhile"])
def test_an_attempt_at_what_is_gone_says_so(when: str, attempts: Attempts, original: Path) -> None:
    job = attempts.job(original)
    if when == "before":
        original.unlink()
    else:
        attempts.after = original.unlink
    with pytest.raises(GoneError):
        attempts.run(job)
    assert os.listdir(original.parent) == []


def test_an_attempt_at_half_an_upload_that_is_finished_meanwhile_calls_nothing_damaged(
    attempts: Attempts, original: Path, photograph: Callable[..., bytes]
) -> None:
    whole = original.read_bytes()
    write(original, whole[:900], MTIME)
    attempts.before = lambda: write(original, whole, MTIME)
    with pytest.raises(ChangedError):
        attempts.run(attempts.job(original))


def test_a_picture_too_large_for_its_bitrix_folder_is_converted_only_when_believed(
    attempts: Attempts, tmp_path: Path, photograph: Callable[..., bytes]
) -> None:
    path = write(tmp_path / "80_80_1" / "a.jpg", photograph(160), MTIME)
    with pytest.raises(UnsettledError, match="larger than its folder allows"):
        attempts.run(attempts.job(path))
    assert attempts.converted == 0
    assert attempts.run(attempts.job(path), believed=True).result is Result.CONVERTED


def test_a_fresh_sidecar_of_a_picture_too_large_for_its_folder_is_not_doubted_again(
    attempts: Attempts, tmp_path: Path, photograph: Callable[..., bytes]
) -> None:
    path = write(tmp_path / "80_80_1" / "a.jpg", photograph(160), MTIME)
    attempts.run(attempts.job(path), believed=True)
    assert attempts.run(attempts.job(path)).result is Result.FRESH


@pytest.mark.parametrize("new", ["kept", "damaged", "html"])
def test_an_attempt_makes_an_outcome_of_what_will_be_the_same_the_next_time(
    new: str, attempts: Attempts, original: Path, photograph: Callable[..., bytes]
) -> None:
    data = {"kept": tiny_png(), "damaged": photograph()[:900], "html": b"<html>not found</html>"}[new]
    write(original, data, MTIME)
    outcome = attempts.run(attempts.job(original))
    expected = {
        "kept": (Result.KEPT_ORIGINAL, None),
        "damaged": (Result.FAILED, Failure.DAMAGED),
        "html": (Result.SKIPPED, Skip.NOT_AN_IMAGE),
    }
    assert (outcome.result, outcome.reason) == expected[new]
    assert os.listdir(original.parent) == ["a.jpg"]


def test_an_attempt_raises_what_the_disk_says_and_leaves_nothing(
    attempts: Attempts, tmpfs: Callable[[str], Path], photograph: Callable[..., bytes]
) -> None:
    root = tmpfs("size=64k")
    path = write(root / "a.jpg", photograph(), MTIME)
    fill(root)
    with pytest.raises(StorageError, match="full") as failed:
        attempts.run(attempts.job(path))
    assert isinstance(failed.value.__cause__, OSError)
    assert sorted(os.listdir(root)) == ["a.jpg", "ballast"]
    inside = Job(f"{path}/inside.jpg", str(root), 1)
    with pytest.raises(NotADirectoryError):
        attempts.run(inside)


def test_an_attempt_with_closed_codecs_raises_and_says_nothing_against_the_picture(original: Path) -> None:
    with CodecPool(ENCODING, LIMITS, 1) as pool:
        pool.ready()
    attempts = Attempts(pool)
    with pytest.raises(PoolClosedError):
        attempts.run(attempts.job(original))
    assert os.listdir(original.parent) == ["a.jpg"]


def test_a_fault_of_ours_costs_only_this_picture(attempts: Attempts, original: Path) -> None:
    attempts.after = lambda: 1 // 0
    outcome = attempts.run(attempts.job(original))
    assert (outcome.result, outcome.reason) == (Result.FAILED, Failure.CRASHED)
    assert "ZeroDivisionError" in outcome.detail
