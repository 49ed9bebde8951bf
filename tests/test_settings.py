"""Where a value comes from, and what is said of a wrong one."""

from pathlib import Path

import pytest

from tests.conftest import write
from webpd.errors import UsageError
from webpd.settings import Address, Owner, Rate, RedisUrl, Settings, Site, Token, load, refuse_nested, shown, site_of

REDIS = "redis://webpd:secret@127.0.0.1:6379/0"


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
        ("WEBPD_IO_THREADS", "auto", "io_threads", None),
        ("WEBPD_IO_THREADS", "64", "io_threads", 64),
        ("WEBPD_STATE_DIR", "auto", "state_dir", None),
        ("WEBPD_STATE_DIR", "/srv/state", "state_dir", "/srv/state"),
        ("WEBPD_WATCH", "poll", "watch", "poll"),
        ("WEBPD_POLL_INTERVAL", "0.1", "poll_interval", 0.1),
        ("WEBPD_POLL_INTERVAL", "5m", "poll_interval", 300.0),
        ("WEBPD_FULL_INTERVAL", "1d", "full_interval", 86_400.0),
        ("WEBPD_SETTLE", "0", "settle", 0.0),
        ("WEBPD_SETTLE", "0.5s", "settle", 0.5),
        ("WEBPD_CACHE_TIME", "auto", "cache_time", None),
        ("WEBPD_CACHE_TIME", "0", "cache_time", 0.0),
        ("WEBPD_CACHE_TIME", "20s", "cache_time", 20.0),
        ("WEBPD_RATE_LIMIT", "none", "rate_limit", None),
        ("WEBPD_RATE_LIMIT", "600/minute", "rate_limit", Rate(600, 60)),
        ("WEBPD_RATE_LIMIT_BYTES", "none", "rate_limit_bytes", None),
        ("WEBPD_RATE_LIMIT_BYTES", "100MiB/minute", "rate_limit_bytes", Rate(102_400, 60, "KiB")),
        ("WEBPD_RATE_LIMIT_BYTES", "1 GiB/hour", "rate_limit_bytes", Rate(1 << 20, 3600, "KiB")),
        ("WEBPD_RATE_LIMIT_URGENT", "0", "rate_limit_urgent", 0),
        ("WEBPD_ROLE", "watch", "role", "watch"),
        ("WEBPD_HOST_NAME", "auto", "host_name", None),
        ("WEBPD_HOST_NAME", "cdn1", "host_name", "cdn1"),
        ("WEBPD_REDIS_URL", "none", "redis_url", None),
        ("WEBPD_REDIS_URL", "redis://webpd:secret@127.0.0.1:6379/0", "redis_url", REDIS),
        ("WEBPD_QUEUE_URL", "rediss://redis.example:6380", "queue_url", "rediss://redis.example:6380"),
        ("WEBPD_QUEUE_URL", "unix:///run/redis.sock", "queue_url", "unix:///run/redis.sock"),
        ("WEBPD_PRUNE_AFTER", "1h", "prune_after", 3600.0),
        ("WEBPD_PRUNE_FOLDERS_AFTER", "10m", "prune_folders_after", 600.0),
        ("WEBPD_PRUNE_SHARE", "0", "prune_share", 0),
        ("WEBPD_HEALTH_ADDRESS", "off", "health_address", None),
        ("WEBPD_HEALTH_ADDRESS", "0.0.0.0:80", "health_address", Address("0.0.0.0", 80)),  # noqa: S104 - not bound
        ("WEBPD_METRICS_ADDRESS", "[::1]:0", "metrics_address", Address("::1", 0)),
        ("WEBPD_METRICS_ADDRESS", ":9101", "metrics_address", Address("127.0.0.1", 9101)),
        ("WEBPD_TOKEN", "none", "token", None),
        ("WEBPD_TOKEN", "0123456789abcdef", "token", "0123456789abcdef"),
        ("WEBPD_TOKEN", "c2VjcmV0IHNlY3JldCE=", "token", "c2VjcmV0IHNlY3JldCE="),
        (
            "WEBPD_ALLOWED_HOSTS",
            "cdn.example.ru,10.0.0.1,[::1]",
            "allowed_hosts",
            ("cdn.example.ru", "10.0.0.1", "[::1]"),
        ),
        ("WEBPD_ALLOWED_HOSTS", "CDN.example", "allowed_hosts", ("cdn.example",)),
        ("WEBPD_SHUTDOWN_TIMEOUT", "0", "shutdown_timeout", 0.0),
        ("WEBPD_LOG_FORMAT", "json", "log_format", "json"),
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
        ("WEBPD_IO_THREADS", "0"),
        ("WEBPD_IO_THREADS", "1025"),
        ("WEBPD_WATCH", "fanotify"),
        ("WEBPD_POLL_INTERVAL", "0"),
        ("WEBPD_POLL_INTERVAL", "-5"),
        ("WEBPD_POLL_INTERVAL", "1w"),
        ("WEBPD_FULL_INTERVAL", "0.5"),
        ("WEBPD_SETTLE", "2h"),
        ("WEBPD_CACHE_TIME", "none"),
        ("WEBPD_RATE_LIMIT", "600"),
        ("WEBPD_RATE_LIMIT", "0/minute"),
        ("WEBPD_RATE_LIMIT", "600/minutes"),
        ("WEBPD_RATE_LIMIT_BYTES", "100/minute"),
        ("WEBPD_RATE_LIMIT_BYTES", "100MB/minute"),
        ("WEBPD_RATE_LIMIT_BYTES", "0KiB/minute"),
        ("WEBPD_RATE_LIMIT_URGENT", "101"),
        ("WEBPD_ROLE", "convert"),
        ("WEBPD_REDIS_URL", "127.0.0.1:6379"),
        ("WEBPD_REDIS_URL", "http://127.0.0.1"),
        ("WEBPD_QUEUE_URL", "redis://"),
        ("WEBPD_PRUNE_AFTER", "0"),
        ("WEBPD_PRUNE_FOLDERS_AFTER", "31d"),
        ("WEBPD_PRUNE_SHARE", "101"),
        ("WEBPD_PRUNE_SHARE", "20%"),
        ("WEBPD_HEALTH_ADDRESS", "8088"),
        ("WEBPD_HEALTH_ADDRESS", "localhost:http"),
        ("WEBPD_METRICS_ADDRESS", "localhost:65536"),
        ("WEBPD_ALLOWED_HOSTS", "*"),
        ("WEBPD_ALLOWED_HOSTS", "localhost:8088"),
        ("WEBPD_ALLOWED_HOSTS", "::1"),
        ("WEBPD_SHUTDOWN_TIMEOUT", "2h"),
        ("WEBPD_LOG_FORMAT", "xml"),
    ],
)
def test_a_wrong_value_names_the_variable_the_value_and_what_is_allowed(variable: str, text: str) -> None:
    with pytest.raises(UsageError) as error:
        load({}, {variable: text})
    assert str(error.value).startswith(f"{variable}={text}: allowed is ")
    assert "\n" not in str(error.value)


def test_an_empty_variable_counts_as_not_set_but_that_no_folder_may_be_excluded(tmp_path: Path) -> None:
    environ = {f"WEBPD_{name.upper()}": "" for name in Settings.model_fields if name != "roots"}
    file = str(write(tmp_path / "a.toml", b"quality = 10\nexclude = ['x']"))
    loaded = load({}, environ, file)
    assert loaded.settings == Settings(quality=10, exclude=())
    assert (loaded.origin["quality"], loaded.origin["owner"]) == (f"{file}: quality", "default")


def test_the_password_of_a_redis_is_never_shown() -> None:
    assert shown("redis_url", load({}, {"WEBPD_REDIS_URL": REDIS}).settings.redis_url) == (
        "redis://webpd:***@127.0.0.1:6379/0"
    )
    assert RedisUrl("unix:///run/r.sock?db=1&password=secret&x=1").public == "unix:///run/r.sock?db=1&password=***&x=1"
    assert RedisUrl("redis://:secret@host").public == "redis://:***@host"
    with pytest.raises(UsageError) as error:
        load({}, {"WEBPD_REDIS_URL": "reddis://:secret@127.0.0.1"})
    assert "secret" not in str(error.value)


def test_the_token_is_never_shown() -> None:
    assert shown("token", load({}, {"WEBPD_TOKEN": "0123456789secret"}).settings.token) == "***"
    for wrong in ("secret", "secret secret secret", "secret-" * 40, "secret-секрет-секрет"):
        with pytest.raises(UsageError, match=r"^WEBPD_TOKEN=\*\*\*: allowed is none, or 16") as error:
            load({}, {"WEBPD_TOKEN": wrong})
        assert "secret" not in str(error.value)


def test_a_token_in_a_file_is_a_string(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="allowed is none, or 16"):
        load({}, {}, str(write(tmp_path / "a.toml", b"token = 1234567890123456")))
    file = str(write(tmp_path / "b.toml", b"token = '1234567890123456'"))
    assert load({}, {}, file).settings.token == Token("1234567890123456")


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
            refuse_nested(tuple(map(str, roots)), "PATH")
    for roots in ((tmp_path / "a", tmp_path / "a" / "b"), (tmp_path,) * 2):  # by their names alone
        with pytest.raises(UsageError, match="lies inside"):
            load({}, {"WEBPD_ROOTS": ",".join(map(str, roots))})
    (tmp_path / "ab").mkdir()
    load({}, {"WEBPD_ROOTS": f"{tmp_path}/a,{tmp_path}/ab"})


def test_two_servers_at_one_address_are_refused_but_for_ports_that_are_to_be_found() -> None:
    same = {"WEBPD_HEALTH_ADDRESS": "127.0.0.1:9000", "WEBPD_METRICS_ADDRESS": "127.0.0.1:9000"}
    with pytest.raises(UsageError, match=r"^WEBPD_METRICS_ADDRESS=127\.0\.0\.1:9000: WEBPD_HEALTH_ADDRESS is the same"):
        load({}, same)
    with pytest.raises(UsageError, match=r"^WEBPD_HEALTH_ADDRESS=127\.0\.0\.1:9101: WEBPD_METRICS_ADDRESS is the same"):
        load({}, {"WEBPD_HEALTH_ADDRESS": "127.0.0.1:9101"})
    load({}, {"WEBPD_HEALTH_ADDRESS": "127.0.0.1:0", "WEBPD_METRICS_ADDRESS": "127.0.0.1:0"})
    load({}, {"WEBPD_HEALTH_ADDRESS": "off", "WEBPD_METRICS_ADDRESS": "off"})


def test_every_option_says_what_it_is_and_what_is_allowed() -> None:
    for name, field in Settings.model_fields.items():
        assert field.description, name
        assert isinstance(field.json_schema_extra, dict), name
        assert field.json_schema_extra["allowed"], name


def test_what_is_shown_of_a_value_can_be_set_as_it_is() -> None:
    variables = {
        "WEBPD_OWNER": "keep",
        "WEBPD_RATE_LIMIT": "600/minute",
        "WEBPD_RATE_LIMIT_BYTES": "5GiB/day",
        "WEBPD_REDIS_URL": "redis://127.0.0.1:6379/1",
        "WEBPD_HOST_NAME": "cdn1",
        "WEBPD_CACHE_TIME": "0.5",
        "WEBPD_HEALTH_ADDRESS": "[::1]:8088",
        "WEBPD_METRICS_ADDRESS": "off",
        "WEBPD_STATE_DIR": "/srv/state",
        "WEBPD_PRUNE_AFTER": "1h",
    }
    for environ in ({}, variables):
        settings = load({}, environ).settings
        written = {f"WEBPD_{name.upper()}": shown(name, value) for name, value in settings}
        assert load({}, written).settings == settings


def test_a_long_time_is_shown_as_it_can_be_set() -> None:
    settings = load({}, {"WEBPD_FULL_INTERVAL": "30d"}).settings
    assert load({}, {"WEBPD_FULL_INTERVAL": shown("full_interval", settings.full_interval)}).settings == settings


def test_numbers_in_a_file_need_no_quotes(tmp_path: Path) -> None:
    lines = (
        "poll_interval = 7\nsettle = 0.5\nprune_share = 0\ncache_time = 'auto'\nhealth_address = 'off'\nwatch = 'poll'"
    )
    settings = load({}, {}, str(write(tmp_path / "a.toml", lines.encode()))).settings
    assert (settings.poll_interval, settings.settle, settings.prune_share) == (7.0, 0.5, 0)
    assert (settings.cache_time, settings.health_address, settings.watch) == (None, None, "poll")


def test_the_service_listens_on_this_host_alone_unless_told_otherwise() -> None:
    settings = load({}, {}).settings
    assert (settings.health_address, settings.metrics_address) == (
        Address("127.0.0.1", 8088),
        Address("127.0.0.1", 9101),
    )


@pytest.mark.parametrize(
    ("given", "root", "document_root", "url"),
    [
        ("auto", "/var/www/cdn/upload/resize_cache", "/var/www/cdn", "/upload/resize_cache"),
        ("auto", "/home/bitrix/www/upload", "/home/bitrix/www", "/upload"),
        ("auto", "/srv/upload/shop/upload/resize_cache", "/srv/upload/shop", "/upload/resize_cache"),
        ("auto", "/upload", "/", "/upload"),
        ("auto", "/srv/pictures", "/srv", "/pictures"),
        ("/srv", "/srv/shop/upload", "/srv", "/shop/upload"),
        ("/", "/upload", "/", "/upload"),
    ],
)
def test_a_site_serves_a_root_from_the_folder_that_holds_its_upload(
    given: str, root: str, document_root: str, url: str
) -> None:
    settings = load({}, {"WEBPD_DOCUMENT_ROOT": given}).settings
    assert site_of(settings, root) == Site(root, document_root, url)


def test_a_root_outside_the_document_root_is_refused_by_name() -> None:
    settings = load({}, {"WEBPD_DOCUMENT_ROOT": "/srv/a"}).settings
    with pytest.raises(UsageError, match="WEBPD_DOCUMENT_ROOT=/srv/a: the root /srv/ab is not inside"):
        site_of(settings, "/srv/ab")


@pytest.mark.parametrize(
    ("path", "file"),
    [
        ("/upload/a/b.jpg", "/srv/upload/a/b.jpg"),
        ("/upload/../etc/b.jpg", None),
        ("/upload//b.jpg", None),
        ("/upload/", None),
        ("/uploads/b.jpg", None),
        ("/upload/a\0.jpg", None),
    ],
)
def test_only_paths_below_a_root_lead_to_its_files(path: str, file: str | None) -> None:
    assert Site("/srv/upload", "/srv", "/upload").file_of(path) == file
