"""Threads that lose nothing, bound what waits, and pass on what went wrong."""

import threading
from collections import Counter

import pytest

from webpd.crew import Crew


def test_every_item_is_worked_on_once() -> None:
    done: Counter[int] = Counter()
    lock = threading.Lock()

    def work(item: int) -> None:
        with lock:
            done[item] += 1

    crew = Crew(work, 8, "test")
    for number in range(2000):
        crew.put(number)
    assert crew.finish()
    assert done == Counter(range(2000))


def test_no_more_than_two_items_a_thread_wait() -> None:
    gate, full = threading.Event(), threading.Event()
    taken = 0

    def work(item: int) -> None:
        gate.wait()

    def put_all() -> None:
        nonlocal taken
        for number in range(100):
            if taken == 9:  # three in work and six that wait: the tenth must find no room
                full.set()
            crew.put(number)
            taken = number + 1

    crew = Crew[int](work, 3, "test")
    feeder = threading.Thread(target=put_all)
    feeder.start()
    full.wait()
    feeder.join(0.1)
    assert taken == 9
    gate.set()
    feeder.join()
    assert crew.finish()
    assert taken == 100


def test_the_first_error_is_raised_where_items_are_put_in_and_the_rest_is_dropped() -> None:
    done: list[int] = []

    def work(item: int) -> None:
        if item == 5:
            raise OSError("no disk")
        done.append(item)

    crew = Crew(work, 1, "test")
    with pytest.raises(OSError, match="no disk"):  # noqa: PT012 - whether put or finish tells is a matter of time
        for number in range(1000):
            crew.put(number)
        crew.finish()
    assert done == [0, 1, 2, 3, 4]


def test_what_waits_can_be_dropped_and_what_is_in_work_is_finished() -> None:
    gate, begun = threading.Event(), threading.Event()
    done: list[int] = []

    def work(item: int) -> None:
        begun.set()
        gate.wait()
        done.append(item)

    crew = Crew(work, 1, "test")
    for number in range(3):
        crew.put(number)
    begun.wait()
    crew.drop()
    gate.set()
    assert crew.finish()
    assert done == [0]


def test_a_thread_that_hangs_is_told_and_not_waited_for() -> None:
    gate = threading.Event()

    def work(item: int) -> None:
        gate.wait()

    crew = Crew(work, 1, "test")
    for number in range(3):
        crew.put(number)
    assert not crew.finish(0.05)
    gate.set()
    assert crew.finish()
