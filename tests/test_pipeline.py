"""One original, from its path to its outcome."""

import io
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image

from tests.conftest import LIMITS, write
from webpd.convert.pool import CodecPool
from webpd.convert.result import Converted
from webpd.model import Encoding, Failure, Job, Outcome, Result, Skip
from webpd.pipeline import Pipeline
from webpd.tree import sidecar
from webpd.tree.naming import Exclusion
from webpd.tree.publisher import DryPublisher, Publisher
from webpd.tree.scanner import Scanner
from webpd.tree.sidecar import Origin

ENCODING = Encoding(quality=80, method=4)
MTIME = 1_600_000_000.5


class Line:
    """A pipeline on real codecs that counts what it has them do, and can be made to meddle before they answer."""

    def __init__(self, pool: CodecPool) -> None:
        self.pool = pool
        self.converted = 0
        self.meddle: Callable[[], object] = lambda: None

    def convert(self, data: bytes) -> Converted:
        self.converted += 1
        answer = self.pool.convert(data)
        self.meddle()
        return answer

    def run(self, path: Path, encoding: Encoding = ENCODING, *, dry: bool = False, **options: bool) -> Outcome:
        """Process the original as a scan of its folder gives it."""
        publisher = DryPublisher() if dry else Publisher((33, 33), 0o644, fsync=False)
        every = any(options.values())
        looks = list(Scanner(str(path.parent), Exclusion([]), every=every).walk())
        jobs = [job for look in looks for job in look.jobs if job.path == str(path)]
        if not jobs:
            return next(
                (one for look in looks for one in look.settled if one.path == str(path)), Outcome("", Result.FRESH)
            )
        return Pipeline(self, publisher, encoding, 1 << 20, **options).process(jobs[0])


@pytest.fixture
def line(pool: CodecPool) -> Line:
    return Line(pool)


@pytest.fixture
def original(tmp_path: Path, photograph: Callable[..., bytes]) -> Path:
    return write(tmp_path / "a.jpg", photograph(), MTIME)


def webp_of(path: Path) -> Path:
    return path.with_name(path.name + ".webp")


def test_an_original_gets_a_smaller_sidecar_that_tells_what_it_was_made_from(line: Line, original: Path) -> None:
    outcome = line.run(original)
    data, source = webp_of(original).read_bytes(), original.read_bytes()
    assert (outcome.result, outcome.source_bytes, outcome.webp_bytes) == (Result.CONVERTED, len(source), len(data))
    assert len(data) < len(source)
    assert outcome.picture is not None
    assert (outcome.picture.width, outcome.picture.format) == (160, "jpeg")
    origin, stat = sidecar.read(str(webp_of(original)))
    assert origin == Origin(
        len(source), os.stat(original).st_mtime_ns, sidecar.digest_of(source), sidecar.fingerprint_of(ENCODING, 1)
    )
    assert stat.st_mtime_ns == os.stat(original).st_mtime_ns


def test_a_second_pass_has_nothing_to_do(line: Line, original: Path) -> None:
    line.run(original)
    assert line.run(original).result is Result.FRESH
    assert line.converted == 1


def test_an_overwritten_original_gets_a_new_sidecar(
    line: Line, original: Path, photograph: Callable[..., bytes]
) -> None:
    line.run(original)
    before = webp_of(original).read_bytes()
    write(original, photograph(name="coffee.png"), MTIME + 100)
    assert line.run(original).result is Result.CONVERTED
    assert webp_of(original).read_bytes() != before


def test_an_original_rewritten_within_the_same_second_gets_a_new_sidecar(
    line: Line, original: Path, photograph: Callable[..., bytes]
) -> None:
    line.run(original)
    write(original, photograph(name="coffee.png"), MTIME + 0.25)
    assert line.run(original).result is Result.CONVERTED


def test_a_damaged_sidecar_is_encoded_again_when_only_its_time_seems_wrong(line: Line, original: Path) -> None:
    line.run(original)
    good = webp_of(original).read_bytes()
    write(webp_of(original), good[:100] + bytes(len(good) - 200) + good[-100:], MTIME + 9)
    assert line.run(original).result is Result.CONVERTED
    assert sidecar.detach(webp_of(original).read_bytes()) == sidecar.detach(good)


def test_half_an_upload_is_looked_at_again_and_not_called_damaged(
    line: Line, original: Path, photograph: Callable[..., bytes]
) -> None:
    whole = photograph(name="coffee.png")
    write(original, whole[:3000], MTIME)
    real = line.convert

    def finish_the_upload(data: bytes) -> Converted:
        write(original, whole, MTIME + 1)
        return real(data)

    line.convert = finish_the_upload  # type: ignore[method-assign]
    assert line.run(original).result is Result.CONVERTED


def test_a_time_far_in_the_future_harms_nothing(line: Line, original: Path) -> None:
    os.utime(original, (10_000_000_000, 10_000_000_000))
    assert line.run(original).result is Result.CONVERTED
    assert line.run(original).result is Result.FRESH


def test_where_only_the_times_differ_the_picture_is_not_encoded_again(line: Line, original: Path) -> None:
    line.run(original)
    picture = sidecar.detach(webp_of(original).read_bytes())
    os.utime(original, (MTIME + 5, MTIME + 5))
    assert line.run(original).result is Result.FRESH
    origin, stat = sidecar.read(str(webp_of(original)))
    assert line.converted == 1
    assert sidecar.detach(webp_of(original).read_bytes()) == picture
    assert isinstance(origin, Origin)
    assert origin.mtime_ns == stat.st_mtime_ns == os.stat(original).st_mtime_ns


def test_a_tree_copied_without_its_times_is_cured_without_an_encode(line: Line, original: Path, tmp_path: Path) -> None:
    line.run(original)
    copy = tmp_path / "copy"
    copy.mkdir()
    for file in (original, webp_of(original)):
        shutil.copyfile(file, copy / file.name)
    os.utime(copy / "a.jpg", (MTIME + 50, MTIME + 50))
    assert line.run(copy / "a.jpg").result is Result.FRESH
    assert line.run(copy / "a.jpg").result is Result.FRESH
    assert line.converted == 1


@pytest.mark.parametrize("data", [b"merchant's own", b"RIFF\x04\x00\x00\x00WEBP"])
def test_a_foreign_webp_is_left_and_reported(line: Line, original: Path, data: bytes) -> None:
    write(webp_of(original), data, MTIME - 10)
    outcome = line.run(original)
    assert (outcome.result, outcome.reason) == (Result.SKIPPED, Skip.FOREIGN_SIDECAR)
    assert webp_of(original).read_bytes() == data
    assert line.converted == 0


def test_an_empty_file_in_the_sidecars_place_as_a_power_cut_leaves_it_is_replaced(line: Line, original: Path) -> None:
    write(webp_of(original), b"", MTIME)
    assert line.run(original).result is Result.CONVERTED
    assert line.run(original).result is Result.FRESH


def test_a_folder_or_a_link_in_the_sidecars_place_is_left_and_reported(line: Line, original: Path) -> None:
    webp_of(original).mkdir()
    assert line.run(original).reason is Skip.FOREIGN_SIDECAR
    webp_of(original).rmdir()
    webp_of(original).symlink_to("/etc/hostname")
    assert line.run(original).reason is Skip.FOREIGN_SIDECAR
    assert webp_of(original).is_symlink()
    webp_of(original).unlink()
    os.mkfifo(webp_of(original))
    assert line.run(original).reason is Skip.FOREIGN_SIDECAR


def test_a_copy_of_one_of_our_sidecars_under_another_name_is_foreign(
    line: Line, original: Path, photograph: Callable[..., bytes]
) -> None:
    line.run(original)
    other = write(original.with_name("b.jpg"), photograph(name="coffee.png"), MTIME + 7)
    shutil.copyfile(webp_of(original), webp_of(other))
    copied = webp_of(other).read_bytes()
    assert line.run(other).reason is Skip.FOREIGN_SIDECAR
    assert webp_of(other).read_bytes() == copied


@pytest.mark.parametrize("time", [MTIME, MTIME - 10])
def test_a_foreign_webp_is_replaced_when_that_is_asked_for(line: Line, original: Path, time: float) -> None:
    write(webp_of(original), b"merchant's own", time)
    assert line.run(original, overwrite_foreign=True).result is Result.CONVERTED
    assert line.run(original).result is Result.FRESH


def test_a_sidecar_of_a_later_version_is_left_alone(line: Line, original: Path) -> None:
    line.run(original)
    data = bytearray(webp_of(original).read_bytes())
    data[-32] = 9
    write(webp_of(original), bytes(data), MTIME - 5)
    assert line.run(original).result is Result.FRESH
    assert webp_of(original).read_bytes() == bytes(data)
    assert line.converted == 1


def test_other_settings_reconvert_only_when_asked_and_only_what_they_did_not_make(line: Line, original: Path) -> None:
    line.run(original)
    low = Encoding(quality=30, method=4)
    assert line.run(original, low).result is Result.FRESH
    assert line.run(original, ENCODING, reconvert_changed=True).result is Result.FRESH
    assert line.converted == 1
    size = webp_of(original).stat().st_size
    with CodecPool(low, LIMITS, 1) as pool:
        other = Line(pool)
        assert other.run(original, low, reconvert_changed=True).result is Result.CONVERTED
        assert webp_of(original).stat().st_size < size
        assert other.run(original, low, reconvert_changed=True).result is Result.FRESH
        assert other.converted == 1


def tiny_png() -> bytes:
    file = io.BytesIO()
    Image.new("L", (8, 8)).save(file, "PNG")
    return file.getvalue()


def test_an_original_that_webp_cannot_make_smaller_is_kept(line: Line, tmp_path: Path) -> None:
    small = write(tmp_path / "a.png", tiny_png())
    outcome = line.run(small)
    assert outcome.result is Result.KEPT_ORIGINAL
    assert not webp_of(small).exists()


def test_an_original_that_no_webp_can_show_alike_is_kept_and_is_no_failure(
    line: Line, tmp_path: Path, photograph: Callable[..., bytes]
) -> None:
    arithmetic = write(tmp_path / "a.jpg", photograph().replace(b"\xff\xc0", b"\xff\xc9", 1))
    outcome = line.run(arithmetic)
    assert outcome.result is Result.KEPT_ORIGINAL
    assert "arithmetic" in outcome.detail
    assert os.listdir(tmp_path) == ["a.jpg"]


@pytest.mark.parametrize("new", ["kept", "damaged", "html"])
def test_a_sidecar_that_shows_what_the_original_no_longer_is_does_not_stay(
    new: str, line: Line, original: Path, photograph: Callable[..., bytes]
) -> None:
    line.run(original)
    data = {"kept": tiny_png(), "damaged": photograph()[:900], "html": b"<html>not found</html>"}
    write(original, data[new], MTIME + 60)
    outcome = line.run(original)
    expected = {
        "kept": (Result.KEPT_ORIGINAL, None),
        "damaged": (Result.FAILED, Failure.DAMAGED),
        "html": (Result.SKIPPED, Skip.NOT_AN_IMAGE),
    }
    assert (outcome.result, outcome.reason) == expected[new]
    assert not webp_of(original).exists()


def test_an_original_overwritten_while_it_is_converted_shows_its_last_state(
    line: Line, original: Path, photograph: Callable[..., bytes]
) -> None:
    last = photograph(name="coffee.png")

    def overwrite_once() -> None:
        line.meddle = lambda: None
        write(original, last, MTIME + 1)

    line.meddle = overwrite_once
    assert line.run(original).result is Result.CONVERTED
    origin, _ = sidecar.read(str(webp_of(original)))
    assert isinstance(origin, Origin)
    assert origin.digest == sidecar.digest_of(last)
    assert line.converted == 2


def test_an_original_that_never_rests_is_skipped_as_changed(line: Line, original: Path) -> None:
    line.meddle = lambda: os.utime(original, (MTIME, os.stat(original).st_mtime + 1))
    outcome = line.run(original)
    assert (outcome.result, outcome.reason) == (Result.SKIPPED, Skip.CHANGED)
    assert not webp_of(original).exists()


def test_an_original_deleted_while_it_is_converted_gets_no_sidecar(line: Line, original: Path) -> None:
    line.meddle = original.unlink
    assert line.run(original).reason is Skip.CHANGED
    assert os.listdir(original.parent) == []


def test_a_link_bent_out_of_the_root_after_the_scan_is_not_followed(
    line: Line, tmp_path: Path, photograph: Callable[..., bytes]
) -> None:
    root = tmp_path / "root"
    secret = write(tmp_path / "secret.jpg", photograph())
    root.mkdir()
    (root / "a.jpg").symlink_to(secret)
    pipeline = Pipeline(line, Publisher(None, 0o644, fsync=False), ENCODING, 1 << 20)
    for job in (Job(str(root / "a.jpg"), str(root), 1), Job(str(root / "a.jpg"), str(root), 1, link=True)):
        assert pipeline.process(job).reason is Skip.CHANGED
    assert line.converted == 0


def test_a_source_over_the_size_limit_is_not_even_read(line: Line, tmp_path: Path) -> None:
    big = tmp_path / "a.jpg"
    with open(big, "wb") as file:
        file.truncate((1 << 20) + 1)
    outcome = line.run(big)
    assert outcome.reason is Skip.TOO_LARGE
    assert "WEBPD_MAX_SOURCE" in outcome.detail


def test_a_dry_run_encodes_and_writes_nothing(line: Line, original: Path) -> None:
    outcome = line.run(original, dry=True)
    assert outcome.result is Result.CONVERTED
    assert outcome.webp_bytes > 0
    assert os.listdir(original.parent) == ["a.jpg"]


def test_a_disk_error_is_a_failure_of_this_image_with_its_path(line: Line, original: Path) -> None:
    job = Job(str(original) + "/inside.jpg", str(original), 1)
    outcome = Pipeline(line, Publisher(None, 0o644, fsync=False), ENCODING, 1 << 20).process(job)
    assert (outcome.result, outcome.reason) == (Result.FAILED, Failure.IO)
    assert str(original) in outcome.detail
