"""The units, as systemd's own tools judge them. That the service runs under them is for test_install.py to show."""

import re
import subprocess
from pathlib import Path

import pytest

from tests.deploy.conftest import CHECKOUT

SYSTEMD = CHECKOUT / "deploy" / "systemd"
NAME = "var-www-cdn-upload-resize_cache"


@pytest.fixture
def units(tmp_path: Path) -> Path:
    """All units as they would be in /etc/systemd/system, with a program that is there."""
    service = (SYSTEMD / "webpd.service").read_text("utf-8")
    told = re.sub(r"^(ExecStart)=\S+/webpd\b|^(Documentation=man):webpd\b", _stand_in, service, flags=re.MULTILINE)
    (tmp_path / "webpd.service").write_text(told, "utf-8")
    values = {"SOURCE": "deploy@bitrix:/srv/resize_cache", "USERID": "33", "GROUPID": "33"}
    for suffix in ("mount", "automount"):
        text = (SYSTEMD / "sshfs" / f"webpd-tree.{suffix}").read_text("utf-8")
        for name, value in values.items():
            text = text.replace(name, value)
        text = text.replace("=FOLDER", "=/var/www/cdn/upload/resize_cache")
        (tmp_path / f"{NAME}.{suffix}").write_text(text, "utf-8")
    for suffix in ("service", "timer"):
        text = (SYSTEMD / "sshfs" / f"webpd-mount-check@.{suffix}").read_text("utf-8")
        (tmp_path / f"webpd-mount-check@{NAME}.{suffix}").write_text(text, "utf-8")
    return tmp_path


def _stand_in(found: re.Match[str]) -> str:
    return f"{found[1]}=/bin/true" if found[1] else f"{found[2]}:true"


def test_systemd_has_nothing_to_say_against_the_units(units: Path) -> None:
    for unit in sorted(units.iterdir()):
        done = subprocess.run(
            ["systemd-analyze", "verify", "--man=no", str(unit)], capture_output=True, text=True, check=False
        )
        assert (done.returncode, done.stderr, done.stdout) == (0, "", ""), unit.name


def test_the_service_can_do_little_harm(units: Path) -> None:
    assert exposure(units / "webpd.service") <= 2.0


def test_it_can_do_little_more_where_it_may_give_sidecars_away(units: Path) -> None:
    service = units / "webpd.service"
    (line,) = re.findall(r'lines\+=\(("CapabilityBoundingSet=.*")\)', (SYSTEMD / "install.sh").read_text("utf-8"))
    more = "\n".join(re.findall(r'"([^"]+)"', line))
    service.write_text(service.read_text("utf-8").replace("[Install]", f"{more}\n[Install]"), "utf-8")
    assert exposure(service) <= 2.0


def exposure(unit: Path) -> float:
    """Return what ``systemd-analyze security`` makes of the unit, from 0 to 10."""
    done = subprocess.run(
        ["systemd-analyze", "security", "--offline=yes", "--no-pager", str(unit)],
        capture_output=True,
        text=True,
        check=True,
    )
    found = re.search(r"exposure level for \S+: (\d+\.\d+)", done.stdout)
    assert found, done.stdout
    return float(found[1])


def test_the_script_is_clean_bash() -> None:
    subprocess.run(["shellcheck", str(SYSTEMD / "install.sh")], check=True)


def test_what_the_script_cannot_do_it_says_in_one_line_and_exits_2() -> None:
    for arguments, words in {
        ("--purge",): "--purge goes with --remove",
        ("--root",): "--root wants a value",
        ("--nonsense",): "--nonsense: there is no such option",
        ("--sshfs", "a@b:/c"): "--sshfs wants exactly one --root",
        ("--root", "/srv/a:b"): "/srv/a:b: a service's folder has no comma, colon",
    }.items():
        done = subprocess.run([str(SYSTEMD / "install.sh"), *arguments], capture_output=True, text=True, check=False)
        assert done.returncode == 2
        assert done.stderr.startswith(f"webpd: {words}"), done.stderr
        assert done.stderr.count("\n") == 1
