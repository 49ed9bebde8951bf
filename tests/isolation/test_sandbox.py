"""What a sealed process cannot do, tried from inside a really sealed one."""

import errno
import os
import signal
import socket
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.isolation.poisoned import DENIED
from tests.isolation.scenes import (
    ENCODING,
    LIMITS,
    POISONED,
    converted,
    pictures,
    poison,
    poisoned_pool,
    run_before_neighbours,
    worker_ids,
)
from webpd.convert.frames import Frame, Limits, Orders, Seal, read_frame, write_frame
from webpd.convert.pool import CodecPool
from webpd.errors import FailedError
from webpd.model import Failure

WITHOUT_LANDLOCK, WITHOUT_SECCOMP = "--without=landlock", "--without=seccomp"
BY_LANDLOCK = {
    **dict.fromkeys(["open for reading", "open for writing", "list", "connect by TCP"], errno.EMFILE),
    **dict.fromkeys(["truncate", "unlink", "make a directory", "rename", "link", "execute"], errno.EACCES),
    "signal the service": errno.EPERM,
}
"""What is denied without seccomp, and how: the limit on descriptors is met before Landlock is asked."""
DENIALS = (f"[Errno {errno.EPERM}]", "RuntimeError: can't start new thread", "ValueError: not allowed to raise")


@pytest.fixture(scope="module", params=[(), (WITHOUT_LANDLOCK,)], ids=["sealed", "without Landlock"])
def sealed(request: pytest.FixtureRequest) -> Iterator[CodecPool]:
    with poisoned_pool(switches=request.param) as pool:
        pool.ready()
        yield pool


@pytest.fixture(scope="module")
def landlocked() -> Iterator[CodecPool]:
    with poisoned_pool(switches=[WITHOUT_SECCOMP]) as pool:
        pool.ready()
        yield pool


def try_on(pool: CodecPool, deed: str, victim: Path) -> str:
    """Let a picture do the deed, to a real file or to a real server; return what became of it."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        argument = server.getsockname()[1] if deed == "connect by TCP" else victim
        outcome = run_before_neighbours(pool, poison(deed, argument)).exception()
        server.setblocking(False)
        with pytest.raises(BlockingIOError):
            server.accept()
    assert victim.read_bytes() == b"precious"
    assert list(victim.parent.iterdir()) == [victim]
    assert isinstance(outcome, FailedError)
    assert outcome.reason is Failure.CRASHED
    # The process is still the first one: being denied does it no harm, and so all this was asked of a sealed one.
    assert pool.started == 1
    return str(outcome)


@pytest.fixture
def victim(tmp_path: Path) -> Path:
    path = tmp_path / "victim"
    path.write_bytes(b"precious")
    return path


@pytest.mark.parametrize("deed", DENIED)
def test_a_picture_that_takes_the_codec_over_is_denied(sealed: CodecPool, deed: str, victim: Path) -> None:
    outcome = try_on(sealed, deed, victim)
    assert any(denial in outcome for denial in DENIALS), outcome


@pytest.mark.parametrize("deed", BY_LANDLOCK)
def test_without_seccomp_files_tcp_and_signals_are_still_denied(landlocked: CodecPool, deed: str, victim: Path) -> None:
    assert f"[Errno {BY_LANDLOCK[deed]}]" in try_on(landlocked, deed, victim)


def test_landlock_alone_denies_opening_and_connecting(victim: Path) -> None:
    program = textwrap.dedent("""
        import os, socket, sys
        from webpd.convert import sandbox
        path, port = sys.argv[1], int(sys.argv[2])
        def attempts():
            yield lambda: os.open(path, os.O_RDONLY)
            yield lambda: os.open(path, os.O_WRONLY)
            yield lambda: os.open(path + ".new", os.O_WRONLY | os.O_CREAT)
            yield lambda: os.listdir("/")
            yield lambda: socket.socket().connect(("127.0.0.1", port))
            yield lambda: socket.socket().bind(("127.0.0.1", 1025))
        sandbox._prctl(sandbox.PR_SET_NO_NEW_PRIVS, 1)
        sandbox._landlock()
        for attempt in attempts():
            try:
                attempt()
                print("done")
            except PermissionError as error:
                print(error.errno)
    """)
    with socket.create_server(("127.0.0.1", 0)) as server:
        command = (sys.executable, "-c", program, str(victim), str(server.getsockname()[1]))
        done = subprocess.run(command, check=True, capture_output=True, text=True)
    assert done.stdout.split() == [str(errno.EACCES)] * 6


def test_the_processes_say_what_they_sealed_and_the_log_what_they_could_not(caplog: pytest.LogCaptureFixture) -> None:
    seals = {}
    for switches in ([], [WITHOUT_LANDLOCK], [WITHOUT_SECCOMP], [WITHOUT_LANDLOCK, WITHOUT_SECCOMP]):
        with poisoned_pool(switches=switches) as pool:
            seals["".join(switches)] = pool.ready()
            assert pool.convert(pictures()[0]) == converted(pictures()[0])
    assert ["not fully sealed" in record.getMessage() for record in caplog.records] == [True] * 3
    version = seals[""].landlock
    assert version > 0
    assert list(seals.values()) == [Seal(version, True), Seal(0, True), Seal(version, False), Seal(0, False)]


def test_a_process_has_no_environment_no_terminal_no_rights_to_gain_and_low_priority() -> None:
    with poisoned_pool() as pool:
        pool.ready()
        (process,) = worker_ids(pool)
        assert Path(f"/proc/{process}/environ").read_bytes() == b""
        assert os.getsid(process) == process
        assert os.getpriority(os.PRIO_PROCESS, process) > os.getpriority(os.PRIO_PROCESS, 0)
        assert os.readlink(f"/proc/{process}/cwd") == "/"
        status = dict(line.split(":\t", 1) for line in Path(f"/proc/{process}/status").read_text().splitlines())
        assert (status["NoNewPrivs"], status["Seccomp"], status["Threads"]) == ("1", "2", "1")
        descriptors = {os.readlink(f"/proc/{process}/fd/{name}") for name in os.listdir(f"/proc/{process}/fd")}
        assert {name.partition(":")[0] for name in descriptors} == {"pipe", "/dev/null"}
        limits = Path(f"/proc/{process}/limits").read_text()
        for name, value in {
            "Max address space": LIMITS.worker_memory,
            "Max open files": 0,
            "Max file size": 0,
            "Max core file size": 0,
        }.items():
            (line,) = (line for line in limits.splitlines() if line.startswith(name))
            assert line.removeprefix(name).split()[:2] == [str(value)] * 2


def test_a_spinning_process_ends_by_its_own_limit_when_nobody_ends_it() -> None:
    orders = Orders(os.getpid(), ENCODING, Limits(LIMITS.max_pixels, LIMITS.worker_memory, job_timeout=0.1))
    command = (*POISONED, orders.dump())
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env={}) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        read_frame(process.stdout, 0)  # type: ignore[arg-type]  # IO[bytes] of a pipe is a BufferedReader
        write_frame(process.stdin.fileno(), Frame(1, {"do": "convert"}, poison("spin")))
        assert process.stdout.read() == b""
    assert process.returncode == -signal.SIGXCPU


def test_a_process_whose_service_is_already_gone_does_not_start() -> None:
    orders = Orders(os.getppid(), ENCODING, LIMITS)
    done = subprocess.run((*POISONED, orders.dump()), input=b"", capture_output=True, env={}, check=False)
    assert (done.returncode, done.stdout) == (1, b"")


def test_the_service_itself_loads_no_codec_and_no_sandbox() -> None:
    program = "import sys, webpd.convert.pool; sys.exit(bool({'PIL', 'ctypes', 'asyncio'} & set(sys.modules)))"
    subprocess.run((sys.executable, "-c", program), check=True)
