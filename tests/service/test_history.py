"""What the service did is told while it runs, and afterwards."""

from collections.abc import Callable
from pathlib import Path

from tests.conftest import Ended, write
from tests.service.driver import Service


def test_totals_and_failures_are_those_of_the_work_done(
    tmp_path: Path,
    service: Callable[..., Service],
    webpd: Callable[..., Ended],
    photograph: Callable[..., bytes],
) -> None:
    tree = tmp_path / "tree"
    for number in range(5):
        write(tree / f"{number}/photo.jpg", photograph(120))
    write(tree / "broken.jpg", photograph(120)[:2000])
    one = service(tree)
    one.start()
    one.wait_until(lambda: one.outcomes()["converted"] == 5 and one.outcomes()["failed"] == 1)
    one.settle()
    state = {"WEBPD_STATE_DIR": str(one.state)}
    assert one.stop() == 0
    told = webpd("status", "--json", WEBPD_HEALTH_ADDRESS="off", **state).json
    sources = sum(path.stat().st_size for path in tree.glob("*/photo.jpg"))
    sidecars = sum(path.stat().st_size for path in tree.glob("*/photo.jpg.webp"))
    everything = told["totals"]["all"]
    assert (everything["converted"], everything["failed"]) == (5, 1)
    assert (everything["source_bytes"], everything["webp_bytes"]) == (sources, sidecars)
    listed = webpd("failures", "--json", **state).json["failures"]
    assert [(failure["path"], failure["reason"]) for failure in listed] == [(str(tree / "broken.jpg"), "damaged")]
