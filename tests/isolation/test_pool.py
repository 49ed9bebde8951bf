"""That a process which dies, hangs or lies costs its image, not its neighbours and not the service."""

import io
import os
import signal
import subprocess
import sys
import textwrap
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import FrameType
from typing import Any

import pytest
from PIL import Image, ImageCms, PngImagePlugin

from tests.isolation.poisoned import BIG_WEBP, DEADLY, DONE, PICTURE, PRINT, RETURNS
from tests.isolation.scenes import (
    ENCODING,
    LIMITS,
    belongings,
    converted,
    in_line,
    pictures,
    poison,
    poisoned_pool,
    run_before_neighbours,
    runs,
    until,
    worker_ids,
)
from tests.pictures import pixels
from webpd.convert import pool as pool_module
from webpd.convert import starts
from webpd.convert.frames import Limits
from webpd.convert.pool import PROGRAM, CodecPool, PoolClosedError
from webpd.convert.result import Converted
from webpd.convert.starts import MOST_BAD_STARTS
from webpd.errors import FailedError, PermanentError, RefusedError, UnfitError
from webpd.model import Failure, Skip

SHORT = Limits(LIMITS.max_pixels, LIMITS.worker_memory, job_timeout=3.0)
"""Long enough for a thumbnail on a machine that is busy with other things."""
REASONS = {
    "spin": Failure.TIMED_OUT,
    "hang": Failure.TIMED_OUT,
    "eat at once": Failure.MEMORY,
    "eat in crumbs": Failure.MEMORY,
}
ARGUMENTS = {"exit": 0, "eat at once": LIMITS.worker_memory}
LIES = [name for name in RETURNS if name not in ("return a big image", "speak in control characters")]


@pytest.fixture(autouse=True)
def nothing_left() -> Iterator[None]:
    """No process, descriptor or thread outlives its pool."""
    before = belongings()
    yield
    assert belongings() == before


def failure_of(error: BaseException | None) -> Failure:
    assert isinstance(error, FailedError)
    return error.reason


@pytest.mark.parametrize("deed", DEADLY)
def test_a_process_that_dies_hangs_or_babbles_costs_only_its_image(deed: str) -> None:
    with poisoned_pool(limits=SHORT if REASONS.get(deed) is Failure.TIMED_OUT else LIMITS) as pool:
        # The first number is that of ready(); the picture's is 2, its neighbour's 3.
        number = 3 if deed == "answer for" else 2
        error = run_before_neighbours(pool, poison(deed, ARGUMENTS.get(deed, number))).exception()
        assert failure_of(error) is REASONS.get(deed, Failure.CRASHED)
        assert pool.ended == {failure_of(error): 1}
        assert pool.started == 2


@pytest.mark.parametrize("deed", LIES)
def test_an_answer_that_cannot_be_is_not_believed(deed: str) -> None:
    with poisoned_pool() as pool:
        error = run_before_neighbours(pool, poison(deed)).exception()
        assert failure_of(error) is Failure.CRASHED
        assert pool.started == 2


@pytest.mark.parametrize("status", [1, 3, 255])
def test_the_status_with_which_a_process_left_is_told(status: int) -> None:
    with poisoned_pool() as pool, pytest.raises(FailedError, match=f"status {status}"):
        pool.convert(poison("exit", status))


def test_the_signal_that_ended_a_process_is_told() -> None:
    with poisoned_pool() as pool, pytest.raises(FailedError, match="SIGSEGV"):
        pool.convert(poison("segfault"))


def test_a_second_answer_to_one_job_does_not_become_the_next_jobs_picture() -> None:
    with poisoned_pool() as pool:
        mine = run_before_neighbours(pool, poison("answer for", 2))
        assert mine.result().picture == PICTURE
        assert pool.started == 2


def test_what_a_picture_prints_harms_nothing() -> None:
    with poisoned_pool() as pool:
        error = run_before_neighbours(pool, poison(PRINT)).exception()
        assert failure_of(error) is Failure.DAMAGED
        assert str(error) == DONE
        assert pool.started == 1


def test_what_a_process_says_is_short_and_printable() -> None:
    with poisoned_pool() as pool, pytest.raises(FailedError) as caught:
        pool.convert(poison("speak in control characters"))
    assert str(caught.value).isprintable()
    assert len(str(caught.value)) == 500


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_signals_for_the_service_do_not_reach_its_processes(number: signal.Signals) -> None:
    with poisoned_pool() as pool:
        pool.ready()
        (process,) = worker_ids(pool)
        os.kill(process, number)
        assert pool.convert(pictures()[0]) == converted(pictures()[0])
        assert worker_ids(pool) == [process]


def test_ctrl_c_to_the_whole_group_costs_no_image() -> None:
    program = textwrap.dedent("""
        import signal, sys, threading
        from concurrent.futures import ThreadPoolExecutor
        from tests.isolation.scenes import converted, pictures, poisoned_pool
        interrupted = threading.Event()
        signal.signal(signal.SIGINT, lambda *_: interrupted.set())
        with poisoned_pool(workers=2) as pool, ThreadPoolExecutor(4) as threads:
            pool.ready()
            print("ready", flush=True)
            rounds = 0
            while not interrupted.is_set() or rounds < 3:
                for source, result in zip(pictures(), threads.map(pool.convert, pictures())):
                    assert result == converted(source)
                rounds += interrupted.is_set()
            assert pool.started == 2
    """)
    command = (sys.executable, "-c", program)
    with subprocess.Popen(command, stdout=subprocess.PIPE, start_new_session=True, env=importable()) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"ready\n"
        os.killpg(process.pid, signal.SIGINT)
    assert process.returncode == 0


def test_a_stopped_process_is_ended_after_the_job_timeout_and_its_neighbours_are_converted() -> None:
    with poisoned_pool(limits=SHORT) as pool, ThreadPoolExecutor() as threads:
        pool.ready()
        os.kill(worker_ids(pool)[0], signal.SIGSTOP)
        first = threads.submit(pool.convert, pictures()[0])
        until(lambda: in_line(pool) == 1)
        others = [threads.submit(pool.convert, source) for source in pictures()[1:]]
        assert failure_of(first.exception()) is Failure.TIMED_OUT
        assert [future.result() for future in others] == [converted(source) for source in pictures()[1:]]


def test_a_killed_process_costs_the_image_in_hand_only() -> None:
    with poisoned_pool() as pool, ThreadPoolExecutor() as threads:
        pool.ready()
        (process,) = worker_ids(pool)
        first = threads.submit(pool.convert, poison("hang"))
        until(lambda: in_line(pool) == 1)
        second = threads.submit(pool.convert, pictures()[0])
        until(lambda: in_line(pool) == 2)
        os.kill(process, signal.SIGKILL)
        assert failure_of(first.exception()) is Failure.CRASHED
        assert "SIGKILL" in str(first.exception())
        assert second.result() == converted(pictures()[0])


def test_a_process_killed_while_idle_costs_no_image() -> None:
    with poisoned_pool() as pool:
        for source in pictures():
            pool.ready()
            (process,) = worker_ids(pool)
            os.kill(process, signal.SIGKILL)
            until(lambda: not runs(process))  # noqa: B023 - called at once
            assert pool.convert(source) == converted(source)
        assert pool.ended == {}


def test_frames_larger_than_the_pipes_pass_in_both_directions_at_once() -> None:
    source = poison("return a big image").ljust(len(BIG_WEBP), b"\0")
    with poisoned_pool(workers=2) as pool, ThreadPoolExecutor(8) as threads:
        for result in threads.map(pool.convert, [source] * 24):
            assert result == Converted(BIG_WEBP, PICTURE)


def test_many_threads_each_get_the_answer_to_their_own_job() -> None:
    sources = [source for source in pictures() for _ in range(20)]
    with CodecPool(ENCODING, LIMITS, 2) as pool, ThreadPoolExecutor(16) as threads:
        for source, result in zip(sources, threads.map(pool.convert, sources), strict=True):
            assert result == converted(source)
        for source in pictures():
            assert pool.inspect(converted(source).webp).width == converted(source).picture.width
        assert pool.started == 2


def every_kind() -> Iterator[bytes]:
    """Yield the kinds of pictures for which Pillow has code of its own, which it loads when it first meets one."""
    photo = pixels("chelsea.png", 90, 60)
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    turned = Image.Exif()
    turned[0x0112] = 6
    text = PngImagePlugin.PngInfo()
    text.add_text("Comment", "long " * 100, zip=True)
    text.add_itxt("Title", "кот", "ru", "Заглавие", zip=True)
    text.add(b"gAMA", (100_000).to_bytes(4, "big"))
    more = [photo.rotate(90), photo.rotate(180)]
    options: list[tuple[str, str, dict[str, Any]]] = [
        *(("JPEG", mode, {}) for mode in ("L", "RGB", "CMYK")),
        *(("JPEG", mode, {"icc_profile": profile, "progressive": True}) for mode in ("L", "RGB", "CMYK")),
        ("JPEG", "RGB", {"icc_profile": b"no profile at all", "exif": turned.tobytes()}),
        ("JPEG", "RGB", {"exif": b"Exif\0\0MM\0*\xff\xff\xff\xff"}),
        ("MPO", "RGB", {"save_all": True, "append_images": more}),
        *(("PNG", mode, {"icc_profile": profile}) for mode in ("1", "L", "LA", "P", "RGB", "RGBA", "I;16")),
        *(("PNG", mode, {"transparency": 3}) for mode in ("L", "P")),
        ("PNG", "RGB", {"pnginfo": text}),
        ("PNG", "RGBA", {"save_all": True, "append_images": more, "duration": 100}),
    ]
    for kind, mode, how in options:
        stream = io.BytesIO()
        picture = photo.convert("L").convert("I").convert("I;16") if mode == "I;16" else photo.convert(mode)
        picture.save(stream, kind, **how)
        yield stream.getvalue()


def outcome(convert: Callable[[bytes], Converted], source: bytes) -> Converted | str:
    try:
        return convert(source)
    except PermanentError as error:
        return repr(error)


def test_every_kind_of_picture_comes_out_of_a_sealed_process_as_it_does_outside() -> None:
    with CodecPool(ENCODING, LIMITS, 1) as pool:
        for source in every_kind():
            for variant in (source, source[: len(source) * 2 // 3]):
                assert outcome(pool.convert, variant) == outcome(converted, variant)
        assert pool.started == 1


def test_what_is_no_image_is_refused_and_the_process_serves_on() -> None:
    with CodecPool(ENCODING, LIMITS, 1) as pool:
        with pytest.raises(RefusedError) as caught:
            pool.convert(b"<html>")
        assert caught.value.reason is Skip.NOT_AN_IMAGE
        with pytest.raises(FailedError) as failed:
            pool.convert(pictures()[0][:2000])
        assert failed.value.reason is Failure.DAMAGED
        assert pool.convert(pictures()[0]) == converted(pictures()[0])
        assert pool.started == 1


def test_a_source_larger_than_the_memory_of_a_process_is_refused() -> None:
    limits = Limits(LIMITS.max_pixels, 200 << 20, LIMITS.job_timeout)
    with CodecPool(ENCODING, limits, 1) as pool, pytest.raises(RefusedError) as caught:
        pool.convert(bytes(limits.worker_memory + 1))
    assert caught.value.reason is Skip.TOO_LARGE


def test_a_source_that_just_does_not_fit_fails_for_memory() -> None:
    limits = Limits(LIMITS.max_pixels, 200 << 20, LIMITS.job_timeout)
    with CodecPool(ENCODING, limits, 1) as pool:
        with pytest.raises(FailedError) as caught:
            pool.convert(bytes(limits.worker_memory))
        assert caught.value.reason is Failure.MEMORY
        assert pool.convert(pictures()[0]) == converted(pictures()[0])


def test_fifty_deaths_leak_nothing_and_stop_nothing() -> None:
    with poisoned_pool() as pool:
        assert failure_of(failed(pool, poison("exit", 1))) is Failure.CRASHED
        pool.ready()
        before = belongings()
        for _ in range(50):
            failed(pool, poison("exit", 1))
        pool.ready()
        descriptors, threads, processes = belongings()
        assert (descriptors, threads, len(processes)) == (*before[:2], len(before[2]))
        assert pool.started == 52
        assert pool.convert(pictures()[0]) == converted(pictures()[0])


def failed(pool: CodecPool, source: bytes) -> BaseException:
    with pytest.raises(FailedError) as caught:
        pool.convert(source)
    return caught.value


def test_a_job_keeps_to_the_process_that_is_idle() -> None:
    with poisoned_pool(workers=2) as pool, ThreadPoolExecutor() as threads:
        pool.ready()
        stuck = threads.submit(pool.convert, poison("hang"))
        until(lambda: in_line(pool) == 1)
        for source in pictures():
            assert pool.convert(source) == converted(source)
        assert not stuck.done()
        pool.close()
        assert isinstance(stuck.exception(), PoolClosedError)


def test_closing_ends_all_processes_and_frees_those_who_wait() -> None:
    pool = poisoned_pool(workers=2)
    with ThreadPoolExecutor(8) as threads:
        pool.ready()
        processes = worker_ids(pool)
        waiting = [threads.submit(pool.convert, poison("hang")) for _ in range(8)]
        until(lambda: in_line(pool) == 4)
        pool.close()
        assert not any(runs(process) for process in processes)
        for future in waiting:
            assert isinstance(future.exception(), PoolClosedError)
    pool.close()
    with pytest.raises(PoolClosedError):
        pool.convert(pictures()[0])
    with pytest.raises(PoolClosedError):
        pool.ready()


def test_a_pool_that_was_never_used_closes_at_once() -> None:
    poisoned_pool(workers=2).close()


def interrupt_when_busy(pool: CodecPool, thread: int) -> None:
    until(lambda: in_line(pool) == 1)
    signal.pthread_kill(thread, signal.SIGUSR1)


def test_an_interrupted_caller_leaves_the_pool_in_order() -> None:
    class Interrupted(BaseException):
        pass

    def interrupt(number: int, frame: FrameType | None) -> None:
        raise Interrupted

    previous = signal.signal(signal.SIGUSR1, interrupt)
    try:
        with poisoned_pool() as pool:
            pool.ready()
            main = threading.main_thread().ident
            assert main is not None
            with ThreadPoolExecutor() as threads:
                signalled = threads.submit(interrupt_when_busy, pool, main)
                with pytest.raises(Interrupted):
                    pool.convert(poison("hang"))
                signalled.result()
            assert pool.convert(pictures()[0]) == converted(pictures()[0])
    finally:
        signal.signal(signal.SIGUSR1, previous)


def importable() -> dict[str, str]:
    """Return an environment in which another Python finds these tests' modules."""
    return {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}


def test_no_process_outlives_a_service_that_is_killed() -> None:
    program = textwrap.dedent("""
        import threading
        from tests.isolation.scenes import in_line, poison, poisoned_pool, until, worker_ids
        pool = poisoned_pool(workers=3)
        pool.ready()
        for deed in ("hang", "spin"):
            threading.Thread(target=pool.convert, args=(poison(deed),)).start()
        until(lambda: in_line(pool) == 2 and len(worker_ids(pool)) == 3)
        print(*worker_ids(pool), flush=True)
        threading.Event().wait()
    """)
    with subprocess.Popen((sys.executable, "-c", program), stdout=subprocess.PIPE, env=importable()) as process:
        assert process.stdout is not None
        processes = [int(word) for word in process.stdout.readline().split()]
        assert len(processes) == 3
        assert all(runs(each) for each in processes)
        process.kill()
    until(lambda: not any(runs(each) for each in processes))


def test_no_process_outlives_a_service_that_forgets_to_close() -> None:
    program = textwrap.dedent("""
        from tests.isolation.scenes import poisoned_pool, worker_ids
        pool = poisoned_pool(workers=2)
        pool.ready()
        print(*worker_ids(pool), flush=True)
    """)
    command = (sys.executable, "-c", program)
    done = subprocess.run(command, env=importable(), check=True, capture_output=True, text=True)
    assert done.stderr == ""
    until(lambda: not any(runs(int(each)) for each in done.stdout.split()))


def test_too_little_memory_to_start_is_told_once_and_not_tried_for_ever() -> None:
    with CodecPool(ENCODING, Limits(LIMITS.max_pixels, 1 << 20, 60.0), 2) as pool:
        for _ in range(2):
            with pytest.raises(UnfitError, match=r"memory.*WEBPD_WORKER_MEMORY \(1048576 bytes\)"):
                pool.convert(pictures()[0])
        assert pool.started <= MOST_BAD_STARTS + 2


def test_codecs_that_could_not_start_for_a_while_are_tried_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in (pool_module, starts):
        monkeypatch.setattr(module, "REST", 0.1)
    program = tmp_path / "python"
    with CodecPool(ENCODING, LIMITS, 1, (str(program), *PROGRAM[1:])) as pool:
        with pytest.raises(UnfitError, match="No such file"):
            pool.ready()
        program.write_text(f'#!/bin/sh\nexec {sys.executable} "$@"\n')
        program.chmod(0o755)

        def starts_again() -> bool:
            try:
                return bool(pool.ready())
            except UnfitError:
                return False

        until(starts_again)


def test_missing_codecs_are_told_in_their_own_words() -> None:
    with poisoned_pool(workers=2, switches=["--unfit"]) as pool, pytest.raises(UnfitError, match="are not installed"):
        pool.convert(pictures()[0])


def test_a_missing_interpreter_is_told() -> None:
    with (
        CodecPool(ENCODING, LIMITS, 2, ("/nonexistent/python",)) as pool,
        pytest.raises(UnfitError, match="No such file"),
    ):
        pool.ready()
