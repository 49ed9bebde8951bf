"""What negotiation costs nginx, and what telling webpd of missing sidecars costs it.

    python -m bench.serving [--rounds 20] [--seconds 1] [--connections 32] [--images 300] [--no-jit]

``wrk`` asks a real nginx for thumbnails of photographs, as Chrome does, in rounds that take turns:

- ``plain``: the WebP files by their own names, from a location that only serves files;
- ``negotiated``: the same files by the names of their originals, with what ``webpd nginx`` prints;
- ``originals``: these originals, as they were served before, from a location that only serves files;
- ``silent``: originals without sidecars, with ``--no-hints``;
- ``hints``: the same with hints, heard by a ``webpd run`` that knows these files as none to convert;
- ``hung``: the same while that service is stopped (SIGSTOP);
- ``away``: the same with no service.

Without and with nginx' ``open_file_cache``; all write an access log. Told is the median over the rounds of the
requests/s of one against those of the other in the same round.
"""

import argparse
import contextlib
import os
import re
import signal
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

from bench.pictures import lay_out
from tests.conftest import WEBPD
from tests.nginx.server import Nginx, printed
from tests.service.driver import Service

OUT = os.path.join(os.path.dirname(os.path.abspath(__file__)), "out")
CHROME = "image/avif,image/webp,image/apng,image/svg+xml,image/*,*/*;q=0.8"
DEBIAN = "sendfile on; tcp_nopush on; error_log stderr error;\n"
"""What Debian's nginx.conf has."""
CACHE = "open_file_cache max=2000 inactive=60s; open_file_cache_valid 30s; open_file_cache_errors on;\n"
COMPARED = {
    ("negotiated", "plain"): "0.95",
    ("negotiated", "originals"): "",
    ("hints", "silent"): "0.98",
    ("hung", "silent"): "0.98",
    ("away", "silent"): "0.98",
}
"""What is compared with what, and the ratio that is wanted."""

# https://github.com/wg/wrk/blob/master/SCRIPTING
_SCRIPT = """
wrk.headers["Accept"] = "{accept}"
local requests, next = {{}}, 0
function init()
  for line in io.lines("{paths}") do requests[#requests + 1] = wrk.format("GET", line) end
end
function request()
  next = next % #requests + 1
  return requests[next]
end
function done(summary)
  local e = summary.errors
  io.write(string.format("rate %f errors %d\\n", summary.requests / summary.duration * 1e6,
    e.connect + e.read + e.write + e.timeout + e.status))
end
"""


class Stage:
    """The trees, the servers and the service that it is all measured with."""

    def __init__(self, folder: Path, images: int, before: str, main: str) -> None:
        self._folder = folder
        www = folder / "www"
        converted, missing = www / "upload" / "resize_cache", www / "upload" / "missing"
        lay_out(str(converted), images, "jpg", None)
        subprocess.run((*WEBPD, "convert", "--owner", "keep", str(converted)), check=True, capture_output=True)
        for path in converted.rglob("*.jpg"):  # of the same sizes, and none to convert
            copy = missing / path.relative_to(converted)
            copy.parent.mkdir(parents=True, exist_ok=True)
            copy.write_bytes(os.urandom(path.stat().st_size))
        sidecars = sorted(converted.rglob("*.webp"))
        plain = [f"/plain/{path.relative_to(www)}" for path in sidecars]
        originals = [path.removesuffix(".webp") for path in plain]
        without = [f"/{path.relative_to(www)}" for path in sorted(missing.rglob("*.jpg"))]
        self.bytes = round(statistics.mean(path.stat().st_size for path in sidecars))
        self._paths = {
            "plain": plain,
            "negotiated": [path.removeprefix("/plain") for path in originals],
            "originals": originals,
            **dict.fromkeys(("silent", "hints", "hung", "away"), without),
        }
        socket = str(folder / "hint.sock")
        self.service = Service(folder / "service", missing, WEBPD_HINT_SOCKET=socket)
        files = f"location /plain/ {{ alias {www}/; expires 30d; }}\n"
        self._servers: list[Nginx] = []
        for hints in ("off", socket):
            http, server = printed(converted, missing, WEBPD_HINT_SOCKET=hints)
            server = server.replace(" if=$webpd_hint;", f" if=$webpd_hint;\n    access_log {folder}/nginx.log;")
            place = folder / f"nginx{len(self._servers)}"
            self._servers.append(Nginx(place, before + http, files + server, main))

    def __enter__(self) -> "Stage":
        self.service.start()
        for server in self._servers:
            server.start()
        return self

    def __exit__(self, *_: object) -> None:
        for server in self._servers:
            server.stop()
        self.service.close()

    @contextlib.contextmanager
    def service_is(self, state: str) -> Iterator[None]:
        """Have the service ``hung`` or ``away`` meanwhile."""
        if state == "away":
            self.service.stop()
            yield
            self.service.start()
        elif state == "hung":
            self.service.signal(signal.SIGSTOP)
            yield
            self.service.signal(signal.SIGCONT)
        else:
            yield

    def rate(self, what: str, seconds: int, connections: int) -> float:
        """Return the requests/s of this contender."""
        server = self._servers[what in {"hints", "hung", "away"}]
        paths, script = self._folder / "paths", self._folder / "script.lua"
        paths.write_text("\n".join(self._paths[what]) + "\n")
        script.write_text(_SCRIPT.format(accept=CHROME, paths=paths))
        amount = ("-t1", f"-c{connections}", f"-d{seconds}s")
        done = subprocess.run(("wrk", *amount, "-s", script, server.url), capture_output=True, text=True, check=True)
        told = re.search(r"rate ([\d.]+) errors (\d+)", done.stdout)
        assert told, done.stdout
        assert told[2] == "0", done.stdout
        return float(told[1])


def rounds(stage: Stage, what: str, base: str, asked: argparse.Namespace) -> list[float]:
    """Return the ratio of the first contender to the second in each round."""
    ratios = []
    for number in range(asked.rounds):
        order = (base, what) if number % 2 else (what, base)
        rates = {one: stage.rate(one, asked.seconds, asked.connections) for one in order}
        ratios.append(rates[what] / rates[base])
    return ratios


def main() -> None:
    """Measure, print the table, and leave it in bench/out."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=20, help="of each pair (default 20)")
    parser.add_argument("--seconds", type=int, default=1, help="for each contender in a round (default 1)")
    parser.add_argument("--connections", type=int, default=32, help="that ask at once (default 32)")
    parser.add_argument("--images", type=int, default=300, help="thumbnails in turns (default 300)")
    parser.add_argument("--no-jit", action="store_true", help="without pcre_jit, nginx' default")
    asked = parser.parse_args()
    main = "" if asked.no_jit else "pcre_jit on;\n"
    lines = ["| | against | `open_file_cache` | median | quartiles | wanted |", "|---|---|---|--:|--:|--:|"]
    for cache in ("off", "on"):
        before = DEBIAN + (CACHE if cache == "on" else "")
        with (
            tempfile.TemporaryDirectory(prefix="webpd-serving-") as name,
            Stage(Path(name), asked.images, before, main) as stage,
        ):
            for (what, base), wanted in COMPARED.items():
                with stage.service_is(what):
                    ratios = rounds(stage, what, base, asked)
                low, middle, high = statistics.quantiles(ratios, n=4)
                lines.append(f"| {what} | {base} | {cache} | {middle:.3f} | {low:.3f}–{high:.3f} | {wanted} |")
                print(lines[-1], file=sys.stderr, flush=True)
    text = "\n".join(lines) + f"\n\nSidecars of {stage.bytes:,} bytes on average.\n"
    os.makedirs(OUT, exist_ok=True)
    with open(os.path.join(OUT, "serving.md"), "w", encoding="utf-8") as file:
        file.write(text)
    print(text)


if __name__ == "__main__":
    main()
