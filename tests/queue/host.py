"""A host of its own, to be killed: ``python -m tests.queue.host work|watch URL FINGERPRINT LOG NUMBER``.

``work`` takes jobs and writes the path of each to LOG when it begins; each takes it NUMBER seconds. ``watch`` offers
NUMBER jobs and writes the path of each that is concluded.
"""

import asyncio
import os
import sys
import time
from collections.abc import Sequence

from tests.queue.contract import BACKFILL, ROOT, jobs
from webpd.model import Ending, Job, Outcome, Result
from webpd.queue.cluster.watch import WatchQueue
from webpd.queue.cluster.work import WorkQueue
from webpd.queue.manager import QueueManager
from webpd.settings import RedisUrl

TAKERS = 2


def write(log: str, path: str) -> None:
    with open(log, "a", encoding="ascii") as file:
        file.write(f"{path}\n")


async def work(url: RedisUrl, fingerprint: bytes, log: str, seconds: float) -> None:
    queue = WorkQueue([ROOT], url, fingerprint, ahead=8, lease=1.0)

    async def take() -> None:
        while True:
            ticket = await queue.take(ROOT)
            write(log, ticket.job.path)
            await asyncio.sleep(seconds)
            ending = Ending(Outcome(ticket.job.path, Result.CONVERTED), None, str(os.getpid()), time.time())
            await queue.done(ticket, ending)

    await asyncio.gather(queue.run(), *(take() for _ in range(TAKERS)))


async def watch(url: RedisUrl, fingerprint: bytes, log: str, count: float) -> None:
    def concluded(ended: Sequence[tuple[Job, Ending]], *, mine: bool) -> None:
        for job, _ in ended:
            write(log, job.path)

    queue = WatchQueue(QueueManager([ROOT]), [ROOT], url, fingerprint, concluded, batch=4)
    await queue.offer(jobs("a", int(count)), BACKFILL)
    await queue.run()


if __name__ == "__main__":
    role, where, settings, file, number = sys.argv[1:]
    part = {"work": work, "watch": watch}[role]
    asyncio.run(part(RedisUrl(where), settings.encode(), file, float(number)))
