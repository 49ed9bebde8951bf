"""``webpd doctor``: faults around the tree, really there, are found, each with its cure."""

import ctypes
import http.server
import json
import os
import re
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import PIL
import pytest

from tests.doctor.clinic import command_in, doctor, found, left_behind, open_folder, sick
from tests.lab import SshfsLab
from tests.redis.server import RedisServer
from webpd.convert.sandbox import LIBSECCOMP
from webpd.doctor import rights, servers, state
from webpd.doctor.finding import Verdict
from webpd.settings import Settings

# The machine


@pytest.mark.parametrize(
    ("state", "verdict", "cure"),
    [
        ("ActiveState=failed Result=exit-code", "fault", "`journalctl -u webpd.service -n 50`"),
        ("ActiveState=activating SubState=auto-restart Result=exit-code", "fault", "`journalctl -u webpd.service"),
        ("UnitFileState=disabled ActiveState=active", "warning", "systemctl enable webpd.service`"),
        ("UnitFileState=enabled ActiveState=active", None, ""),
    ],
)
def test_a_unit_that_failed_that_ends_again_and_again_or_that_nobody_starts(
    shop: Path, tmp_path: Path, state: str, verdict: str | None, cure: str
) -> None:
    """No systemd runs where tests run: what it would say is put in its place."""
    systemctl = tmp_path / "bin" / "systemctl"
    systemctl.parent.mkdir()
    systemctl.write_text(f"#!/bin/sh\nprintf '%s\\n' LoadState=loaded {state}\n")
    systemctl.chmod(0o755)
    done = doctor(
        *("--json", "--state-dir", tmp_path / "state", shop),
        before=hiding("mount -t tmpfs tmpfs /run && mkdir -p /run/systemd/system"),
        PATH=f"{systemctl.parent}:{os.environ['PATH']}",
        WEBPD_ROLE="watch",
    )
    unit = found(done).get("host.systemd")
    assert (unit and unit["verdict"]) == verdict
    assert unit is None or cure in unit["cure"]


def hiding(command: str) -> tuple[str, ...]:
    """Return what runs a program where something was mounted by that command, which nobody else sees."""
    return ("unshare", "--mount", "sh", "-c", f'{command} && exec "$@"', "-")


def test_another_user_than_root_is_told_what_it_cannot_do_and_what_could_not_be_looked_at(shop: Path) -> None:
    # It may read everything, as it must to run what root has installed.
    nobody = ("setpriv", "--reuid=65534", "--regid=65534", "--clear-groups")
    reads = ("--inh-caps=+dac_read_search", "--ambient-caps=+dac_read_search")
    with open_folder(0o700) as folder:
        done = doctor("--json", "--state-dir", folder / "state", shop, before=(*nobody, *reads))
    bad = found(done)
    assert bad["root.writable"]["verdict"] == "fault"
    assert f"setfacl -R -m u:nobody:rwX,d:u:nobody:rwX {shop}`" in bad["root.writable"]["cure"]
    assert f"`install -d -m 700 -o 65534 {folder}/state` as root" in bad["state.writable"]["cure"]
    assert left_behind(shop) == []


def test_root_is_told_how_to_look_as_the_user_of_the_service(shop: Path) -> None:
    with open_folder(0o700) as folder:
        state = folder / "its state"
        state.mkdir()
        os.chown(state, 33, 33)
        told = json.loads(doctor("--json", "--state-dir", state, shop).stdout)
    (one,) = (check for check in told if check["id"] == "state.writable")
    assert (one["verdict"], "belongs to user 33" in one["detail"]) == ("ok", True)
    command = rights.doctor_as(33, 34, "/its state")
    assert command == "`setpriv --reuid=33 --regid=34 --init-groups webpd doctor --state-dir '/its state'`"
    assert "--clear-groups" in rights.doctor_as(64_123, 64_123, "/var/lib/webpd")


# The codecs


@pytest.mark.parametrize(
    ("module", "told"),
    [("_webp", "built without webp"), ("_imaging", "Pillow can't be loaded"), ("_imagingcms", "littlecms2")],
)
def test_a_pillow_that_lacks_something(shop: Path, tmp_path: Path, module: str, told: str) -> None:
    (library,) = Path(PIL.__file__).parent.glob(f"{module}.*.so")
    broken = hiding(f"mount --bind /dev/null '{library}'")
    bad = found(doctor("--json", "--state-dir", tmp_path / "state", shop, before=broken))
    assert bad["codecs.libraries"]["verdict"] == "fault"
    assert told in bad["codecs.libraries"]["detail"]
    assert f"`{sys.executable} -m pip install --force-reinstall pillow`" in bad["codecs.libraries"]["cure"]


# Has the kernel refuse Landlock, as a container does whose filter of system calls is old.
_WITHOUT_LANDLOCK = """
import ctypes, os, sys
library = ctypes.CDLL(sys.argv[1])
library.seccomp_init.restype = ctypes.c_void_p
context = ctypes.c_void_p(library.seccomp_init(ctypes.c_uint32(0x7FFF0000)))  # SCMP_ACT_ALLOW
number = library.seccomp_syscall_resolve_name(b"landlock_create_ruleset")
refuse = ctypes.c_uint32(0x00050001)  # SCMP_ACT_ERRNO(EPERM)
assert not library.seccomp_rule_add(context, refuse, ctypes.c_int(number), ctypes.c_uint(0))
assert not library.seccomp_load(context)
os.execvp(sys.argv[2], sys.argv[2:])
"""


def test_codecs_that_nothing_shuts_in(shop: Path, tmp_path: Path) -> None:
    ctypes.CDLL(LIBSECCOMP)
    (library,) = set(re.findall(r"(/\S*/libseccomp\.so\S*)", Path("/proc/self/maps").read_text()))
    before = (sys.executable, "-c", _WITHOUT_LANDLOCK, library, *hiding(f"mount --bind /dev/null '{library}'"))
    bad = found(doctor("--json", "--state-dir", tmp_path / "state", shop, before=before))
    assert {bad[id_]["verdict"] for id_ in ("codecs.seccomp", "codecs.landlock")} == {"warning"}
    assert "`apt install libseccomp2`" in bad["codecs.seccomp"]["cure"]
    assert "allow landlock_create_ruleset()" in bad["codecs.landlock"]["cure"]


# Addresses, limits, and the state folder


def test_a_port_that_another_program_has_an_open_address_and_limits_that_are_too_low(
    shop: Path, tmp_path: Path
) -> None:
    with http.server.HTTPServer(("127.0.0.1", 0), http.server.BaseHTTPRequestHandler) as other:
        threading.Thread(target=other.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
        taken = f"127.0.0.1:{other.server_port}"
        try:
            done = doctor(
                *("--json", "--state-dir", tmp_path / "s", shop),
                before=("prlimit", "--nofile=200:200"),
                WEBPD_HEALTH_ADDRESS=taken,
                WEBPD_METRICS_ADDRESS="0.0.0.0:0",
                WEBPD_WORKERS="256",
                WEBPD_WORKER_MEMORY="10GiB",
            )
        finally:
            other.shutdown()
    bad = found(done)
    assert bad["address.free"]["subject"] == f"WEBPD_HEALTH_ADDRESS={taken}"
    assert f"ss -ltnp 'sport = :{other.server_port}'" in bad["address.free"]["cure"]
    assert "WEBPD_METRICS_ADDRESS=127.0.0.1:" in bad["address.loopback"]["cure"]
    assert "LimitNOFILE=" in bad["host.open_files"]["cure"]
    assert "WEBPD_WORKERS=auto" in bad["host.cores"]["cure"]
    assert "WEBPD_WORKERS=" in bad["host.memory"]["cure"]


def test_fewer_watches_than_folders(shop: Path, tmp_path: Path) -> None:
    limited = (
        "unshare",
        "--user",
        "--map-root-user",
        "sh",
        "-c",
        'echo 2 > /proc/sys/user/max_inotify_watches; exec "$@"',
        "-",
    )
    bad = found(doctor("--json", "--state-dir", tmp_path / "state", shop, before=limited, WEBPD_ROLE="watch"))
    assert "2 watches are allowed" in bad["inotify.watches"]["detail"]
    assert "fs.inotify.max_user_watches=" in bad["inotify.watches"]["cure"]


def test_a_state_folder_on_a_network_mount(lab: SshfsLab) -> None:
    bad = sick(state.look(Settings(state_dir=str(lab.mnt / "state"))))["state.local"]
    assert bad.verdict is Verdict.FAULT
    assert "WEBPD_STATE_DIR=/var/lib/webpd" in bad.cure


def test_a_state_folder_without_room_or_with_a_database_that_is_none(tmpfs: Callable[[str], Path]) -> None:
    folder = tmpfs("size=256k")
    (folder / "ledger.sqlite").write_bytes(bytes(64 << 10))
    (folder / "ledger.sqlite.damaged-1").touch()
    (folder / "full").write_bytes(bytes(192 << 10))
    bad = sick(state.look(Settings(state_dir=str(folder))))
    assert "No space left" in bad["state.writable"].detail
    assert "systemctl restart webpd" in bad["state.database"].cure
    assert "smartctl" in bad["state.damaged"].cure


# Redis


def test_a_queue_on_a_redis_that_evicts_and_a_cache_on_one_that_does_not(tmp_path: Path) -> None:
    with RedisServer(tmp_path / "1") as evicting, RedisServer(tmp_path / "2", "queue.conf") as keeping:
        well = sick(servers.look(Settings(redis_url=evicting.url, queue_url=keeping.url)))
        assert well == {}
        swapped = list(servers.look(Settings(redis_url=keeping.url, queue_url=evicting.url)))
        cache, queue = (finding for finding in swapped if finding.id == "redis.policy")
        assert (cache.verdict, queue.verdict) == (Verdict.WARNING, Verdict.FAULT)
        for server, one in ((evicting, queue), (keeping, cache)):
            host, port = server.address
            assert f"`redis-cli -h {host} -p {port} CONFIG SET maxmemory-policy" in one.cure
        # Done as they say, each server is what it is used for.
        evicting.cli(*command_in(queue.cure, "redis-cli").split()[5:])
        keeping.cli(*command_in(cache.cure, "redis-cli").split()[5:])
        assert "redis.policy" not in sick(servers.look(Settings(redis_url=keeping.url, queue_url=evicting.url)))
        assert evicting.cli("KEYS", "webpd:probe:*") == ""


def test_a_redis_with_another_password_one_that_hangs_one_without_limits_and_one_that_is_not_there(
    tmp_path: Path,
) -> None:
    with RedisServer(tmp_path / "1", "redis.conf", "--maxmemory", "0", "--appendonly", "no") as server:
        wrong = sick(servers.look(Settings(redis_url=server.url_of("webpd", "wrong"))))["redis.answers"]
        assert "deploy/redis/users.acl" in wrong.cure
        assert "wrong" not in f"{wrong.subject}{wrong.detail}{wrong.cure}"
        loose = sick(servers.look(Settings(redis_url=server.administrator)))
        assert set(loose) == {"redis.maxmemory", "redis.persistence", "redis.rights"}
        assert f"-p {server.address[1]} CONFIG SET maxmemory 512mb" in loose["redis.maxmemory"].cure
        assert f"-p {server.address[1]} CONFIG SET appendonly yes" in loose["redis.persistence"].cure
        assert f"-p {server.address[1]} ACL LOAD" in loose["redis.rights"].cure
        server.freeze()
        assert "does not answer within" in sick(servers.look(Settings(redis_url=server.url)))["redis.answers"].detail
        url = server.url
        server.thaw()
    gone = sick(servers.look(Settings(redis_url=url)))["redis.answers"]
    assert "start it" in gone.cure
    assert "redis-cli -h 127.0.0.1" in gone.cure


def test_a_redis_whose_host_has_taken_the_command_away_that_configures_it(tmp_path: Path) -> None:
    with RedisServer(tmp_path / "1", "redis.conf", "--rename-command", "CONFIG", "") as server:
        assert sick(servers.look(Settings(redis_url=server.administrator))) == {}


def test_a_role_among_several_hosts_without_a_queue() -> None:
    assert "WEBPD_QUEUE_URL=" in sick(servers.look(Settings(role="work")))["redis.queue"].cure
