"""``webpd convert`` as an administrator runs it."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.conftest import Ended, write
from webpd.tree import publisher

Webpd = Callable[..., Ended]
MTIME = 1_600_000_000.5


def balanced(result: dict[str, object]) -> bool:
    """Tell whether every original that was found has exactly one outcome."""
    skipped = result["skipped"]
    assert isinstance(skipped, dict)
    parts = (result["converted"], result["fresh"], result["kept_original"], *skipped.values(), result["failed_total"])
    return result["found"] == sum(part for part in parts if isinstance(part, int))


@pytest.fixture
def tree(tmp_path: Path, photograph: Callable[..., bytes]) -> Path:
    root = tmp_path / "resize_cache"
    for number in range(12):
        folder = root / "iblock" / f"{number % 3:03x}" / f"{80 + number}_200_1"
        write(folder / f"photo{number}.jpg", photograph(80 + number), MTIME)
    return root


def test_every_image_gets_its_sidecar_and_a_second_run_finds_them_fresh(webpd: Webpd, tree: Path) -> None:
    first = webpd("convert", "--json", tree)
    assert first.code == 0, first.err
    assert first.json["converted"] == first.json["found"] == 12
    assert balanced(first.json)
    assert 0 < first.json["webp_bytes"] < first.json["source_bytes"]
    assert len(list(tree.rglob("*.jpg.webp"))) == 12
    second = webpd("convert", "--json", tree)
    assert (second.code, second.json["fresh"], second.json["converted"]) == (0, 12, 0)


def test_the_json_has_exactly_the_promised_fields(webpd: Webpd, tree: Path) -> None:
    assert list(webpd("convert", "--json", tree).json) == [
        "found",
        "converted",
        "fresh",
        "kept_original",
        "skipped",
        "failed",
        "failed_total",
        "interrupted",
        "source_bytes",
        "webp_bytes",
        "seconds",
    ]


def test_what_cannot_be_converted_is_told_by_reason_and_the_rest_is_done(
    webpd: Webpd, tree: Path, photograph: Callable[..., bytes]
) -> None:
    write(tree / "page.jpg", b"<!DOCTYPE html><title>404</title>")
    write(tree / "empty.png", b"")
    write(tree / "cut.jpg", photograph()[:2000])
    write(tree / f"{'n' * 250}.jpg", photograph())
    write(tree / "taken.jpg", photograph())
    write(tree / "taken.jpg.webp", b"merchant's own", MTIME)
    done = webpd("convert", "--json", tree)
    assert done.code == 1
    assert done.json["converted"] == 12
    assert done.json["skipped"] == {"not_an_image": 1, "empty": 1, "name_too_long": 1, "foreign_sidecar": 1}
    assert [(os.path.basename(one["path"]), one["reason"]) for one in done.json["failed"]] == [("cut.jpg", "damaged")]
    assert balanced(done.json)


def test_skipped_images_alone_are_no_failure(webpd: Webpd, tree: Path) -> None:
    write(tree / "page.jpg", b"<html>")
    assert webpd("convert", tree).code == 0


def test_the_summary_for_people_names_failures_and_sums(
    webpd: Webpd, tree: Path, photograph: Callable[..., bytes]
) -> None:
    write(tree / "cut.jpg", photograph()[:2000])
    done = webpd("convert", tree)
    assert "13 images found" in done.out
    assert "saved" in done.out
    assert f"{tree}/cut.jpg: damaged: " in done.out


def test_names_that_are_not_utf8_or_break_lines_are_converted_and_escaped(
    webpd: Webpd, tree: Path, photograph: Callable[..., bytes]
) -> None:
    folder = os.fsencode(tree)
    for name in (b"caf\xe9.jpg", b"new\nline.jpg", b"$(touch x) 'q\".jpg", "имя ж.jpg".encode()):
        with open(os.path.join(folder, name), "wb") as file:
            file.write(photograph())
    with open(os.path.join(folder, b"bad\xff.jpg"), "wb") as file:
        file.write(photograph()[:500])
    done = webpd("convert", "--json", tree)
    assert done.json["converted"] == 16
    assert os.path.exists(os.path.join(folder, b"caf\xe9.jpg.webp"))
    assert done.json["failed"][0]["path"].endswith("/bad\\xff.jpg")


def test_single_images_and_several_folders_can_be_named(webpd: Webpd, tree: Path) -> None:
    one = next(tree.rglob("photo0.jpg"))
    assert webpd("convert", "--json", one).json["converted"] == 1
    folders = sorted((tree / "iblock").iterdir())
    assert webpd("convert", "--json", *folders).json["converted"] == 11


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (("--quality", "101"), "--quality=101: allowed is a whole number, 0 to 100"),
        (("--method", "fast"), "--method=fast: allowed is a whole number, 0 to 6"),
        (("--workers", "0"), "--workers=0: allowed is auto, or a whole number, 1 to 256"),
        (("--owner", "nobody-there:33"), "--owner=nobody-there:33: allowed is USER:GROUP, or keep"),
        (("--config", "/nothing.toml"), "/nothing.toml: the settings file can't be read: No such file"),
    ],
)
def test_a_wrong_value_is_one_line_that_names_it_and_what_is_allowed(
    webpd: Webpd, tree: Path, arguments: tuple[str, ...], told: str
) -> None:
    done = webpd("convert", *arguments, tree)
    assert done.code == 2
    assert done.err.startswith(f"webpd: {told}")
    assert done.err.count("\n") == 1


def test_nested_folders_are_wrong_usage(webpd: Webpd, tree: Path) -> None:
    for pair in ((tree, tree / "iblock"), (tree / "iblock", tree), (tree, f"{tree}/."), (".", ".")):
        done = webpd("convert", *pair)
        assert done.code == 2
        assert "lies inside" in done.err


def test_an_empty_path_and_an_empty_list_of_roots_are_wrong_usage(webpd: Webpd) -> None:
    assert webpd("convert", "").code == 2
    assert webpd("convert", WEBPD_ROOTS="").code == 2


def test_a_link_to_an_image_can_be_named(webpd: Webpd, tree: Path) -> None:
    (tree / "link.jpg").symlink_to("iblock/000/80_200_1/photo0.jpg")
    assert webpd("convert", "--json", tree / "link.jpg").json["converted"] == 1


def test_a_left_over_that_cannot_be_removed_does_not_stop_the_pass(webpd: Webpd, tree: Path) -> None:
    (tree / ".webpd-00000000-1-2-3.tmp").mkdir()
    odd = write(tree / f".webpd-{publisher._host()}-4194303-1-0.tmp", b"left")
    subprocess.run(["chattr", "+i", str(odd)], check=True)
    try:
        done = webpd("convert", "--json", tree)
    finally:
        subprocess.run(["chattr", "-i", str(odd)], check=True)
    assert (done.code, done.json["converted"]) == (0, 12)
    assert "left where it is" in done.err


def test_a_dry_run_counts_what_the_flags_would_touch(webpd: Webpd, tree: Path) -> None:
    webpd("convert", tree)
    told = webpd("convert", "--dry-run", "--json", "--quality", "30", "--reconvert-changed", tree).json
    assert told["sampled_results"] == {"converted": 12}
    assert told["saved_bytes"] > 0


def test_a_folder_that_is_not_there_is_an_unfit_environment(webpd: Webpd, tmp_path: Path) -> None:
    done = webpd("convert", tmp_path / "nothing")
    assert (done.code, done.err) == (3, f"webpd: {tmp_path}/nothing: no such file or folder (is it mounted?)\n")


def test_a_file_that_is_no_image_by_its_name_is_wrong_usage(webpd: Webpd, tmp_path: Path) -> None:
    done = webpd("convert", write(tmp_path / "notes.txt", b"x"))
    assert done.code == 2
    assert ".jpg, .jpeg or .png" in done.err


def test_without_a_path_the_roots_of_the_settings_are_converted(webpd: Webpd, tree: Path) -> None:
    assert webpd("convert", "--json", WEBPD_ROOTS=str(tree)).json["converted"] == 12


def test_a_dry_run_writes_nothing_and_foretells_what_the_run_then_does(webpd: Webpd, tree: Path) -> None:
    before = sorted(tree.rglob("*"))
    told = webpd("convert", "--dry-run", "--json", tree).json
    assert sorted(tree.rglob("*")) == before
    done = webpd("convert", "--json", tree).json
    assert (told["found"], told["originals"], told["sampled"]) == (12, 12, 12)
    assert told["source_bytes"] == done["source_bytes"]
    assert told["saved_bytes"] == done["source_bytes"] - done["webp_bytes"]


def test_foreign_sidecars_and_other_settings_are_replaced_on_request(
    webpd: Webpd, tree: Path, photograph: Callable[..., bytes]
) -> None:
    taken = write(tree / "taken.jpg", photograph())
    write(tree / "taken.jpg.webp", b"merchant's own", MTIME)
    assert webpd("convert", "--json", tree).json["skipped"] == {"foreign_sidecar": 1}
    assert webpd("convert", "--json", "--overwrite-foreign", tree).json["converted"] == 1
    assert webpd("convert", "--json", "--quality", "30", tree).json["fresh"] == 13
    assert webpd("convert", "--json", "--quality", "30", "--reconvert-changed", tree).json["converted"] == 13
    assert webpd("convert", "--json", "--quality", "30", "--reconvert-changed", tree).json["fresh"] == 13
    assert taken.exists()


def test_the_owner_and_mode_of_the_settings_are_given(webpd: Webpd, tree: Path) -> None:
    webpd("convert", "--owner", "12:34", tree, WEBPD_MODE="0640")
    for sidecar in tree.rglob("*.webp"):
        stat = sidecar.stat()
        assert (stat.st_uid, stat.st_gid, stat.st_mode & 0o777) == (12, 34, 0o640)


def test_a_full_disk_ends_the_pass_with_what_to_do_and_what_was_done(
    webpd: Webpd, tmpfs: Callable[[str], Path], photograph: Callable[..., bytes]
) -> None:
    folder = tmpfs("size=512k")
    data = photograph(240)
    for number in range(400 * 1024 // (len(data) + 4096)):
        write(folder / f"{number}.jpg", data)
    with open(folder / "filler", "wb") as filler:
        room = os.statvfs(folder)
        filler.write(bytes(max(0, room.f_bavail * room.f_frsize - 20_000)))
    done = webpd("convert", "--json", "--workers", "1", folder)
    assert done.code == 3
    assert "No space left on device: the disk is full" in done.err
    assert balanced(done.json)
    assert not list(folder.glob(".webpd*"))
    assert all(sidecar.stat().st_size for sidecar in folder.glob("*.webp"))


def test_help_and_version_import_nothing_heavy() -> None:
    for option in ("--version", "--help"):
        done = subprocess.run(
            [sys.executable, "-X", "importtime", "-m", "webpd", option], capture_output=True, text=True, check=True
        )
        imported = {line.rpartition("|")[2].strip() for line in done.stderr.splitlines()}
        assert "webpd.cli" in imported
        assert not {name.split(".")[0] for name in imported} & {"PIL", "redis", "starlette", "uvicorn", "watchdog"}


def test_every_command_has_help_with_examples(webpd: Webpd) -> None:
    for command in ("convert", "run", "verify", "prune", "config"):
        done = webpd(command, "--help")
        assert done.code == 0
        assert "Examples:\n" in done.out
        assert f"webpd {command}" in done.out


def test_an_unknown_option_is_wrong_usage(webpd: Webpd) -> None:
    assert webpd("convert", "--qualty", "3").code == 2


def test_a_variable_that_is_no_option_is_warned_of(webpd: Webpd, tree: Path) -> None:
    done = webpd("convert", tree, WEBPD_QUALTY="3")
    assert done.code == 0
    assert "WEBPD_QUALTY is set, but there is no such option" in done.err


def test_a_closed_output_does_not_end_in_a_traceback(tree: Path) -> None:
    command = f"{sys.executable} -m webpd config | head -c 1"
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True, check=False)
    assert "Traceback" not in done.stderr


def test_config_tells_each_value_and_where_it_came_from(webpd: Webpd, tmp_path: Path) -> None:
    file = write(tmp_path / "webpd.toml", b'quality = 70\nmethod = 6\nowner = "keep"\n')
    rows = webpd("config", "--json", "--config", file, WEBPD_METHOD="2").json
    by_name = {row["option"]: (row["value"], row["origin"]) for row in rows}
    assert by_name["quality"] == ("70", f"{file}: quality")
    assert by_name["method"] == ("2", "WEBPD_METHOD")
    assert by_name["owner"] == ("keep", f"{file}: owner")
    assert by_name["mode"] == ("0644", "default")
    assert "WEBPD_QUALITY=70" in webpd("config", "--config", file).out


def test_what_config_prints_can_be_put_into_the_environment_again(webpd: Webpd) -> None:
    rows = webpd("config", "--json").json
    again = webpd("config", "--json", **{row["variable"]: row["value"] for row in rows}).json
    assert [row["value"] for row in rows] == [row["value"] for row in again]


def test_progress_is_plain_lines_where_there_is_no_terminal_and_json_is_alone_on_its_stream(
    webpd: Webpd, tree: Path
) -> None:
    done = webpd("convert", "--json", tree)
    assert done.err == ""
    assert len(done.out.splitlines()) == 1
    json.loads(done.out)
