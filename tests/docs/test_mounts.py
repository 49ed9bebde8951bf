"""docs/sshfs-nfs.md: its line for fstab is what the unit mounts with, and who has no rights works through it."""

import configparser
import logging
import os
import re
import time
from collections.abc import Callable
from pathlib import Path

from tests.conftest import as_nobody, open_to_all, write
from tests.docs.pages import CHECKOUT
from tests.lab import sshfs_lab
from webpd.errors import WebpdError
from webpd.model import Job, Sidecar
from webpd.tree.publisher import Publisher
from webpd.tree.source import read

PAGE = CHECKOUT / "docs" / "sshfs-nfs.md"
UNIT = CHECKOUT / "deploy" / "systemd" / "sshfs" / "webpd-tree.mount"
WWW_DATA = 33
NOBODY = 65534


def documented() -> list[str]:
    """Return the options of the page's line for fstab, those for mount(8) and systemd aside."""
    found = re.search(r"^ +\S+ \S+ fuse\.sshfs (\S+) 0 0$", PAGE.read_text("utf-8"), re.MULTILINE)
    assert found
    return [option for option in found[1].split(",") if not re.match(r"_netdev$|x-systemd\.", option)]


def test_the_unit_mounts_with_the_options_that_the_page_has() -> None:
    unit = configparser.ConfigParser(interpolation=None, strict=False)
    unit.optionxform = str  # type: ignore[assignment, method-assign]
    unit.read(UNIT)
    options = unit["Mount"]["Options"].replace("USERID", str(WWW_DATA)).replace("GROUPID", str(WWW_DATA))
    assert sorted(set(options.split(",")) - {"_netdev"}) == sorted(documented())


def test_every_option_of_the_line_has_its_reason() -> None:
    table = PAGE.read_text("utf-8").partition("| option | what for |")[2].partition("Not these:")[0]
    assert [option for option in documented() if option not in table] == []


def test_who_is_not_root_makes_a_sidecar_of_its_own_through_a_mount_with_these_options(
    tmp_path: Path, photograph: Callable[..., bytes]
) -> None:
    open_to_all(tmp_path)
    options = [option.replace(f"={WWW_DATA}", f"={NOBODY}") for option in documented()]
    with sshfs_lab(tmp_path / "lab", options=options) as lab:
        photo = photograph()
        write(lab.origin / "a" / "one.jpg", photo, time.time() - 5000)
        publisher = Publisher((NOBODY, NOBODY), 0o644, fsync=False, remote=True)

        def convert() -> list[str]:
            lines: list[str] = []
            logging.getLogger("webpd").addHandler(said := logging.Handler())
            said.emit = lambda record: lines.append(record.getMessage())  # type: ignore[method-assign]
            path = str(lab.mnt / "a" / "one.jpg")
            try:
                job = Job(path, str(lab.mnt), len(photo), os.stat(path).st_mtime_ns, Sidecar.ABSENT)
                publisher.publish(read(job, 1 << 20), b"WebP", None)
            except (OSError, WebpdError) as error:
                lines.append(repr(error))
            return lines

        assert as_nobody(convert) == []
        assert (lab.origin / "a" / "one.jpg.webp").read_bytes() == b"WebP"
