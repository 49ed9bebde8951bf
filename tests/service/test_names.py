"""Roots and images with names that no encoding has."""

import os
from collections.abc import Callable
from pathlib import Path

from tests.service.driver import Service


def test_a_root_and_an_image_whose_names_are_not_utf_8_are_served_and_told_of(
    tmp_path: Path, service: Callable[..., Service], photograph: Callable[..., bytes]
) -> None:
    root = Path(os.fsdecode(os.fsencode(tmp_path) + b"/tree-\xff"))
    root.mkdir()
    original = root / os.fsdecode(b"photo \xfe.jpg")
    original.write_bytes(photograph(80))
    one = service(root)
    one.start()
    one.wait_until(Path(f"{original}.webp").exists)
    one.settle()
    assert one.root()["root"] == f"{tmp_path}/tree-\\xff"
    assert one.metrics()[f'webpd_orphans{{root="{tmp_path}/tree-\\\\xff"}}'] == 0
    assert one.said("converted", r"photo \\xfe.jpg")
    assert one.stop() == 0
