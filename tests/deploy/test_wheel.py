"""The wheel, installed where nothing of the checkout can stand in for what it lacks."""

import json
import os
import subprocess
import sys
import sysconfig
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.conftest import write
from tests.deploy.conftest import CHECKOUT
from webpd import __version__


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An environment with the wheel in it; the packages that it depends on are this one's."""
    folder = tmp_path_factory.mktemp("installed")
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(folder)], check=True)
    pip = (sys.executable, "-m", "pip", "--python", str(folder / "bin" / "python"))
    subprocess.run([*pip, "install", "--quiet", "--no-deps", str(wheel)], check=True)
    own = next((folder / "lib").glob("python3*/site-packages"))
    (own / "dependencies.pth").write_text(sysconfig.get_path("purelib") + "\n", "utf-8")
    return folder


def test_the_wheel_holds_every_file_of_the_package_and_no_test(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
    source = CHECKOUT / "src"
    package = {str(path.relative_to(source)) for path in (source / "webpd").rglob("*") if path.is_file()}
    assert {name for name in package if "__pycache__" not in name} == {n for n in names if n.startswith("webpd/")}
    assert not [name for name in names if "test" in name.partition("/")[0]]


def test_the_wheel_brings_the_manual_page_and_completions_to_where_shells_and_man_look(installed: Path) -> None:
    share = installed / "share"
    assert (share / "man/man1/webpd.1").is_file()
    assert (share / "bash-completion/completions/webpd").is_file()
    assert (share / "zsh/site-functions/_webpd").is_file()
    assert (share / "fish/vendor_completions.d/webpd.fish").is_file()


def test_an_installed_wheel_converts_and_runs_by_itself(
    installed: Path, tmp_path: Path, photograph: Callable[..., bytes]
) -> None:
    environment = {name: value for name, value in os.environ.items() if not name.startswith("WEBPD_")}
    environment |= {
        "WEBPD_STATE_DIR": str(tmp_path / "state"),
        "WEBPD_OWNER": "keep",
        "WEBPD_HEALTH_ADDRESS": "off",
        "WEBPD_METRICS_ADDRESS": "off",
        "WEBPD_HINT_SOCKET": "off",
    }

    def webpd(*arguments: str) -> str:
        command = (str(installed / "bin" / "webpd"), *arguments)
        return subprocess.run(command, env=environment, cwd=tmp_path, capture_output=True, text=True, check=True).stdout

    where = subprocess.run(
        [str(installed / "bin" / "python"), "-c", "import webpd; print(webpd.__file__)"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    assert where.startswith(str(installed))
    assert webpd("--version") == f"webpd {__version__}\n"
    first, second = tmp_path / "tree" / "a.jpg", tmp_path / "tree" / "b.jpg"
    write(first, photograph(), mtime=1_600_000_000)
    assert json.loads(webpd("convert", "--json", str(first.parent)))["converted"] == 1
    write(second, photograph(), mtime=1_600_000_000)
    assert webpd("run", "--once", str(first.parent)).startswith("1 converted")
    assert Path(f"{second}.webp").read_bytes()[8:12] == b"WEBP"
    assert "location" in webpd("nginx", "--part", "server", str(first.parent))
