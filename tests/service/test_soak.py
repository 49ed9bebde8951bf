"""Many programs at work on a tree, and a service that is killed again and again: in the end all is right."""

import random
import time
from collections.abc import Callable
from pathlib import Path

from tests.conftest import Ended, write
from tests.lab import SshfsLab
from tests.service.driver import Service, leftovers
from tests.service.writers import finish, start

PICTURES = [(width, name) for width in (60, 90, 130, 180) for name in ("chelsea.png", "coffee.png", "astronaut.png")]


def test_after_a_soak_with_kills_nothing_is_missing_stale_orphaned_or_broken(
    lab: SshfsLab,
    tmp_path: Path,
    service: Callable[..., Service],
    webpd: Callable[..., Ended],
    photograph: Callable[..., bytes],
    prove: bool,
) -> None:
    seed = random.randrange(2**32)
    print(f"seed {seed}")
    chance = random.Random(seed)
    seconds, kills = (600, 10) if prove else (9, 3)
    for number, (width, name) in enumerate(PICTURES):
        write(tmp_path / "pictures" / f"{number:02}", photograph(width, name))
    local = tmp_path / "local"
    local.mkdir()
    one = service(local, lab.mnt, WEBPD_FULL_INTERVAL="2", WEBPD_PRUNE_AFTER="1", WEBPD_PRUNE_FOLDERS_AFTER="1")
    one.start()
    writers = [
        start("rummage", tmp_path / "pictures", root, seed + number, renames)
        for number, (root, renames) in enumerate([(local, "over")] * 3 + [(lab.origin, "new")] * 2)
    ]
    begun = time.monotonic()
    for number in range(kills):
        until = begun + seconds * (number + chance.uniform(0.4, 1)) / kills
        one.wait_until(lambda: time.monotonic() > until, seconds=seconds)  # noqa: B023 - called before the next
        one.kill()
        one.start()
    for writer in writers:
        finish(writer)
    one.settle(120)
    for root in (local, lab.origin):
        _check(one, root, webpd)
    assert one.stop() == 0


def _check(one: Service, root: Path, webpd: Callable[..., Ended]) -> None:
    """What is at the origin is right, when the mount's cache, the full pass and the pruner have had their time."""
    images = list(root.rglob("*.jpg"))
    assert images

    def right() -> bool:
        found = webpd("verify", "--json", root).json
        return (found["problems_total"], found.get("right")) == (0, len(images))

    one.wait_until(right, f"{len(images)} right sidecars", 90)
    assert not leftovers(root)
    assert webpd("verify", root).code == 0
