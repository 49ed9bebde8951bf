"""Spoilt images: whatever is wrong with the original, the sidecar shows what Chromium shows, or there is none."""

import os
import random
from io import BytesIO
from pathlib import Path

from PIL import Image

from tests.conftest import convert_measured, write
from tests.convert import mutations
from tests.convert.animations import differences
from tests.referee import Chromium, Verdict
from webpd.convert import jpeg
from webpd.convert.choice import jpeg_quality

_QUALITY = 90
_COUNT = 5_000 if os.environ.get("PROVE") == "1" else 300
_MEMORY = "512MiB"
_SEED = int(os.environ.get("MUTATION_SEED", "20261124"))


def test_a_mutated_image_is_shown_as_chromium_shows_it_or_not_at_all(chromium: Chromium, tmp_path: Path) -> None:
    print(f"MUTATION_SEED={_SEED}")
    chance = random.Random(_SEED)
    originals = mutations.originals()
    for number in range(_COUNT):
        source = originals[number % len(originals)]
        suffix = "jpg" if source.startswith(jpeg.SIGNATURE) else "png"
        write(tmp_path / f"{number % 50}" / f"{number}.{suffix}", mutations.mutated(source, chance))
    done = convert_measured(
        tmp_path, "--quality", str(_QUALITY), "--method", "2", WEBPD_MAX_PIXELS="2000000", WEBPD_WORKER_MEMORY=_MEMORY
    )
    told = done.json
    counts = {name: told[name] for name in ("converted", "kept_original", "skipped", "failed_total")}
    print(f"{counts}, {done.memory} MiB")
    assert told["found"] == _COUNT
    assert (
        told["found"]
        == told["converted"] + told["kept_original"] + sum(told["skipped"].values()) + told["failed_total"]
    )
    assert {failure["reason"] for failure in told["failed"]} <= {"damaged"}
    assert done.memory < 512
    pairs = [(file.with_suffix("").read_bytes(), file.read_bytes()) for file in sorted(tmp_path.rglob("*.webp"))]
    # Enough of the mutations must pass for their pictures to be a test of anything.
    assert len(pairs) == told["converted"] > _COUNT / 10
    verdicts = zip(pairs, chromium.compare_all(pairs), strict=True)
    wrong = [fault for pair, verdict in verdicts for fault in _faults(*pair, verdict, chromium)]
    assert wrong == []


def _faults(original: bytes, sidecar: bytes, verdict: Verdict, chromium: Chromium) -> list[str]:
    name = f"mutation {original[:400].hex()} ({len(original)} bytes)"
    if not verdict.same() and not _is_only_lossy_coding(original, sidecar, verdict, chromium):
        return [f"{name}: {verdict}"]
    if b"acTL" in original and verdict.original_shown:
        played, shown = chromium.play(original), chromium.play(sidecar)
        if played is None or shown is None:
            return [f"{name}: is not played"]
        return [f"{name}: {difference}" for difference in differences(played, shown, worst_block=20)]
    return []


def _is_only_lossy_coding(original: bytes, sidecar: bytes, verdict: Verdict, chromium: Chromium) -> bool:
    """Whether the sidecar is what WebP makes of the very pixels that Chromium shows of the original.

    Garbage is hard to code: blocks of wild colours next to one another differ far beyond what real pictures do.
    """
    if not (verdict.original_shown and verdict.sidecar_shown and verdict.same_size):
        return False
    # Where the sidecar keeps a profile the coder works in its colour space: the pixels are wanted as they are there.
    with Image.open(BytesIO(sidecar)) as kept:
        profile = kept.info.get("icc_profile")
    bare = original
    for name in (b"ICC_PROFILE", b"iCCP", b"gAMA", b"cICP") if profile else ():
        bare = bare.replace(name, name[:-1] + b"X")
    shown = chromium.show(bare)
    assert shown is not None
    quality = _QUALITY
    if original.startswith(jpeg.SIGNATURE):
        quality = jpeg_quality(jpeg.decode(jpeg.read(original))[1], _QUALITY)
    coded = BytesIO()
    picture = Image.frombytes("RGBA", (shown.width, shown.height), shown.rgba)
    picture.save(coded, "WEBP", quality=quality, method=2, icc_profile=profile)
    return chromium.compare(coded.getvalue(), sidecar).same()
