"""Since when a file has been doubtful as it is."""

from dataclasses import replace

import pytest

from webpd.model import Job
from webpd.service import doubts as module
from webpd.service.doubts import Doubts

JOB = Job("/tree/a.jpg", "/tree", 1000, 1_600_000_000_500_000_000)


class Clock:
    now = 100.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    made = Clock()
    monkeypatch.setattr(module, "time", made)
    return made


def test_a_doubt_is_as_old_as_when_the_file_first_was_as_it_is(clock: Clock) -> None:
    doubts = Doubts()
    assert doubts.age(JOB) == 0.0
    for _ in range(3):
        doubts.add(JOB)
        clock.now += 5.0
    assert doubts.age(JOB) == 15.0
    assert doubts.age(replace(JOB, path="/tree/b.jpg")) == 0.0


@pytest.mark.parametrize("changed", [replace(JOB, size=1001), replace(JOB, mtime_ns=1)])
def test_a_file_that_changed_is_doubted_anew(changed: Job, clock: Clock) -> None:
    doubts = Doubts()
    doubts.add(JOB)
    clock.now += 5.0
    assert doubts.age(changed) == 0.0
    doubts.add(changed)
    clock.now += 1.0
    assert doubts.age(changed) == 1.0
    assert doubts.age(JOB) == 0.0


def test_what_is_believed_or_gone_is_doubted_no_more(clock: Clock) -> None:
    doubts = Doubts()
    doubts.add(JOB)
    doubts.drop(JOB)
    doubts.drop(JOB)
    clock.now += 5.0
    assert doubts.age(JOB) == 0.0


def test_only_the_latest_doubts_are_kept(clock: Clock) -> None:
    doubts = Doubts()
    jobs = [replace(JOB, path=f"/tree/{number}.jpg") for number in range(50_001)]
    for job in jobs[:50_000]:
        doubts.add(job)
    doubts.add(jobs[0])  # doubted again just now
    doubts.add(jobs[50_000])
    clock.now += 5.0
    assert doubts.age(jobs[0]) == 5.0
    assert doubts.age(jobs[1]) == 0.0
    assert doubts.age(jobs[2]) == 5.0
