"""What the containers run, run on this host: configuration, scripts, and webpd within what it may do there."""

import json
import os
import re
import signal
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import pytest

from tests.conftest import WEBPD, open_to_all, write
from tests.deploy.compose import DOCKERFILE, REPOSITORY, SECRET, SERVICES
from tests.lab import family, free_port, wait_for
from tests.nginx.server import NGINX

NGINX_CONF = (REPOSITORY / "deploy" / "docker" / "nginx.conf").read_text("utf-8")
WEBPD_PACKAGE = str(REPOSITORY / "src" / "webpd" / "__init__.py")


@pytest.fixture
def printed(tmp_path: Path) -> Path:
    """What the service nginx-config leaves for nginx, of a tree on this host."""
    folder = tmp_path / "printed"
    folder.mkdir()
    service = SERVICES["nginx-config"]
    script = (
        service["command"][0]
        .replace("/etc/webpd-nginx", str(folder))
        .replace("webpd nginx", f"{' '.join(WEBPD)} nginx")
    )
    environment = service["environment"] | {"WEBPD_ROOTS": str(tmp_path / "cdn" / "upload" / "resize_cache")}
    subprocess.run((*service["entrypoint"], script), env=os.environ | environment, check=True)
    return folder


@pytest.fixture
def nginx(tmp_path: Path, printed: Path) -> Iterator[str]:
    """The container's nginx, with its very configuration, on this host: the URL where it serves."""
    port, scratch = free_port(), tmp_path / "scratch"
    scratch.mkdir()
    user = "user root;\n" if os.geteuid() == 0 else ""  # folders of tests are closed to others
    text = NGINX_CONF.replace("/tmp/", f"{scratch}/").replace("/etc/nginx/webpd/", f"{printed}/")  # noqa: S108 - theirs
    configuration = write(tmp_path / "nginx.conf", f"{user}{text.replace('8080', str(port))}".encode())
    open_to_all(tmp_path)
    with subprocess.Popen((NGINX, "-c", str(configuration), "-g", "daemon off;"), stdout=subprocess.DEVNULL) as process:
        try:
            url = f"http://127.0.0.1:{port}"
            wait_for(lambda: process.poll() is not None or fetched(f"{url}/healthz")[0] == 204, "nginx answers")
            assert process.poll() is None
            yield url
        finally:
            process.terminate()


def fetched(url: str) -> tuple[int, bytes]:
    """Return the status and the body of what Chrome would get; (0, b"") where nobody answers."""
    asked = urllib.request.Request(url, headers={"Accept": "image/avif,image/webp,*/*;q=0.8"})  # noqa: S310 - http
    try:
        with urllib.request.urlopen(asked, timeout=30) as answer:  # noqa: S310
            return answer.status, answer.read()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, b""
    except OSError:
        return 0, b""


def test_nginx_serves_sidecars_with_what_the_containers_give_it(tmp_path: Path, nginx: str) -> None:
    folder = tmp_path / "cdn" / "upload" / "resize_cache" / "iblock" / "0ab" / "120_120_1"
    write(folder / "photo.jpg", b"the original")
    assert fetched(f"{nginx}/upload/resize_cache/iblock/0ab/120_120_1/photo.jpg") == (200, b"the original")
    write(folder / "photo.jpg.webp", b"the sidecar")
    assert fetched(f"{nginx}/upload/resize_cache/iblock/0ab/120_120_1/photo.jpg") == (200, b"the sidecar")
    assert fetched(f"{nginx}/index.php")[0] == 404


@pytest.fixture
def redis(tmp_path: Path) -> Iterator[int]:
    """The container's Redis, started by its very script, on this host: its port."""
    port = free_port()
    script = (REPOSITORY / "deploy" / "docker" / "redis.sh").read_text("utf-8")
    deployed = REPOSITORY / "deploy" / "redis"
    # Debian's package has the folder of redis.conf, the image has not.
    shipped = (deployed / "redis.conf").read_text("utf-8").replace("/var/lib/redis", str(tmp_path / "none"))
    for place, here in (
        ("/etc/redis/users.acl.in", deployed / "users.acl"),
        ("/etc/redis/redis.conf", write(tmp_path / "shipped.conf", shipped.encode())),
        ("/run/redis", tmp_path),
        ("/data", tmp_path),
        ("'*'", f"127.0.0.1 --port {port}"),
    ):
        assert place in script
        script = script.replace(place, str(here))
    environment = {"PATH": os.environ["PATH"], "REDIS_PASSWORD": SECRET}
    with subprocess.Popen(("sh", "-c", script), env=environment, stdout=subprocess.DEVNULL) as process:
        try:
            yield port
        finally:
            process.terminate()


def test_redis_lets_webpd_in_and_nobody_else(tmp_path: Path, redis: int) -> None:
    url = SERVICES["webpd"]["environment"]["WEBPD_REDIS_URL"].replace("redis:6379", f"127.0.0.1:{redis}")
    asked = SERVICES["redis"]["healthcheck"]["test"][1].replace("redis-cli", f"redis-cli -p {redis}")

    def healthy(password: str) -> bool:
        environment = {"PATH": os.environ["PATH"], "REDIS_PASSWORD": password}
        return subprocess.run(("sh", "-c", asked), env=environment, capture_output=True, check=False).returncode == 0

    wait_for(lambda: healthy(SECRET), "redis answers")
    assert not healthy("another")
    answer = subprocess.run(
        ("redis-cli", "-u", url, "--no-auth-warning", "config", "get", "maxmemory"),
        capture_output=True,
        text=True,
        check=False,
    )
    assert "NOPERM" in answer.stdout
    assert (tmp_path / "appendonlydir").is_dir()


# What the engine does, as far as the kernel lets root do it without one: a process 1 of its own, a root file system
# that can't be written but for the volumes, the user of the image, no capability. A Python in root's folder shows.
_CONTAINER = """
volumes=$1 python=$2
shift 2
mount --bind "$volumes" "$volumes"
if ! setpriv --reuid=33 --clear-groups test -x "$python/bin"; then
    mkdir "$volumes/python"
    mount --bind "$python" "$volumes/python"
    mount -t tmpfs -o mode=755 tmpfs /root
    mkdir -p "$python"
    mount --bind "$volumes/python" "$python"
fi
mount -o remount,bind,ro /
exec setpriv --reuid=33 --regid=33 --clear-groups --no-new-privs --bounding-set=-all --inh-caps=-all "$@"
"""


def contained(volumes: Path, *command: str) -> tuple[str, ...]:
    """Return the command as it runs in a container that has these volumes."""
    apart = ("unshare", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc")
    return (*apart, "sh", "-euc", _CONTAINER, "sh", str(volumes), sys.base_prefix, *command)


def test_webpd_runs_within_what_its_container_may_do(tmp_path: Path, photograph: Callable[..., bytes]) -> None:
    if subprocess.run(("setpriv", "--reuid=33", "--clear-groups", "test", "-r", WEBPD_PACKAGE), check=False).returncode:
        pytest.skip("the checkout is closed to other users")
    port = free_port()
    for folder in ("state", "run", "cdn/upload/resize_cache"):
        (tmp_path / folder).mkdir(parents=True)
    photo = write(tmp_path / "cdn" / "upload" / "resize_cache" / "photo.jpg", photograph())
    open_to_all(tmp_path)
    for path in (tmp_path, *tmp_path.rglob("*")):
        os.chown(path, 33, 33)
    here = {
        "WEBPD_ROOTS": str(photo.parent),
        "WEBPD_STATE_DIR": str(tmp_path / "state"),
        "WEBPD_HINT_SOCKET": str(tmp_path / "run" / "hint.sock"),
        "WEBPD_HEALTH_ADDRESS": f"0.0.0.0:{port}",
        "WEBPD_METRICS_ADDRESS": f"0.0.0.0:{free_port()}",
        "WEBPD_REDIS_URL": "none",
    }
    image = dict(re.findall(r"(WEBPD_\w+)=(\S+)", DOCKERFILE))
    environment = {"PATH": os.environ["PATH"]} | image | SERVICES["webpd"]["environment"] | here
    check = json.loads(DOCKERFILE.partition("HEALTHCHECK")[2].partition("CMD ")[2].partition("\n")[0])
    check = [WEBPD[0], *(word.replace(":8088", f":{port}") for word in check[1:])]
    with (tmp_path / "log").open("wb") as log:
        run = subprocess.Popen(contained(tmp_path, *WEBPD, "run"), env=environment, stdout=log, stderr=log)
    said = partial((tmp_path / "log").read_text, "utf-8")
    try:
        wait_for(lambda: run.poll() is not None or Path(f"{photo}.webp").exists(), "it converts")
        assert run.poll() is None, said()
        assert subprocess.run(check, check=False).returncode == 0, said()
        assert (tmp_path / "run" / "hint.sock").is_socket()
        owner = Path(f"{photo}.webp").stat()
        assert (owner.st_uid, owner.st_gid) == (33, 33)
        for pid in family(run.pid) - {run.pid}:
            if "run" in Path(f"/proc/{pid}/cmdline").read_text().split("\0"):
                os.kill(pid, signal.SIGTERM)
        assert run.wait(float(SERVICES["webpd"]["stop_grace_period"].rstrip("s"))) == 0, said()
    finally:
        run.kill()
        run.wait()
    told = [json.loads(line) for line in said().splitlines()]
    (warned,) = [line["event"] for line in told if line["level"] not in {"info", "debug"}]
    assert warned.startswith("OTHER HOSTS CAN REACH THE PAGE")  # as it looks from within the container
