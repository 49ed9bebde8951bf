"""Where a value comes from, and what is said of a wrong one."""

from pathlib import Path

import pytest

from tests.conftest import write
from webpd.errors import UsageError
from webpd.settings import Owner, Settings, load


def test_flags_beat_the_environment_which_beats_the_file_which_beats_the_defaults(tmp_path: Path) -> None:
    file = str(write(tmp_path / "a.toml", b"quality = 10\nmethod = 1\nworkers = 3"))
    loaded = load({"quality": "30"}, {"WEBPD_QUALITY": "20", "WEBPD_METHOD": "2"}, file)
    assert (loaded.settings.quality, loaded.settings.method, loaded.settings.workers) == (30, 2, 3)
    assert loaded.settings.mode == 0o644
    assert loaded.origin["quality"] == "--quality"
    assert loaded.origin["method"] == "WEBPD_METHOD"
    assert loaded.origin["workers"] == f"{file}: workers"
    assert loaded.origin["mode"] == "default"


@pytest.mark.parametrize(
    ("variable", "text", "option", "value"),
    [
        ("WEBPD_ROOTS", "/a, /b", "roots", ("/a", "/b")),
        ("WEBPD_ROOTS", '["/a,b", "/c"]', "roots", ("/a,b", "/c")),
        ("WEBPD_OWNER", "33:34", "owner", Owner(33, 34)),
        ("WEBPD_OWNER", "root:root", "owner", Owner(0, 0)),
        ("WEBPD_OWNER", "keep", "owner", None),
        ("WEBPD_MODE", "0640", "mode", 0o640),
        ("WEBPD_WORKERS", "auto", "workers", None),
        ("WEBPD_WORKERS", "7", "workers", 7),
        ("WEBPD_WORKER_MEMORY", "1.5GiB", "worker_memory", 1_610_612_736),
        ("WEBPD_JOB_TIMEOUT", "2m", "job_timeout", 120.0),
        ("WEBPD_JOB_TIMEOUT", "90", "job_timeout", 90.0),
        ("WEBPD_EXCLUDE", "", "exclude", ()),
    ],
)
def test_values_are_read_as_people_write_them(variable: str, text: str, option: str, value: object) -> None:
    assert getattr(load({}, {variable: text}).settings, option) == value


@pytest.mark.parametrize(
    ("variable", "text"),
    [
        ("WEBPD_QUALITY", "-1"),
        ("WEBPD_QUALITY", "80.5"),
        ("WEBPD_METHOD", "7"),
        ("WEBPD_OWNER", "33"),
        ("WEBPD_OWNER", "33:no-such-group"),
        ("WEBPD_OWNER", "99999999999:33"),
        ("WEBPD_ROOTS", ""),
        ("WEBPD_MODE", "9"),
        ("WEBPD_MODE", "07777"),
        ("WEBPD_WORKER_MEMORY", "many"),
        ("WEBPD_WORKER_MEMORY", "1MiB"),
        ("WEBPD_JOB_TIMEOUT", "soon"),
        ("WEBPD_FSYNC", "sometimes"),
        ("WEBPD_ROOTS", '["/a"'),
        ("WEBPD_MAX_PIXELS", "0"),
    ],
)
def test_a_wrong_value_names_the_variable_the_value_and_what_is_allowed(variable: str, text: str) -> None:
    with pytest.raises(UsageError) as error:
        load({}, {variable: text})
    assert str(error.value).startswith(f"{variable}={text}: allowed is ")
    assert "\n" not in str(error.value)


def test_an_option_that_does_not_exist_is_refused_in_a_file_and_told_of_the_environment(tmp_path: Path) -> None:
    file = str(write(tmp_path / "a.toml", b"qualty = 10"))
    with pytest.raises(UsageError, match="qualty: there is no such option"):
        load({}, {}, file)
    assert load({}, {"WEBPD_QUALTY": "1", "WEBPD_CONFIG": ""}).unknown == ("WEBPD_QUALTY",)


def test_a_file_that_is_not_toml_is_named(tmp_path: Path) -> None:
    file = str(write(tmp_path / "a.toml", b"quality : 10"))
    with pytest.raises(UsageError, match=r"a\.toml: not valid TOML"):
        load({}, {"WEBPD_CONFIG": file})
    with pytest.raises(UsageError, match="not valid TOML"):
        load({}, {}, str(write(tmp_path / "b.toml", b"owner = '\xff'")))


def test_a_mode_in_a_file_is_a_string_so_that_no_decimal_number_is_taken_for_one(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="octal mode"):
        load({}, {}, str(write(tmp_path / "a.toml", b"mode = 644")))


def test_roots_inside_one_another_are_refused_also_through_a_link(tmp_path: Path) -> None:
    (tmp_path / "a" / "b").mkdir(parents=True)
    (tmp_path / "link").symlink_to("a")
    for roots in ((tmp_path / "a", tmp_path / "a" / "b"), (tmp_path / "a" / "b", tmp_path / "link"), (tmp_path,) * 2):
        with pytest.raises(UsageError, match="lies inside"):
            load({}, {"WEBPD_ROOTS": ",".join(map(str, roots))})
    (tmp_path / "ab").mkdir()
    load({}, {"WEBPD_ROOTS": f"{tmp_path}/a,{tmp_path}/ab"})


def test_every_option_says_what_it_is_and_what_is_allowed() -> None:
    for name, field in Settings.model_fields.items():
        assert field.description, name
        assert isinstance(field.json_schema_extra, dict), name
        assert field.json_schema_extra["allowed"], name
