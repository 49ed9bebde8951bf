"""Every command of the pages that tell how to begin is run by a test: here, word for word, or where the table says."""

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.conftest import write
from tests.docs.clone import Clone, cloned
from tests.docs.pages import CHECKOUT, RUN, commands

TREE = "/var/www/cdn/upload/resize_cache"
PHOTO = "/upload/resize_cache/iblock/451/240_320_1/photo.jpg"
# Debian's systemd, nginx and the script in a machine of their own.
INSTALL = (
    "tests/deploy/test_install.py::test_the_service_runs_as_hardened_as_it_is_and_the_same_script_takes_it_all_away"
)
# The program in an environment of its own, without the network for its dependencies.
WHEEL = "tests/deploy/test_wheel.py::test_an_installed_wheel_converts_and_runs_by_itself"


@dataclass(frozen=True)
class Here:
    """It is run here and must succeed, after what must have been done before; then ``holds`` must hold."""

    holds: Callable[[Clone, str], None] = lambda _clone, _said: None
    before: str = ":"


@dataclass(frozen=True)
class Forever:
    """It goes on until Ctrl-C, which is pressed once this is so."""

    until: Callable[[Clone], bool]


@dataclass(frozen=True)
class Elsewhere:
    """This test runs it: ``file::function``, or a file whose tests all do."""

    test: str


def _converted(root: Path) -> bool:
    originals = [path for path in root.rglob("*") if path.suffix in {".jpg", ".png"}]
    return bool(originals) and all(Path(f"{path}.webp").exists() for path in originals)


def _nothing_wrong(_one: Clone, said: str) -> None:
    assert "55 sample images" in said
    assert "nothing is wrong" in said


def _foreign_alone_is_left(one: Clone, _said: str) -> None:
    assert [path.name for path in one.path(TREE).rglob("*.webp")] == ["foreign.jpg.webp"]


WAYS: dict[str, Here | Forever | Elsewhere] = {
    "make run": Forever(lambda one: _converted(one.checkout / "sample")),
    "make run ONCE=1": Here(_nothing_wrong),
    f"make run DIR={TREE}": Forever(lambda one: _converted(one.path(TREE))),
    "make test": Elsewhere("tests"),  # whoever runs this test runs it
    f"deploy/systemd/install.sh --root {TREE}": Elsewhere(INSTALL),
    "nginx -t && systemctl reload nginx": Elsewhere(INSTALL),
    f"webpd check https://cdn.example{PHOTO}": Elsewhere("tests/delivery/test_nginx.py"),
    "webpd status": Here(before=f"webpd run --once {TREE}"),
    "webpd doctor": Here(),
    "deploy/systemd/install.sh": Elsewhere(INSTALL),
    "python3 -m venv /opt/webpd": Elsewhere(WHEEL),
    "/opt/webpd/bin/pip install .": Elsewhere(WHEEL),
    f"/opt/webpd/bin/webpd convert {TREE}": Elsewhere(WHEEL),
    "deploy/systemd/install.sh --remove": Elsewhere(INSTALL),
    f"find {TREE} -type f -iregex '.*\\.\\(jpe?g\\|png\\)\\.webp' -exec sh -c "
    "'tail -c 40 \"$1\" | head -c 4 | grep -qaF WPDS' sh {} \\; -delete": Here(
        _foreign_alone_is_left, before=f"echo RIFF >{TREE}/foreign.jpg.webp"
    ),
}


@pytest.fixture(scope="module")
def one(tmp_path_factory: pytest.TempPathFactory, photograph: Callable[..., bytes]) -> Iterator[Clone]:
    with cloned(tmp_path_factory.mktemp("clone")) as new:
        write(new.path(TREE) / "iblock" / "451" / "240_320_1" / "photo.jpg", photograph())
        yield new


@pytest.mark.parametrize("page", RUN)
def test_every_command_of_the_page_has_a_test(page: str) -> None:
    assert [command for command in commands(page) if command not in WAYS] == []


def test_every_command_that_has_a_test_is_on_a_page() -> None:
    assert WAYS.keys() == {command for page in RUN for command in commands(page)}


@pytest.mark.parametrize("way", [way for way in WAYS.values() if isinstance(way, Elsewhere)], ids=lambda way: way.test)
def test_a_test_that_is_said_to_run_a_command_is_there(way: Elsewhere) -> None:
    file, _, function = way.test.partition("::")
    assert (CHECKOUT / file).exists()
    assert not function or re.search(rf"^def {function}\(", (CHECKOUT / file).read_text("utf-8"), re.MULTILINE)


def test_the_commands_do_what_they_are_said_to_do(one: Clone) -> None:
    for page in (page for page in RUN if not page.endswith(".ru.md")):
        for command in commands(page):
            match WAYS[command]:
                case Here(holds, before):
                    one.run(before)
                    holds(one, one.run(command))
                case Forever(until):
                    one.run_until(command, lambda until=until: until(one))  # type: ignore[misc]
