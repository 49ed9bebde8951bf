"""What came out of an image is remembered until something changes: it is not read again."""

import os
import shutil
import signal
from collections.abc import Callable
from pathlib import Path

from tests.conftest import write
from tests.pictures import RGB, png
from tests.service.driver import Service, shows

LONG_AGO = 1_600_000_000


def lay_out(root: Path, kept: int, broken: int, photograph: Callable[..., bytes]) -> None:
    """Lay out images whose WebP is larger than they are, and images that are damaged, all last read long ago."""
    damaged = bytearray(photograph(60))
    damaged[300:] = b"\xff" * (len(damaged) - 300)
    for number in range(kept):
        dot = png((1, 1), RGB, number.to_bytes(3, "big"))
        write(root / f"{number % 50}" / f"kept{number}.png", dot, LONG_AGO)
    for number in range(broken):
        write(root / f"{number % 50}" / f"broken{number}.jpg", bytes(damaged) + b"%d" % number, LONG_AGO)


def read_since(root: Path) -> list[Path]:
    """Return the originals that were read since they were laid out."""
    originals = [*root.rglob("*.png"), *root.rglob("*.jpg")]
    return [path for path in originals if path.stat().st_atime > LONG_AGO + 1]


def test_kept_originals_and_broken_ones_are_not_tried_again_until_they_change(
    tmpfs: Callable[[str], Path], service: Callable[..., Service], photograph: Callable[..., bytes], prove: bool
) -> None:
    tree = tmpfs("size=512m,strictatime")
    kept, broken = (5000, 200) if prove else (300, 20)
    lay_out(tree, kept, broken, photograph)
    assert not read_since(tree)
    one = service(tree)
    one.start()
    one.wait_until(lambda: one.outcomes()["kept_original"] == kept, seconds=600 if prove else 60)
    one.wait_until(lambda: one.outcomes()["failed"] == broken)
    one.settle()
    assert len(read_since(tree)) == kept + broken
    assert one.stop() == 0

    for path in read_since(tree):
        os.utime(path, (LONG_AGO, LONG_AGO))
    for end in (signal.SIGTERM, signal.SIGINT):
        one.start()
        one.settle()
        assert read_since(tree) == []
        assert one.stop(end) == 0

    one.start()
    changed = tree / "7" / "broken7.jpg"
    changed.write_bytes(photograph(80))
    one.wait_until(lambda: shows(changed), "the one that was mended")
    one.settle()
    assert read_since(tree) == [changed]
    assert one.stop() == 0

    again = service(tree, WEBPD_QUALITY="60")
    shutil.copytree(one.state, again.state)
    again.start()
    again.wait_until(lambda: len(read_since(tree)) >= kept, "other settings: they may come out smaller now")
