"""What the doctor says of the socket at which nginx gives hints."""

import json
import socket
from pathlib import Path
from typing import Any

from tests.conftest import as_nobody, open_to_all
from webpd.doctor import hints
from webpd.settings import load


def look(path: object, **environment: str) -> dict[str, dict[str, Any]]:
    settings = load({}, {"WEBPD_HINT_SOCKET": str(path), **environment}).settings
    return {one.id: {"verdict": str(one.verdict), "cure": one.cure} for one in hints.look(settings)}


def test_a_socket_that_is_there_or_can_be_made_is_well(tmp_path: Path) -> None:
    path = tmp_path / "run" / "hint.sock"
    assert look(path)["hints.socket"]["verdict"] == "ok"
    path.parent.mkdir()
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as one:
        one.bind(str(path))
        assert look(path)["hints.socket"]["verdict"] == "ok"
    assert look(path)["hints.socket"]["verdict"] == "ok"  # of a process that is no more


def test_what_is_in_the_way_is_named_with_its_cure(tmp_path: Path) -> None:
    kept = tmp_path / "kept"
    kept.write_bytes(b"somebody's")
    open_to_all(tmp_path)
    told = as_nobody(lambda: json.loads(json.dumps({"no": look(tmp_path / "run/hint.sock")})))
    told["kept"] = look(kept)  # by whoever may write to it
    assert told["no"]["hints.socket"]["verdict"] == told["kept"]["hints.socket"]["verdict"] == "warning"
    assert f"install -d -m 755 -o www-data {tmp_path / 'run'}" in told["no"]["hints.socket"]["cure"]
    assert f"ls -l {kept}" in told["kept"]["hints.socket"]["cure"]


def test_too_little_room_for_hints_is_told(tmp_path: Path) -> None:
    most = int(Path("/proc/sys/net/unix/max_dgram_qlen").read_text())
    told = look(tmp_path / "hint.sock")["hints.waiting"]
    assert told["verdict"] == ("ok" if most >= 256 else "warning")
    assert ("net.unix.max_dgram_qlen=512" in told["cure"]) == (most < 256)


def test_where_none_is_wanted_nothing_is_looked_at() -> None:
    assert look("off") == look("/run/webpd/hint.sock", WEBPD_ROLE="work") == {}
