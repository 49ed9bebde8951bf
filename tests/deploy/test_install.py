"""install.sh on a machine with a real systemd: what it installs runs, hardened as it is, and goes without a trace."""

import os
import re
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.conftest import Ended, write
from tests.deploy.conftest import CHECKOUT
from tests.deploy.machine import Machine, booted
from tests.lab import wait_for

SCRIPT = str(CHECKOUT / "deploy" / "systemd" / "install.sh")
ROOT = "/var/www/cdn/upload/resize_cache"
ORIGINAL = f"{ROOT}/iblock/a1b/240_320_1/photo.jpg"
OLD = 1_600_000_000
SITE = """
server {
    listen 127.0.0.1:8080;
    root /var/www/cdn;
    include snippets/webpd.conf;
}
"""
ASK = """
import sys, urllib.request
request = urllib.request.Request(sys.argv[1], headers={"Accept": "image/webp"})
print(urllib.request.urlopen(request, timeout=30).headers["Content-Type"])
"""


class Host:
    """A machine, what the script did there, and a tree of images."""

    def __init__(self, machine: Machine, picture: bytes) -> None:
        self.machine = machine
        self._picture = picture

    def install(self, *arguments: str) -> Ended:
        """Run the script with this host's network and package indexes."""
        return self.machine.run(SCRIPT, *arguments, network=True, environment=_package_indexes())

    def put(self, path: str, owner: str) -> Path:
        """Write a picture that has been there for long, with all folders below /var/www or /home its owner's."""
        place = write(self.machine.root / path.lstrip("/"), self._picture, mtime=OLD)
        top = "/".join(path.split("/")[:4])
        self.machine.ask("chown", "-R", owner, top)
        return place

    def owner_of_sidecar(self, path: str) -> str:
        """Wait until the picture has a sidecar, and return whose it is."""
        sidecar = self.machine.root / f"{path.lstrip('/')}.webp"
        wait_for(sidecar.exists, f"{sidecar} appears: {self.machine.run('journalctl', '-n20', '-u', 'webpd').out}", 60)
        return self.machine.ask("stat", "-c", "%U", f"{path}.webp")

    def serve(self) -> None:
        """Have nginx serve the tree with the line that the script asks for, and wait until a browser gets WebP."""
        self.put_site("conf.d/shop.conf")
        self.machine.ask("nginx", "-t", "-q")
        self.machine.ask("systemctl", "reload", "nginx")
        url = f"http://127.0.0.1:8080/upload/resize_cache/{ORIGINAL.removeprefix(ROOT + '/')}"
        ask = ("/usr/bin/python3", "-c", ASK, url)
        wait_for(lambda: self.machine.run(*ask).out == "image/webp\n", "nginx gives WebP")

    def put_site(self, path: str, text: str = SITE) -> Path:
        """Write a site at a path below /etc/nginx."""
        return write(self.machine.root / "etc/nginx" / path, text.encode())

    def refuses_removal(self) -> str:
        """Ask for the removal, which must leave everything as it is, and return what is said."""
        refused = self.install("--remove", "--purge")
        assert refused.code == 3, refused
        self.machine.ask("xargs", "--delimiter=\\n", "--arg-file=/opt/webpd/installed", "ls", "-d")
        self.machine.ask("nginx", "-t", "-q")
        self.machine.ask("systemctl", "is-active", "webpd")
        return refused.err

    def log(self) -> str:
        return self.machine.ask("journalctl", "--no-pager", "--output=cat", "--unit=webpd")

    def capabilities(self) -> int:
        """Return the capabilities that the running service has, as a bit for each."""
        pid = self.machine.ask("systemctl", "show", "--property=MainPID", "--value", "webpd")
        status = self.machine.ask("cat", f"/proc/{pid}/status")
        return int(re.findall(r"^CapEff:\s*([0-9a-f]+)$", status, re.MULTILINE)[0], 16)


def _package_indexes() -> dict[str, str]:
    names = ("HTTP", "HTTPS", "NO", "PIP", "SSL", "REQUESTS", "CURL", "http", "https", "no")
    return {name: value for name, value in os.environ.items() if name.split("_")[0] in names}


@pytest.fixture
def proving(prove: bool) -> None:
    """Leave out what takes an installation of its own, unless the checks run at their full size."""
    if not prove:
        pytest.skip("an installation of its own: PROVE=1")


@pytest.fixture
def host(tmp_path: Path, wheel: Path, photograph: Callable[..., bytes]) -> Iterator[Host]:
    """A machine that is like this one, but that no webpd was ever on."""
    devices = [device for device in ("/dev/fuse",) if Path(device).exists()]
    with booted(tmp_path / "machine", binds=(str(CHECKOUT), str(wheel.parent), *devices)) as machine:
        yield Host(machine, photograph())


def test_the_service_runs_as_hardened_as_it_is_and_the_same_script_takes_it_all_away(host: Host, wheel: Path) -> None:
    machine = host.machine
    host.put(ORIGINAL, "www-data:www-data")
    machine.ask("systemctl", "start", "nginx")
    before = machine.files()
    assert host.install("--root", ROOT, "--user", "nobody-here", "--wheel", str(wheel)).code == 2
    machine.ask("test", "!", "-e", "/opt/webpd")

    done = host.install("--root", ROOT, "--wheel", str(wheel))
    assert done.code == 0, done
    assert "include snippets/webpd.conf;" in done.out
    assert host.owner_of_sidecar(ORIGINAL) == "www-data"
    assert "not fully sealed" not in host.log()
    assert host.capabilities() == 0
    assert machine.ask("stat", "-c", "%a %U", "/etc/webpd.env") == "600 root"
    assert "WEBPD_HINT_SOCKET" in machine.ask("man", "webpd")
    assert machine.run("systemd-analyze", "verify", "webpd.service") == Ended(0, "", "")

    machine.ask("webpd", "status")
    assert machine.run("webpd", "doctor").code == 0
    host.serve()

    refused = host.install("--root", "/srv", "--wheel", str(wheel))
    assert (refused.code, refused.out) == (2, "")
    assert "has no root /srv" in refused.err

    # Once more, with another owner of the sidecars: no file comes or goes, and now it may give them away.
    settled, token = machine.files(), machine.ask("cat", "/etc/webpd.env")
    machine.ask("sed", "-i", 's/^owner = .*/owner = "games:games"/', "/etc/webpd.toml")
    machine.ask("systemctl", "stop", "webpd")  # else it is quicker
    host.put(other := ORIGINAL.replace("a1b", "c2d"), "www-data:www-data")
    done = host.install("--wheel", str(wheel))
    assert done.code == 0, done
    assert "one line is yours" not in done.out
    assert host.owner_of_sidecar(other) == "games"
    assert host.capabilities() == 1  # CAP_CHOWN, linux/capability.h
    assert machine.ask("cat", "/etc/webpd.env") == token
    assert _system(machine.files()) == _system(settled)

    machine.ask("systemctl", "reload", "webpd")
    wait_for(lambda: "settings read again" in host.log(), "it reads its settings again")

    assert "conf.d/shop.conf" in host.refuses_removal()
    (machine.root / "etc/nginx/conf.d/shop.conf").unlink()
    _refuses_removal_under_any_layout(host)
    done = host.install("--remove", "--purge")
    assert done.code == 0, done
    assert _system(machine.files()) == _system(before)
    assert machine.run("systemctl", "status", "webpd").code == 4  # systemctl(1): there is no such unit
    machine.ask("nginx", "-t")
    assert host.install("--remove").err == ""


def _refuses_removal_under_any_layout(host: Host) -> None:
    nginx = host.machine.root / "etc/nginx"
    site, link = host.put_site("sites-available/shop"), nginx / "sites-enabled/shop"
    link.symlink_to("../sites-available/shop")
    assert "sites-enabled/shop" in host.refuses_removal()
    link.unlink()
    site.unlink()

    others = host.put_site("conf.d/others.conf", "include bx/site_enabled/*.conf;")
    host.put_site("bx/site_enabled/shop.conf")
    assert "bx/site_enabled/shop.conf" in host.refuses_removal()
    shutil.rmtree(nginx / "bx")

    # No line that includes the file, and nginx can't do without it all the same.
    host.put_site("conf.d/others.conf", 'server { listen 127.0.0.1:8081; add_header X-Ending "$webpd_webp"; }')
    assert "webpd_webp" in host.refuses_removal()
    others.unlink()


def _system(files: dict[str, str]) -> dict[str, str]:
    """Leave out the tree, and what the machine writes by itself."""
    apart = (ROOT, "/var/log/", "/var/lib/systemd", "/var/tmp/", "/var/cache/")  # noqa: S108 - the machine's
    return {path: kind for path, kind in files.items() if not path.startswith(apart) and path != ROOT}


def test_a_system_without_apt_is_told_where_to_look(host: Host) -> None:
    host.machine.ask("mkdir", "-p", ROOT)
    host.machine.ask("sh", "-c", "mkdir /tmp/bin; ln -s /usr/bin/* /tmp/bin; rm /tmp/bin/apt-get /tmp/bin/dpkg-query")
    refused = host.machine.run("env", "PATH=/tmp/bin", SCRIPT, "--root", ROOT)
    assert refused == Ended(3, "", refused.err)
    assert "docs/install.md" in refused.err
    assert "not found" not in refused.err


def test_a_tree_in_a_home_is_reached_and_the_other_homes_are_not(proving: None, host: Host, wheel: Path) -> None:
    machine = host.machine
    original = "/home/bitrix/www/upload/resize_cache/iblock/a1b/240_320_1/photo.jpg"
    machine.ask("useradd", "--create-home", "bitrix")
    machine.ask("useradd", "--create-home", "neighbour")
    host.put(original, "bitrix:bitrix")
    done = host.install("--root", "/home/bitrix/www/upload/resize_cache", "--wheel", str(wheel), "--no-nginx")
    assert done.code == 0, done
    assert host.owner_of_sidecar(original) == "bitrix"
    pid = machine.ask("systemctl", "show", "--property=MainPID", "--value", "webpd")
    assert machine.ask("ls", f"/proc/{pid}/root/home") == "bitrix"
    assert machine.ask("ls", "-A", f"/proc/{pid}/root/home/bitrix/www") == "upload"


def test_a_mount_that_died_comes_back_and_the_service_goes_on_in_it(proving: None, host: Host, wheel: Path) -> None:
    machine, origin = host.machine, "/srv/origin/resize_cache"
    first, second = (f"{origin}/iblock/a1b/240_320_1/{name}.jpg" for name in ("first", "second"))
    host.put(first, "root:root")
    machine.ask("sh", "-c", "rm -rf /root/.ssh /run/nologin; mkdir -m 700 -p /root/.ssh /run/sshd; ssh-keygen -A")
    machine.ask("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", "/root/.ssh/id_ed25519")
    machine.ask("cp", "/root/.ssh/id_ed25519.pub", "/root/.ssh/authorized_keys")
    done = host.install("--root", ROOT, "--sshfs", f"localhost:{origin}", "--wheel", str(wheel), "--no-nginx")
    assert done.code == 0, done
    assert "could not be mounted" in done.err
    assert "can't write" not in done.err
    machine.ask("/usr/sbin/sshd")
    machine.ask("ssh", "-o", "ConnectionAttempts=30", "-o", "StrictHostKeyChecking=accept-new", "localhost", "true")
    machine.ask("systemctl", "start", "webpd-mount-check@var-www-cdn-upload-resize_cache.service")
    assert host.owner_of_sidecar(first) == "root"  # whom the server knows the SFTP user as

    sick = host.log().count("mount is sick")  # it began without the mount
    machine.ask("pkill", "--signal", "KILL", "--full", f"sshfs.*{origin}")
    wait_for(lambda: host.log().count("mount is sick") > sick, "it tells that the mount is gone")
    machine.ask("systemctl", "start", "webpd-mount-check@var-www-cdn-upload-resize_cache.service")
    wait_for(lambda: "mount is well again" in host.log(), "it finds the mount back")
    host.put(second, "root:root")
    assert host.owner_of_sidecar(second) == "root"

    for _ in range(2):
        done = host.install("--remove")
        assert done.code == 0, done
        assert f"{ROOT} stays mounted" in done.out
        machine.ask("test", "-e", f"{ROOT}/{first.removeprefix(origin)}")
    done = host.install("--remove", "--purge")
    assert done.code == 0, done
    assert f"{ROOT} is no longer mounted" in done.out
    installed = [path for path in machine.files() if path.startswith(("/etc/", "/opt/"))]
    assert [path for path in installed if "webpd" in path or "resize_cache" in path] == []
    assert ROOT not in machine.ask("cat", "/proc/mounts")


@pytest.fixture
def new_debian(proving: None, tmp_path: Path) -> str:
    """The root folder of a Debian that has just been made, with this host's way to packages."""
    base = tmp_path / "debian"
    sources = Path("/etc/apt/sources.list.d/debian.sources")
    (mirror, *_) = re.findall(r"^URIs:\s*(\S+)", sources.read_text("utf-8"), re.MULTILINE)
    include = "--include=systemd,systemd-sysv,dbus,ca-certificates"
    subprocess.run(["debootstrap", "--variant=minbase", include, "bookworm", str(base), mirror], check=True)
    (base / "etc/apt/sources.list").unlink(missing_ok=True)
    certificates = Path("/etc/ssl/certs/ca-certificates.crt")
    for path in (sources, *Path("/etc/apt/apt.conf.d").glob("99*"), Path("/etc/resolv.conf"), certificates):
        shutil.copyfile(path, base / str(path).lstrip("/"))
    return str(base)


def test_a_new_debian_comes_to_webp_by_the_script_alone_and_is_rid_of_it_again(
    tmp_path: Path, new_debian: str, photograph: Callable[..., bytes]
) -> None:
    with booted(tmp_path / "machine", new_debian, binds=(str(CHECKOUT),)) as machine:
        host = Host(machine, photograph())
        host.put(ORIGINAL, "www-data:www-data")
        install = ("sh", "-c", "apt-get update -qq && apt-get install -y -qq --no-install-recommends nginx-light")
        packages = {"DEBIAN_FRONTEND": "noninteractive"} | _package_indexes()
        done = machine.run(*install, network=True, environment=packages)
        assert done.code == 0, done
        machine.ask("systemctl", "start", "nginx")

        done = host.install("--root", ROOT)
        assert done.code == 0, done
        assert host.owner_of_sidecar(ORIGINAL) == "www-data"
        assert "not fully sealed" not in host.log()
        host.serve()

        (machine.root / "etc/nginx/conf.d/shop.conf").unlink()
        assert host.install("--remove", "--purge").code == 0
        assert [path for path in machine.files() if "webpd" in path] == []
        assert (machine.root / f"{ORIGINAL}.webp".lstrip("/")).exists()

        for number, command in enumerate(_plain_ways()):
            host.put(other := ORIGINAL.replace("a1b", str(number)), "www-data:www-data")
            done = machine.run("sh", "-c", f"cd {CHECKOUT} && {command}", network=True, environment=packages)
            assert done.code == 0, done
            assert host.owner_of_sidecar(other) == "www-data"


def _plain_ways() -> list[str]:
    """Return how the page installs webpd without the script and converts the tree: with pip, and with pipx."""
    page = (CHECKOUT / "docs" / "install.md").read_text("utf-8").partition("## pip, pipx and cron")[2]
    (pip,) = re.findall(r"^```sh\n(.*?)^```$", page.partition("## Undo")[0], re.MULTILINE | re.DOTALL)
    (pipx,) = re.findall(r"`(pipx install [^`]*)`", page)
    install = "apt-get install -y -qq --no-install-recommends pipx >/dev/null"
    return ["set -e; " + pip, f"set -e; {install}; {pipx}; /root/.local/bin/webpd convert {ROOT}"]


def test_the_page_tells_how_to_remove_every_sidecar_that_webpd_made_and_no_other(
    tmp_path: Path, photograph: Callable[..., bytes], webpd: Callable[..., Ended]
) -> None:
    for name in ("one.jpg", "two's picture.JPEG", "three.png"):
        write(tmp_path / name, photograph(format_="PNG" if name.endswith("png") else "JPEG"), mtime=OLD)
    foreign = write(tmp_path / "foreign.jpg.webp", b"RIFF\4\0\0\0WEBP, and WPDS somewhere else" + bytes(50))
    originals = {*tmp_path.iterdir()}
    assert webpd("convert", "--owner", "keep", tmp_path).code == 0
    assert len([*tmp_path.glob("*.webp")]) == 4
    for page in ("install.md", "install.ru.md"):
        (command,) = re.findall(r"^find .* -delete$", (CHECKOUT / "docs" / page).read_text("utf-8"), re.MULTILINE)
        subprocess.run(["sh", "-c", command.replace(ROOT, str(tmp_path))], check=True)
        assert {*tmp_path.iterdir()} == originals
        assert foreign in originals
        webpd("convert", "--owner", "keep", tmp_path)
