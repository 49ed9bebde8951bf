"""What the guard of a root makes of folder after folder in which nothing can be done."""

import asyncio
from pathlib import Path

import pytest

from webpd.service.guard import MountGuard
from webpd.watch.health import Health
from webpd.watch.mount import mount_of

FAILURE = "/x/a.jpg: can't be written: Input/output error: check the disk"


@pytest.mark.parametrize(
    ("denied", "reason", "cure"),
    [
        (False, f"nothing could be done in 16 folders in a row ({FAILURE})", "look whether the disk is full"),
        (True, "permission was denied in 16 folders in a row, last in {root}/15", "run webpd as the owner"),
    ],
)
def test_failures_in_many_folders_pause_the_root_and_the_cure_is_that_of_their_cause(
    denied: bool, reason: str, cure: str, tmp_path: Path
) -> None:
    async def failing() -> MountGuard:
        guard = MountGuard(str(tmp_path), mount_of(str(tmp_path)))
        for number in range(16):
            assert not guard.detail
            guard.note(f"{tmp_path}/{number}/a.jpg", FAILURE, denied=denied)
        return guard

    guard = asyncio.run(failing())
    assert guard.health is Health.READ_ONLY
    assert guard.halted()
    told, _, advice = guard.detail.removeprefix(f"{tmp_path}: ").rpartition(": ")
    assert told == reason.format(root=tmp_path)
    assert advice.startswith(cure)
