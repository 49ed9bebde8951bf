"""Several hosts on one tree: each a process of ``webpd run`` with one role; Redis carries the queue between them."""

import json
import os
import random
import signal
import subprocess
import threading
import time
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path

from tests.conftest import WEBPD
from tests.lab import family
from tests.redis.server import RedisServer
from tests.service.driver import Service, leftovers

# Where no folder can be made, by root neither.
NOWHERE = "/proc/webpd"


class Host(Service):
    """One of several hosts. Where ``below`` is set, it sees that folder in place of its root (needs root)."""

    below: Path | None = None
    frozen = False

    @property
    def runs(self) -> bool:
        return self._process is not None

    @property
    def in_hands(self) -> int:
        """How many images it has in hands, or has handed out; 0 where it does not answer yet."""
        status, body = self.get("/health")
        number: int = json.loads(body)["queue"]["in_flight"] if status else 0
        return number

    @property
    def busy(self) -> bool:
        """Whether anything waits or is in hands."""
        return any(self.health()["queue"].values())

    def freeze(self) -> None:
        """Let it hang, all its processes with it."""
        self.frozen = True
        for pid in family(self.pid):
            os.kill(pid, signal.SIGSTOP)

    def thaw(self) -> None:
        """Let it go on."""
        for pid in family(self.pid):
            os.kill(pid, signal.SIGCONT)
        self.frozen = False

    def launch(self, *options: str) -> None:
        if self.below is None:
            super().launch(*options)
            return
        mount = 'mount --bind "$0" "$1" && shift && exec "$@"'
        inside = ("unshare", "--mount", "sh", "-c", mount, str(self.below), str(self.roots[0]))
        command = [*inside, *WEBPD, "run", *options, *map(str, self.roots)]
        process = subprocess.Popen(command, env=self._environment, stderr=subprocess.PIPE, text=True, errors="replace")
        self._process = process
        self._reader = threading.Thread(target=self._read, args=(process,))
        self._reader.start()


class Hosts:
    """Hosts on ``tree``, with what they keep below ``folder``; ``environment`` is that of each of them.

    Their names are watch0, watch1, … and work0, work1, …; those that work have one codec process and no state folder.
    """

    def __init__(self, folder: Path, tree: Path, queue: RedisServer, **environment: str) -> None:
        self.tree = tree
        self.watching: list[Host] = []
        self.working: list[Host] = []
        self._folder = folder
        self._environment = {"WEBPD_QUEUE_URL": str(queue.url), "WEBPD_WORKERS": "1", **environment}

    def watch(self, below: Path | None = None, **environment: str) -> Host:
        """Return one more host that watches, started."""
        return self._one("watch", self.watching, below, environment)

    def work(self, below: Path | None = None, **environment: str) -> Host:
        """Return one more host that works, started."""
        return self._one("work", self.working, below, {"WEBPD_STATE_DIR": NOWHERE, **environment})

    def all_ready(self) -> None:
        """Wait until all that run are ready."""
        self.wait_until(lambda: all(one.ready() for one in self._running()), "all are ready")

    def ended(self, result: str = "converted") -> Counter[str]:
        """Return how often each image ended so, by its path, over all hosts, those that are no more among them."""
        return Counter(line["path"] for one in self.working for line in one.lines if line.get("event") == result)

    def complaints(self) -> list[str]:
        """Return what any host has said that is an error or a fault of webpd's own."""
        lines = [line for one in (*self.watching, *self.working) for line in one.lines]
        return [json.dumps(line) for line in lines if line["level"] in {"none", "error", "critical"}]

    def caught(self) -> Host:
        """Return any host that works and has work in hands, as soon as there is one."""
        found: list[Host] = []

        def look() -> bool:
            found.extend(one for one in self.working if one.runs and not one.frozen and one.in_hands)
            return bool(found)

        self.wait_until(look, "somebody has work in hands")
        return random.choice(found)

    def missing(self) -> list[Path]:
        """Return the JPEGs of the tree that have no sidecar."""
        return [path for path in self.tree.rglob("*.jpg") if not os.path.exists(f"{path}.webp")]

    def finish(self, seconds: float = 120) -> None:
        """Wait until each JPEG has a sidecar, nobody has anything in hand, and no temporary file is there."""
        self.wait_until(lambda: not self.missing(), "all images are done", seconds)
        self.wait_until(lambda: not any(one.busy for one in self._running()), "nothing is left to do", seconds)
        self.wait_until(lambda: not leftovers(self.tree), "nothing is left behind")

    def wait_until(self, condition: Callable[[], object], what: str, seconds: float = 120) -> None:
        """Wait for the condition; fail where a host ends by itself, or the time is over."""
        give_up = time.monotonic() + seconds
        while not condition():
            for one in self._running():
                assert not one.over(), f"a host ended: {one.lines[-10:]}"
            assert time.monotonic() < give_up, f"{seconds:g} s in vain: {what}: {self._situation()}"
            time.sleep(0.03)

    def close(self) -> None:
        """End all, however they are."""
        for one in self._running():
            one.thaw()
        for one in (*self.watching, *self.working):
            one.close()

    def _one(self, role: str, among: list[Host], below: Path | None, environment: dict[str, str]) -> Host:
        name = f"{role}{len(among)}"
        own = {"WEBPD_ROLE": role, "WEBPD_HOST_NAME": name}
        one = Host(self._folder / name, self.tree, **self._environment | own | environment)
        one.below = below
        among.append(one)
        one.launch()
        return one

    def _running(self) -> Sequence[Host]:
        return [one for one in (*self.watching, *self.working) if one.runs]

    def _situation(self) -> str:
        told = [f"{len(self.missing())} images missing, {leftovers(self.tree)} left"]
        for one in self._running():
            status, body = one.get("/health")
            lines = [line for line in one.lines if line["event"] != "converted"]
            told.append(f"{one.pid}: {status} {body}\n{lines[-8:]}")
        return "\n".join(told)
