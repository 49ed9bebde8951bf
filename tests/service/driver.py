"""``webpd run`` as its users meet it: a process with settings, logs, a health page and signals. Nothing from inside."""

import contextlib
import http.client
import json
import os
import signal
import subprocess
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from PIL import Image, ImageChops, ImageStat

from tests.conftest import WEBPD
from tests.lab import family, free_port

# Quick looks, so that tests are quick.
QUICK = {"WEBPD_POLL_INTERVAL": "0.5", "WEBPD_SETTLE": "0.5", "WEBPD_OWNER": "keep", "WEBPD_LOG_FORMAT": "json"}


class Service:
    """One ``webpd run`` over these roots, with its state below ``folder``; it may be started many times.

    ``environment`` is that of the process, over ``QUICK``.
    """

    def __init__(self, folder: Path, *roots: Path, **environment: str) -> None:
        self.roots = roots
        self.state = folder / "state"
        self.lines: list[dict[str, Any]] = []
        self._health = free_port()
        self._metrics = free_port()
        clean = {name: value for name, value in os.environ.items() if not name.startswith("WEBPD_")}
        addresses = {
            "WEBPD_STATE_DIR": str(self.state),
            "WEBPD_HEALTH_ADDRESS": f"127.0.0.1:{self._health}",
            "WEBPD_METRICS_ADDRESS": f"127.0.0.1:{self._metrics}",
            "WEBPD_HINT_SOCKET": "off",
        }
        self._environment = clean | QUICK | addresses | environment
        self._process: subprocess.Popen[str] | None = None
        self._reader: threading.Thread | None = None

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    @property
    def health_port(self) -> int:
        """The port of 127.0.0.1 where it answers for its health."""
        return self._health

    @property
    def metrics_port(self) -> int:
        """The port of 127.0.0.1 where Prometheus asks."""
        return self._metrics

    def launch(self, *options: str) -> None:
        """Start it and return at once."""
        command = [*WEBPD, "run", *options, *map(str, self.roots)]
        process = subprocess.Popen(command, env=self._environment, stderr=subprocess.PIPE, text=True, errors="replace")
        self._process = process
        self._reader = threading.Thread(target=self._read, args=(process,))
        self._reader.start()

    def start(self) -> None:
        """Start it and wait until it is ready."""
        self.launch()
        self.wait_until(self.ready)

    def stop(self, number: signal.Signals = signal.SIGTERM) -> int:
        """Ask it to end, and return its exit code."""
        self.signal(number)
        return self.ended()

    def kill(self) -> None:
        """End it without a word, as a crash does."""
        if self._process is not None:
            self._process.kill()
            self.ended()

    def signal(self, number: signal.Signals) -> None:
        """Send it a signal."""
        os.kill(self.pid, number)

    def ended(self, seconds: float = 60) -> int:
        """Wait until it ends, and return its exit code."""
        assert self._process is not None
        assert self._reader is not None
        code = self._process.wait(seconds)
        self._reader.join()
        self._process = None
        return code

    def over(self) -> bool:
        """Tell whether it has ended, or would have but for threads that the kernel keeps in a call that hangs."""
        return Path(f"/proc/{self.pid}/stat").read_text("utf-8", "replace").rpartition(")")[2].split()[0] == "Z"

    def get(self, path: str, port: int | None = None) -> tuple[int, str]:
        """Return the status and body of what it answers; (0, "") where nobody does."""
        connection = http.client.HTTPConnection("127.0.0.1", port or self._health, timeout=10)
        try:
            connection.request("GET", path)
            answer = connection.getresponse()
            return answer.status, answer.read().decode()
        except (OSError, http.client.HTTPException):
            return 0, ""
        finally:
            connection.close()

    def ready(self) -> bool:
        return self.get("/readyz")[0] == 200

    def alive(self) -> bool:
        return self.get("/livez")[0] == 200

    def health(self) -> Any:
        """Return the health page."""
        status, body = self.get("/health")
        assert status in {200, 503}, f"/health answered {status}: {body}"
        return json.loads(body)

    def root(self, number: int = 0) -> Any:
        """Return what the health page says of a root."""
        return self.health()["roots"][number]

    def outcomes(self) -> dict[str, int]:
        """Return how many images ended how, since the start."""
        outcomes: dict[str, int] = self.health()["outcomes"]
        return outcomes

    def metrics(self) -> dict[str, float]:
        """Return the samples of the metrics page, by name with labels."""
        status, body = self.get("/metrics", self._metrics)
        assert status == 200
        samples = (line.rpartition(" ") for line in body.splitlines() if line and not line.startswith("#"))
        return {name: float(value) for name, _, value in samples}

    def said(self, *words: str) -> list[dict[str, Any]]:
        """Return the log lines, of all starts, that have all these words in them."""
        return [line for line in self.lines if all(word in json.dumps(line).lower() for word in words)]

    def warned(self, root: Path) -> list[dict[str, Any]]:
        """Return the warnings and errors in the log that name the root."""
        return [line for line in self.said(str(root).lower()) if line["level"] in {"warning", "error"}]

    def threads(self) -> int:
        """Return how many threads the main process has."""
        return len(os.listdir(f"/proc/{self.pid}/task"))

    def peak_memory(self) -> int:
        """Return the peak of resident memory, in KiB: of each of its processes, summed."""
        total = 0
        for pid in family(self.pid):
            status = Path(f"/proc/{pid}/status").read_text("ascii", "replace")
            total += int(status.partition("VmHWM:")[2].split()[0])
        return total

    def wait_until(self, condition: Callable[[], object], what: str = "", seconds: float = 60) -> None:
        """Wait for the condition; fail where the service ends before, or the time is over."""
        give_up = time.monotonic() + seconds
        while not condition():
            assert self._process is not None
            assert self._process.poll() is None, f"it ended with {self._process.returncode}: {self.lines[-20:]}"
            assert time.monotonic() < give_up, f"{seconds:g} s in vain: {what}: {self._situation()}"
            time.sleep(0.03)

    def settle(self, seconds: float = 60) -> None:
        """Wait until it has looked at everything as it is now and has nothing left to do."""
        first = [root["cycles"] for root in self.health()["roots"]]

        def settled() -> bool:
            health = self.health()
            # The cycle that was under way may have passed by already: the one after it has seen all.
            looked = all(root["cycles"] >= cycles + 2 for root, cycles in zip(health["roots"], first, strict=True))
            return (
                looked and not any(root["unsettled"] for root in health["roots"]) and not any(health["queue"].values())
            )

        self.wait_until(settled, "nothing left to do", seconds)

    def close(self) -> None:
        """End it, however it is."""
        if self._process is not None and self._process.poll() is None:
            os.kill(self.pid, signal.SIGCONT)
        self.kill()

    def _read(self, process: subprocess.Popen[str]) -> None:
        assert process.stderr is not None
        with process.stderr:
            for text in process.stderr:
                try:
                    line = json.loads(text)
                except ValueError:
                    line = {"level": "none", "event": text}
                self.lines.append(line if isinstance(line, dict) else {"level": "none", "event": text})

    def _situation(self) -> str:
        with contextlib.suppress(AssertionError, ValueError):
            return f"{json.dumps(self.health())}\n{self.lines[-20:]}"
        return f"no health page\n{self.lines[-20:]}"


def sidecars(root: Path) -> list[Path]:
    return list(root.rglob("*.webp"))


def leftovers(root: Path) -> list[Path]:
    """Return what no run may leave behind: temporary files, and sidecars without a byte."""
    return [path for path in root.rglob("*") if path.name.startswith(".webpd")] + [
        path for path in sidecars(root) if not path.stat().st_size
    ]


def shows(original: Path) -> bool:
    """Tell whether the sidecar shows the original as it is now; not so while either is being written."""
    try:
        with Image.open(original) as one, Image.open(f"{original}.webp") as other:
            if one.size != other.size:
                return False
            difference = ImageStat.Stat(ImageChops.difference(one.convert("RGB"), other.convert("RGB")))
    except (OSError, SyntaxError, ValueError):
        return False
    return max(difference.mean) < 12  # of 255; another photograph differs by 40 and more
