"""The service's side of the codec processes: who gets which job, who is believed, and who is ended.

The threads that call are the ones that write and read the pipes, with plain blocking calls; whatever has to be
interrupted is interrupted by ending the process at the other end. One thread of the pool's own starts processes and
ends those that are late: it lives as long as the pool, because the kernel ends a process when the *thread* that
started it is gone (PR_SET_PDEATHSIG).
"""

import contextlib
import fcntl
import itertools
import logging
import math
import os
import signal
import subprocess
import sys
import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import BinaryIO, Self, TypeVar, cast

from webpd.convert.frames import (
    EXIT_MEMORY,
    MOST_BODY,
    Frame,
    Limits,
    MalformedError,
    Orders,
    Seal,
    check_webp,
    error_of_facts,
    picture_of_facts,
    read_frame,
    seal_of_facts,
    write_frame,
)
from webpd.convert.postmortem import cause_of_death
from webpd.convert.result import Converted
from webpd.convert.starts import REST, Starts
from webpd.errors import FailedError, PermanentError, RefusedError, RetryableError, UnfitError
from webpd.model import Encoding, Failure, Picture, Skip

_log = logging.getLogger(__name__)

PROGRAM = (sys.executable, "-I", "-m", "webpd.convert.worker")
DEPTH = 2
"""How many jobs a process may have: one that it works on, one that waits in its pipe."""
PIPE_SIZE = 1 << 20
"""In bytes; what Linux grants to everybody (/proc/sys/fs/pipe-max-size), and more than a thumbnail has."""
READ_SIZE = 1 << 17
"""In bytes, how much is read at once: a thumbnail's answer whole."""
START_TIMEOUT = 60.0
"""How many seconds a process may take from its start until it is ready."""
MOST_TRIES = 3
"""How many processes may end under a job that does not seem to be the cause."""

Answer = TypeVar("Answer")


class PoolClosedError(RetryableError):
    """The pool was closed before the job was done. Nothing is known against the image."""


class _AnotherTryError(Exception):
    """The process ended before it came to this job."""


class _AnsweredBeforeError(MalformedError):
    """The process answered once more what it had been asked before: the job in hand is not the one to blame."""


class _Worker:
    """A codec process, and the jobs that it has. All but the pipes is guarded by the pool's lock."""

    def __init__(self, command: Sequence[str], lock: threading.RLock) -> None:
        self.process = subprocess.Popen(  # noqa: S603 - our own program, no shell
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            bufsize=READ_SIZE,
            cwd="/",
            env={},
            start_new_session=True,
        )
        self.requests = cast("BinaryIO", self.process.stdin)
        self.answers = cast("BinaryIO", self.process.stdout)
        for pipe in (self.requests, self.answers):
            with contextlib.suppress(OSError):
                fcntl.fcntl(pipe, fcntl.F_SETPIPE_SZ, PIPE_SIZE)
        self.writing = threading.Lock()
        self.turn = threading.Condition(lock)
        self.line: deque[int] = deque()
        self.load = 0
        self.deadline = math.inf
        self.answered = 0
        self.ready = False
        self.alive = True
        self.late = False

    def clock(self, job_timeout: float) -> None:
        """Start the time of the job at the head, if there is one."""
        seconds = job_timeout if self.ready else START_TIMEOUT
        self.deadline = time.monotonic() + seconds if self.line else math.inf

    def bury(self) -> None:
        """Forget a process that has ended, or is about to, and that nobody talks to any more."""
        for pipe in (self.requests, self.answers):
            pipe.close()
        self.process.wait()


@dataclass(slots=True)
class _Job:
    """One request. ``tries`` counts the processes that ended under it without its being the likely cause."""

    request: Frame
    tries: int = 0


class CodecPool:
    """Converts in ``workers`` processes of its own; called from as many threads as there are.

    Two threads for each process keep it busy. The processes start at once and are not waited for; those that end are
    replaced. ``program`` is the command that serves the frames.
    """

    def __init__(self, encoding: Encoding, limits: Limits, workers: int, program: Sequence[str] = PROGRAM) -> None:
        self.started = 0
        """How many processes have been started, the first ones included."""
        self.ended: Counter[Failure] = Counter()
        """How many jobs cost their process, by reason."""
        self._limits = limits
        self._command = (*program, Orders(os.getpid(), encoding, limits).dump())
        # Four bytes a pixel is what a picture has before it is compressed.
        self._most_answer = min(MOST_BODY, 4 * limits.max_pixels + PIPE_SIZE)
        self._most_request = min(MOST_BODY, limits.worker_memory)
        self._numbers = itertools.count(1)
        self._lock = threading.RLock()
        self._room = threading.Condition(self._lock)
        self._wake = threading.Condition(self._lock)
        self._wanted = workers
        self._workers: list[_Worker] = []
        self.starts = Starts(limits.worker_memory)
        """Whether processes start; to be read only."""
        self._warned = False
        self._closed = False
        self._supervisor = threading.Thread(target=self._supervise, name="codec pool", daemon=True)
        self._supervisor.start()

    def convert(self, source: bytes) -> Converted:
        """Return the source as WebP. Blocks until it is there.

        Raises RefusedError and FailedError for the image, PoolClosedError, and UnfitError when no process starts.
        """

        def believe(answer: Frame) -> Converted:
            check_webp(answer.body)
            return Converted(answer.body, picture_of_facts(answer.facts, self._limits.max_pixels))

        return self._ask("convert", source, believe)

    def inspect(self, webp: bytes) -> Picture:
        """Return what a WebP file shows. Blocks and raises as ``convert`` does."""
        return self._ask("inspect", webp, lambda answer: picture_of_facts(answer.facts, self._limits.max_pixels))

    @property
    def running(self) -> int:
        """How many processes there are now."""
        return len(self._workers)

    def ready(self) -> Seal:
        """Wait until a process is ready, and return what it says of its sandbox. Raises UnfitError, PoolClosedError."""
        return self._ask("say what is sealed", b"", lambda answer: seal_of_facts(answer.facts))

    def close(self) -> None:
        """End all processes at once; threads that wait for an answer get PoolClosedError. May be called again."""
        with self._lock:
            self._closed = True
            workers = tuple(self._workers)
            for worker in workers:
                self._end(worker)
            self._wake.notify_all()
            self._room.notify_all()
        self._supervisor.join()
        for worker in workers:
            worker.process.wait()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _ask(self, what: str, body: bytes, believe: Callable[[Frame], Answer]) -> Answer:
        """Have one job done, by another process when the first one ends before it comes to it."""
        if len(body) > self._most_request:
            detail = f"{len(body)} bytes are more than a codec process may hold: raise WEBPD_WORKER_MEMORY"
            raise RefusedError(Skip.TOO_LARGE, detail)
        job = _Job(Frame(next(self._numbers), {"do": what}, body))
        while True:
            worker = self._take()
            try:
                answer = self._exchange(worker, job, believe)
            except _AnotherTryError:
                continue
            except BaseException:
                self._end(worker)  # what is in its pipes now fits no job
                raise
            finally:
                self._leave(worker, job)
            if isinstance(answer, PermanentError):
                raise answer
            return answer

    def _take(self) -> _Worker:
        """Wait for a process with room for a job, an idle one before a busy one."""
        with self._lock:
            while True:
                if self._closed:
                    raise PoolClosedError("the codec processes have been stopped")
                if self.starts.unfit:
                    raise UnfitError(self.starts.unfit)
                worker = min(self._workers, key=lambda each: each.load, default=None)
                if worker is None or worker.load == DEPTH:
                    self._room.wait()
                elif worker.load == 0 and worker.process.poll() is not None:
                    self._end(worker)
                else:
                    worker.load += 1
                    return worker

    def _leave(self, worker: _Worker, job: _Job) -> None:
        with self._lock:
            worker.load -= 1
            if job.request.number in worker.line:
                worker.line.remove(job.request.number)
            if worker.alive:
                worker.clock(self._limits.job_timeout)
                worker.turn.notify()
                self._room.notify()
            last = worker.load == 0 and not worker.alive
        if last:
            worker.bury()

    def _exchange(self, worker: _Worker, job: _Job, believe: Callable[[Frame], Answer]) -> Answer | PermanentError:
        """Send the request, wait for the job's turn, and read the answer."""
        number = job.request.number
        sent = True
        with worker.writing:
            with self._lock:
                if not worker.alive:
                    raise _AnotherTryError
                worker.line.append(number)
                first = worker.line[0] == number
                if first:
                    worker.clock(self._limits.job_timeout)
            try:
                write_frame(worker.requests.fileno(), job.request)
            except BrokenPipeError:
                sent = False  # it may have answered all the same
        with self._lock:
            while worker.alive and worker.line[0] != number:
                worker.turn.wait()
            if not worker.alive and not first:
                raise _AnotherTryError  # whatever ended it, it was before this job's turn
        if not worker.ready:
            self._greet(worker)
        try:
            return self._listen(worker, number, believe)
        except EOFError:
            self._end(worker)
            raise self._post_mortem(worker, job, sent) from None
        except _AnsweredBeforeError as error:
            self._end(worker)
            raise self._suspect(job, str(error)) from None
        except MalformedError as error:
            self._end(worker)
            raise self._failed(Failure.CRASHED, f"the codec process sent {error}") from None

    def _listen(self, worker: _Worker, number: int, believe: Callable[[Frame], Answer]) -> Answer | PermanentError:
        """Read the answer to the job at the head, and believe it only if it is one."""
        answer = read_frame(worker.answers, self._most_answer)
        if answer.number == worker.answered:
            raise _AnsweredBeforeError("a second answer to the job before")
        if answer.number != number:
            raise MalformedError("an answer to another job")
        worker.answered = number
        error = error_of_facts(answer.facts)
        if error is None:
            return believe(answer)
        if isinstance(error, FailedError) and error.reason is Failure.MEMORY:
            self._end(worker)
            return self._failed(error.reason, str(error))
        return error

    def _greet(self, worker: _Worker) -> None:
        """Read what a process says when it has started."""
        try:
            hello = read_frame(worker.answers, 0)
            seal = seal_of_facts(hello.facts)
        except (EOFError, MalformedError) as error:
            self._end(worker)
            self._bad_start(str(error) or cause_of_death(worker.process))
            raise _AnotherTryError from None
        with self._lock:
            self.starts.good()
            worker.ready = True
            worker.clock(self._limits.job_timeout)
            if not (seal.landlock and seal.seccomp) and not self._warned:
                self._warned = True
                _log.warning("codec processes are not fully sealed: use a kernel with Landlock, install libseccomp2")

    def _bad_start(self, what: str) -> None:
        with self._lock:
            if self.starts.bad(what):
                self._room.notify_all()

    def _post_mortem(self, worker: _Worker, job: _Job, sent: bool) -> Exception:
        """Return what to raise for the job at whose head the process ended."""
        status = worker.process.wait()
        if self._closed:
            return PoolClosedError("the codec processes have been stopped")
        if worker.late or status == -signal.SIGXCPU:
            return self._failed(Failure.TIMED_OUT, f"not done in {self._limits.job_timeout:g} s (WEBPD_JOB_TIMEOUT)")
        if status == EXIT_MEMORY:
            memory = self._limits.worker_memory
            return self._failed(Failure.MEMORY, f"needs more than {memory} bytes of memory (WEBPD_WORKER_MEMORY)")
        if not sent:
            return self._suspect(job, cause_of_death(worker.process))
        return self._failed(Failure.CRASHED, cause_of_death(worker.process))

    def _suspect(self, job: _Job, what: str) -> Exception:
        """Give a job that is not the likely cause another try, but not for ever."""
        job.tries += 1
        return _AnotherTryError() if job.tries < MOST_TRIES else self._failed(Failure.CRASHED, what)

    def _failed(self, reason: Failure, detail: str) -> FailedError:
        with self._lock:
            self.ended[reason] += 1
        return FailedError(reason, detail)

    def _end(self, worker: _Worker, *, late: bool = False) -> None:
        """End a process, unless it has been ended already, and let those who wait for it know."""
        with self._lock:
            if not worker.alive:
                return
            worker.alive = False
            worker.late = late
            self._workers.remove(worker)
            if worker.process.poll() is None:
                os.killpg(worker.process.pid, signal.SIGKILL)
            worker.turn.notify_all()
            self._wake.notify()
            if worker.load == 0:
                if not worker.ready and not self._closed:
                    self._bad_start(_last_words(worker))
                worker.bury()

    def _supervise(self) -> None:
        """Start the processes that are missing, and end those that are late; nap until a deadline can be near."""
        nap = min(self._limits.job_timeout, START_TIMEOUT, REST)
        with self._lock:
            while not self._closed:
                now = time.monotonic()
                for worker in tuple(self._workers):
                    if worker.deadline <= now:
                        self._end(worker, late=True)
                while len(self._workers) < self._wanted and self.starts.are_wanted(now):
                    self._start()
                nearest = min((worker.deadline for worker in self._workers), default=math.inf)
                self._wake.wait(min(nap, max(0.0, nearest - now)))

    def _start(self) -> None:
        try:
            self._workers.append(_Worker(self._command, self._lock))
        except OSError as error:
            self._bad_start(str(error))
            return
        self.started += 1
        self._room.notify(DEPTH)


def _last_words(worker: _Worker) -> str:
    """Return what a process said that ended before it was ready, or else how it ended."""
    try:
        seal_of_facts(read_frame(worker.answers, 0).facts)
    except (EOFError, MalformedError) as error:
        return str(error) or cause_of_death(worker.process)
    return cause_of_death(worker.process)
