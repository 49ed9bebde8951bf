"""Threads that lose nothing, take nothing before its time, and pass on what went wrong."""

import os
import signal
import threading
from collections import Counter
from collections.abc import Iterator

import pytest

from webpd.crew import Crew


def started(crew: Crew[int]) -> Crew[int]:
    crew.start()
    return crew


def test_every_item_is_worked_on_once() -> None:
    done: Counter[int] = Counter()
    lock = threading.Lock()

    def work(item: int) -> None:
        with lock:
            done[item] += 1

    assert started(Crew(work, iter(range(2000)), 8, "test")).finish()
    assert done == Counter(range(2000))


def test_nothing_is_taken_before_there_is_a_thread_for_it() -> None:
    gate, all_busy = threading.Event(), threading.Event()
    taken = 0

    def items() -> Iterator[int]:
        nonlocal taken
        for number in range(100):
            taken += 1
            yield number

    def work(item: int) -> None:
        if item == 2:
            all_busy.set()
        gate.wait()

    crew = started(Crew(work, items(), 3, "test"))
    all_busy.wait()
    assert not crew.finish(0.05)
    assert taken == 3
    gate.set()
    assert crew.finish()
    assert taken == 100


def test_the_first_error_of_the_work_stops_the_crew_and_is_raised() -> None:
    done: list[int] = []

    def work(item: int) -> None:
        if item == 5:
            raise OSError("no disk")
        done.append(item)

    with pytest.raises(OSError, match="no disk"):
        started(Crew(work, iter(range(1000)), 1, "test")).finish()
    assert done == [0, 1, 2, 3, 4]


def test_an_error_of_the_iterator_is_raised_too() -> None:
    def items() -> Iterator[int]:
        yield 1
        raise OSError("no folder")

    with pytest.raises(OSError, match="no folder"):
        started(Crew(lambda _: None, items(), 4, "test")).finish()


def test_a_stopped_crew_finishes_what_is_in_work_and_takes_no_more() -> None:
    gate, begun = threading.Event(), threading.Event()
    done: list[int] = []

    def work(item: int) -> None:
        begun.set()
        gate.wait()
        done.append(item)

    crew = started(Crew(work, iter(range(3)), 1, "test"))
    begun.wait()
    crew.stop()
    gate.set()
    assert crew.finish()
    assert done == [0]


def test_what_is_in_work_when_an_interrupt_comes_is_waited_for() -> None:
    gate, begun = threading.Event(), threading.Event()

    def work(item: int) -> None:
        begun.set()
        gate.wait()

    def wait_until_interrupted() -> None:
        threading.Timer(0.1, os.kill, (os.getpid(), signal.SIGINT)).start()
        crew.finish(30)

    crew = started(Crew(work, iter(range(3)), 1, "test"))
    begun.wait()
    with pytest.raises(KeyboardInterrupt):
        wait_until_interrupted()
    crew.stop()
    assert not crew.finish(0.05)
    gate.set()
    assert crew.finish()


def test_a_thread_that_hangs_is_told_and_not_waited_for() -> None:
    gate = threading.Event()

    def work(item: int) -> None:
        gate.wait()

    crew = started(Crew(work, iter(range(3)), 1, "test"))
    assert not crew.finish(0.05)
    gate.set()
    assert crew.finish()
