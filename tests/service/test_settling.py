"""A picture is believed when it has stopped changing: at the end its sidecar shows what is there."""

import os
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.conftest import Ended, write
from tests.lab import SshfsLab
from tests.service.driver import Service, shows
from tests.service.writers import finish, start

PLACES = ("inotify", "sshfs", *(("poll",) if os.environ.get("PROVE") == "1" else ()))


@pytest.fixture(params=PLACES)
def place(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[Path, Path, str]:
    """Where others write, where the service looks, and how it watches."""
    if request.param == "sshfs":
        lab = request.getfixturevalue("lab")
        assert isinstance(lab, SshfsLab)
        return lab.origin, lab.mnt, "auto"
    (tmp_path / "tree").mkdir()
    return tmp_path / "tree", tmp_path / "tree", request.param


def test_the_two_phases_of_bitrix_leave_the_sidecar_of_the_thumbnail(
    place: tuple[Path, Path, str],
    tmp_path: Path,
    service: Callable[..., Service],
    webpd: Callable[..., Ended],
    photograph: Callable[..., bytes],
    prove: bool,
) -> None:
    origin, tree, watch = place
    original = write(tmp_path / "original.jpg", photograph(400))
    count = 200 if prove else 32
    one = service(tree, WEBPD_WATCH=watch, WEBPD_SETTLE="1")
    one.start()
    finish(start("bitrix", original, origin, count, 3))
    thumbnails = list(origin.rglob("*.jpg"))
    assert len(thumbnails) == count
    one.wait_until(lambda: all(map(shows, thumbnails)), "every sidecar shows the thumbnail", 120)
    one.settle()
    assert all(map(shows, thumbnails))
    assert webpd("verify", origin).code == 0
    assert one.outcomes()["failed"] == 0


def test_an_image_larger_than_its_folder_allows_is_converted_in_the_end(
    tmp_path: Path, service: Callable[..., Service], photograph: Callable[..., bytes]
) -> None:
    picture = write(tmp_path / "tree" / "iblock" / "abc" / "100_100_1" / "large.jpg", photograph(400))
    one = service(tmp_path / "tree", WEBPD_SETTLE="0.2")
    one.start()
    one.wait_until(lambda: shows(picture))


def test_of_pictures_overwritten_again_and_again_the_last_one_is_shown(
    place: tuple[Path, Path, str],
    service: Callable[..., Service],
    webpd: Callable[..., Ended],
    photograph: Callable[..., bytes],
    prove: bool,
) -> None:
    origin, tree, watch = place
    pictures = [photograph(width, name) for width in (90, 120, 150) for name in ("chelsea.png", "coffee.png")]
    one = service(tree, WEBPD_WATCH=watch, WEBPD_FULL_INTERVAL="1")
    one.start()
    files = [origin / f"{number % 3}" / f"{number}.jpg" for number in range(60 if prove else 12)]
    for number, file in enumerate(files):  # twice within a second, and again at each moment of its conversion
        write(file, pictures[number % 5])
        time.sleep(0.25 * (number % 2))
        file.write_bytes(pictures[number % 5 + 1])
    for number, file in enumerate(files):
        if number % 3:
            one.wait_until(Path(f"{file}.webp").exists)
            time.sleep(0.1 * (number % 4))
            file.write_bytes(pictures[(number + 3) % 6])
    one.wait_until(lambda: all(map(shows, files)), "every sidecar shows the last picture")
    one.settle()
    assert all(map(shows, files))
    assert webpd("verify", origin).code == 0


def test_a_picture_overwritten_while_it_is_converted_is_shown_as_it_is_afterwards(
    place: tuple[Path, Path, str], service: Callable[..., Service], photograph: Callable[..., bytes]
) -> None:
    origin, tree, watch = place
    large, small = photograph(2400, "hubble_deep_field.jpg"), photograph(90, "coffee.png")
    one = service(tree, WEBPD_WATCH=watch, WEBPD_FULL_INTERVAL="1", WEBPD_METHOD="6")
    one.start()
    for number in range(2):
        file = write(origin / f"{number}" / "large.jpg", large)
        one.wait_until(lambda: one.health()["queue"]["in_flight"], "it is being converted")
        file.write_bytes(small)
        one.wait_until(lambda: shows(file), "the last picture")  # noqa: B023 - called before the next
    one.settle()
    assert one.outcomes()["failed"] == 0
