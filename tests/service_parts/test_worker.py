"""What becomes of a job, whatever happens to it: done for good, or again, and when."""

import io
import os
import shutil
import subprocess
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from PIL import Image

from tests.conftest import LIMITS, as_nobody, write
from tests.service_parts.shop import ENCODING, FINGERPRINT, LOCAL, MTIME, NETWORK, Clock, Shop
from webpd.convert.pool import CodecPool
from webpd.model import Failure, Known, Result, Sidecar, Skip
from webpd.service.worker import DONE, OVERSIZE_WAIT, Verdict
from webpd.tree.publisher import Publisher
from webpd.watch.health import Health


def webp(path: Path) -> Path:
    return path.with_name(path.name + ".webp")


def test_a_converted_image_is_done_and_the_tree_itself_tells_so(shop: Shop, photograph: Callable[..., bytes]) -> None:
    path = write(shop.root / "a.jpg", photograph(), MTIME)
    job = shop.job(path)
    assert shop.worker().work(job) == DONE
    assert webp(path).exists()
    assert shop.finished == [job]
    assert shop.known() == {}
    assert shop.metrics.outcomes[Result.CONVERTED] == 1


def test_an_original_that_is_gone_is_done_and_nothing_is_counted(shop: Shop, photograph: Callable[..., bytes]) -> None:
    path = write(shop.root / "a.jpg", photograph())
    job = shop.job(path)
    path.unlink()
    assert shop.worker().work(job) == DONE
    assert set(shop.metrics.outcomes.values()) == {0}
    assert shop.known() == {}


def test_an_original_that_changed_since_the_look_comes_again_as_it_is_now_when_it_may_have_settled(
    shop: Shop, photograph: Callable[..., bytes]
) -> None:
    path = write(shop.root / "a.jpg", b"half of an upload", MTIME)
    job = shop.job(path)
    write(path, photograph(), MTIME + 1)
    verdict = shop.worker().work(job)
    assert verdict == Verdict(replace(job, size=path.stat().st_size, mtime_ns=path.stat().st_mtime_ns), LOCAL.settle)
    assert not webp(path).exists()
    assert verdict.again is not None
    assert shop.worker().work(verdict.again) == DONE
    assert webp(path).exists()


def test_where_mtimes_have_whole_seconds_a_changed_original_waits_for_one_to_pass(shop: Shop) -> None:
    path = write(shop.root / "a.jpg", b"half of an upload", 1_600_000_000)
    job = shop.job(path)
    write(path, b"the whole of an upload", 1_600_000_000)
    delay = shop.worker().work(job).delay
    assert delay is not None
    assert delay > 1.0


def test_a_changed_original_with_a_sidecar_comes_again_as_one_whose_sidecar_is_stale(
    shop: Shop, photograph: Callable[..., bytes]
) -> None:
    path = write(shop.root / "a.jpg", photograph(), MTIME)
    shop.worker().work(shop.job(path))
    write(path, b"half of an upload", MTIME + 1)
    job = shop.job(path)
    write(path, photograph(name="coffee.png"), MTIME + 2)
    verdict = shop.worker().work(job)
    assert verdict.again is not None
    assert verdict.again.sidecar is Sidecar.STALE
    before = webp(path).read_bytes()
    assert shop.worker().work(verdict.again) == DONE
    assert webp(path).read_bytes() != before


@pytest.mark.parametrize("link", [False, True])
def test_an_original_that_became_a_link_out_of_the_root_comes_to_an_end(
    link: bool, shop: Shop, tmp_path: Path, photograph: Callable[..., bytes]
) -> None:
    secret = write(tmp_path / "secret.jpg", photograph())
    path = shop.root / "a.jpg"
    if link:
        inside = write(shop.root / "b.jpg", photograph())
        path.symlink_to(inside)
    else:
        write(path, photograph())
    job = shop.job(path)
    path.unlink()
    path.symlink_to(secret)
    for _ in range(10):
        verdict = shop.worker().work(job)
        if verdict.again is None:
            break
        job = verdict.again
    assert verdict.again is None
    assert not webp(path).exists()


def test_a_picture_larger_than_its_folder_allows_waits_and_is_then_believed(
    shop: Shop, clock: Clock, photograph: Callable[..., bytes]
) -> None:
    path = write(shop.root / "80_80_1" / "a.jpg", photograph(160), MTIME)
    job = shop.job(path)
    verdict = shop.worker().work(job)
    assert verdict.again == job
    assert verdict.delay is not None
    assert verdict.delay > OVERSIZE_WAIT
    clock.ahead += OVERSIZE_WAIT / 2
    assert shop.worker().work(job).again == job  # asked for too early: a look offered it
    assert not webp(path).exists()
    clock.ahead += OVERSIZE_WAIT / 2
    assert shop.worker().work(job) == DONE
    assert webp(path).exists()


def test_the_thumbnail_that_takes_the_place_of_the_large_picture_is_the_one_converted(
    shop: Shop, clock: Clock, photograph: Callable[..., bytes]
) -> None:
    path = write(shop.root / "80_80_1" / "a.jpg", photograph(160), MTIME)
    job = shop.worker().work(shop.job(path)).again
    assert job is not None
    path.unlink()
    write(path, photograph(80), MTIME + 1)
    clock.ahead += OVERSIZE_WAIT + 1
    verdict = shop.worker().work(job)
    assert verdict.again is not None
    assert verdict.delay == LOCAL.settle
    assert shop.worker().work(verdict.again) == DONE
    assert webp(path).exists()


def test_another_large_picture_in_its_place_waits_for_as_long_again(
    shop: Shop, clock: Clock, photograph: Callable[..., bytes]
) -> None:
    path = write(shop.root / "80_80_1" / "a.jpg", photograph(160), MTIME)
    shop.worker().work(shop.job(path))
    clock.ahead += OVERSIZE_WAIT + 1
    write(path, photograph(160, name="coffee.png"), MTIME + 1)
    job = shop.job(path)
    assert shop.worker().work(job).again == job


def test_when_the_codecs_are_closed_the_job_comes_again_and_nothing_is_said_against_it(
    tmp_path: Path, clock: Clock, photograph: Callable[..., bytes]
) -> None:
    with CodecPool(ENCODING, LIMITS, 1) as pool:
        pool.ready()
    shop = Shop(tmp_path, pool)
    job = shop.job(write(shop.root / "a.jpg", photograph()))
    assert shop.worker().work(job) == Verdict(job, 0.0)
    assert shop.known() == {}
    assert shop.retries == 0
    shop.ledger.close()


def fill(folder: Path) -> None:
    with open(folder / "ballast", "wb", buffering=0) as file:
        try:
            while True:
                file.write(bytes(1 << 16))
        except OSError:
            pass


def make_read_only(folder: Path) -> None:
    subprocess.run(["mount", "-o", "remount,ro", str(folder)], check=True)


@pytest.mark.parametrize(("trouble", "health"), [(fill, Health.FULL), (make_read_only, Health.READ_ONLY)])
def test_when_the_mount_is_at_fault_the_job_waits_for_it_and_has_not_failed(
    trouble: Callable[[Path], None],
    health: Health,
    tmpfs: Callable[[str], Path],
    shop: Shop,
    photograph: Callable[..., bytes],
) -> None:
    shop.root = tmpfs("size=1m")
    path = write(shop.root / "folder" / "a.jpg", photograph())
    job = shop.job(path)
    trouble(shop.root)
    assert shop.worker().work(job) == Verdict(job, 0.0)
    assert shop.blamed == [health]
    assert shop.retries == 0
    assert os.listdir(path.parent) == ["a.jpg"]
    assert set(shop.metrics.outcomes.values()) == {0}
    assert shop.known("folder") == {}
    assert shop.finished == []


def test_when_something_else_is_in_the_way_the_job_comes_again_ever_later(
    shop: Shop, photograph: Callable[..., bytes]
) -> None:
    path = write(shop.root / "locked/a.jpg", photograph())
    job = shop.job(path)
    subprocess.run(["chattr", "+i", path.parent], check=True)
    try:
        verdict = shop.worker().work(job)
    finally:
        subprocess.run(["chattr", "-i", path.parent], check=True)
    assert (verdict.again, verdict.delay) == (job, None)
    assert str(path.parent) in verdict.failure
    assert shop.blamed == [None]
    assert shop.retries == 1


def test_a_lack_of_rights_is_told_apart_from_what_else_is_in_the_way(shop: Shop) -> None:
    job = shop.job(write(shop.root / "theirs/a.jpg", b"an original"))
    (shop.root / "theirs").chmod(0o700)
    told = as_nobody(lambda: vars_of(shop.worker().work(job)))
    assert told["denied"]
    assert "Permission denied" in told["failure"]


def vars_of(verdict: Verdict) -> dict[str, object]:
    return {"denied": verdict.denied, "failure": verdict.failure}


def test_an_original_that_became_a_folder_comes_to_an_end(shop: Shop, photograph: Callable[..., bytes]) -> None:
    path = write(shop.root / "a.jpg", photograph())
    job = shop.job(path)
    path.unlink()
    path.mkdir()
    assert shop.worker().work(job) == DONE


def test_nothing_is_written_where_the_mount_is_not_and_the_job_comes_again(
    shop: Shop, photograph: Callable[..., bytes]
) -> None:
    shop.publisher = Publisher(None, 0o644, fsync=False, bare=os.stat(shop.root).st_dev)
    path = write(shop.root / "a.jpg", photograph())
    job = shop.job(path)
    verdict = shop.worker().work(job)
    assert (verdict.again, verdict.delay) == (job, None)
    assert "not mounted" in verdict.failure
    assert os.listdir(shop.root) == ["a.jpg"]


def test_damage_on_a_local_disk_is_believed_at_once(shop: Shop, photograph: Callable[..., bytes]) -> None:
    path = write(shop.root / "a.jpg", photograph()[:900], MTIME)
    assert shop.worker().work(shop.job(path)) == DONE
    known = shop.known()["a.jpg"]
    assert (known.result, known.reason, known.sidecar) == (Result.FAILED, Failure.DAMAGED, Sidecar.ABSENT)
    assert known.detail


def test_damage_on_a_network_mount_is_doubtful_until_its_cache_time_has_passed(
    shop: Shop, clock: Clock, photograph: Callable[..., bytes]
) -> None:
    path = write(shop.root / "a.jpg", photograph()[:900], MTIME)
    job, worker = shop.job(path), shop.worker(NETWORK)
    assert worker.work(job) == Verdict(job, NETWORK.sure)
    clock.ahead += NETWORK.cache - 1
    assert worker.work(job) == Verdict(job, NETWORK.sure)
    assert shop.known() == {}
    assert set(shop.metrics.outcomes.values()) == {0}
    clock.ahead += 1.0
    assert worker.work(job) == DONE
    assert shop.known()["a.jpg"].reason == Failure.DAMAGED
    assert shop.metrics.outcomes[Result.FAILED] == 1


def test_what_the_cache_showed_half_is_converted_when_it_shows_it_whole(
    shop: Shop, clock: Clock, photograph: Callable[..., bytes]
) -> None:
    whole = photograph()
    path = write(shop.root / "a.jpg", whole[:900], MTIME)
    worker = shop.worker(NETWORK)
    worker.work(shop.job(path))
    write(path, whole, MTIME)
    clock.ahead += NETWORK.sure
    assert worker.work(shop.job(path)) == DONE
    assert webp(path).exists()


def test_a_conversion_on_a_network_mount_is_remembered_to_be_looked_at_again(
    shop: Shop, photograph: Callable[..., bytes]
) -> None:
    path = write(shop.root / "in" / "a.jpg", photograph(), MTIME)
    job = shop.job(path)
    assert shop.worker(NETWORK).work(job) == DONE
    expected = Known(job.size, job.mtime_ns, Sidecar.FRESH, FINGERPRINT, Result.CONVERTED)
    assert shop.known("in") == {"a.jpg": expected}


def tiny_png() -> bytes:
    """A picture that no WebP is smaller than."""
    file = io.BytesIO()
    Image.new("L", (8, 8)).save(file, "PNG")
    return file.getvalue()


@pytest.mark.parametrize("before", ["nothing", "a sidecar of ours"])
@pytest.mark.parametrize("new", ["damaged", "html", "tiny"])
def test_what_will_be_the_same_the_next_time_is_learnt_with_what_is_beside_it_afterwards(
    new: str, before: str, shop: Shop, photograph: Callable[..., bytes]
) -> None:
    path = shop.root / "in" / "a.jpg"
    if before != "nothing":
        write(path, photograph(), MTIME)
        shop.worker().work(shop.job(path))
    data = {"damaged": photograph()[:900], "html": b"<html>not found</html>", "tiny": tiny_png()}[new]
    outcome = {
        "damaged": (Result.FAILED, str(Failure.DAMAGED)),
        "html": (Result.SKIPPED, str(Skip.NOT_AN_IMAGE)),
        "tiny": (Result.KEPT_ORIGINAL, ""),
    }[new]
    write(path, data, MTIME + 9)
    job = shop.job(path)
    assert shop.worker().work(job) == DONE
    known = shop.known("in")["a.jpg"]
    assert (known.result, known.reason) == outcome
    assert (known.size, known.mtime_ns, known.fingerprint) == (job.size, job.mtime_ns, FINGERPRINT)
    assert known.sidecar is Sidecar.ABSENT
    assert not webp(path).exists()


def test_a_foreign_sidecar_is_learnt_as_what_is_beside_the_original(
    shop: Shop, photograph: Callable[..., bytes]
) -> None:
    path = write(shop.root / "a.jpg", photograph(), MTIME)
    write(webp(path), b"a merchant's own", MTIME - 100)
    assert shop.worker().work(shop.job(path)) == DONE
    known = shop.known()["a.jpg"]
    assert (known.result, known.reason, known.sidecar) == (Result.SKIPPED, Skip.FOREIGN_SIDECAR, Sidecar.STALE)
    assert webp(path).read_bytes() == b"a merchant's own"


def test_a_restored_sidecar_whose_times_alone_differ_is_fresh(shop: Shop, photograph: Callable[..., bytes]) -> None:
    path = write(shop.root / "a.jpg", photograph(), MTIME)
    shop.worker().work(shop.job(path))
    copy = shop.root / "copy" / "a.jpg"
    copy.parent.mkdir()
    shutil.copyfile(path, copy)
    shutil.copyfile(webp(path), webp(copy))
    assert shop.worker().work(shop.job(copy)) == DONE
    assert shop.metrics.outcomes[Result.FRESH] == 1
    assert shop.known("copy") == {}
