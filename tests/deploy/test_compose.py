"""The files for Docker, as far as they can be read without an engine: form, references, settings."""

import json
import os
import re
import shutil
import subprocess
from fnmatch import fnmatch
from pathlib import Path

import pytest
import yaml
from compose_spec import PyCompose

from tests.conftest import WEBPD, write
from tests.deploy.compose import (
    COMPOSE,
    DOCKERFILE,
    DOCKERFILES,
    EXAMPLE,
    REPOSITORY,
    SECRET,
    SECRETS,
    SERVICES,
    VARIABLE,
    composed,
    interpolated,
    mounted,
)
from webpd.settings import Settings, load, site_of, state_dir


def test_compose_takes_the_file() -> None:
    for values in ({}, {"WEBPD_SITE": "/srv/кэш site", "COMPOSE_PROFILES": "sshfs", "SSHFS_SOURCE": "a@b:/c"}):
        whole = composed(**values)
        for service in whole["services"].values():
            service["cpus"] = float(service["cpus"])  # this parser takes no text and no whole number; Compose does
        project = PyCompose.from_json(json.dumps(whole))
        project.validate()
        assert set(project.service_names()) == set(whole["services"])


def test_every_variable_is_explained_and_every_one_explained_is_used() -> None:
    used = {found[1]: (found[2], found[3]) for found in VARIABLE.finditer(COMPOSE)}
    explained = dict(re.findall(r"^#?([A-Z_]+)=(.*)$", EXAMPLE, re.MULTILINE))
    assert set(used) | {"COMPOSE_PROFILES"} == set(explained)  # which is Compose' own
    for found in VARIABLE.finditer(COMPOSE):
        name, sign, word = found.groups()
        assert (sign == ":?") == (name in SECRETS), name
        if sign == ":-" and name != "SSHFS_SOURCE":  # there is no default for another's host
            assert word == explained[name], name
    needed = set(re.findall(r"^([A-Z_]+)=", EXAMPLE, re.MULTILINE))
    assert needed == SECRETS
    for name in explained:
        before = EXAMPLE.partition(f"{name}=")[0].rstrip("#").splitlines()[-1]
        assert before.startswith(("# ", "#")), f"{name} has no word of explanation"


def test_without_its_secrets_nothing_starts() -> None:
    for name in SECRETS:
        with pytest.raises(AssertionError, match=f"{name} is not set"):
            interpolated(yaml.safe_load(COMPOSE), dict.fromkeys(SECRETS - {name}, SECRET))


def test_no_file_holds_a_secret() -> None:
    assert all(re.search(rf"^{name}=$", EXAMPLE, re.MULTILINE) for name in SECRETS)
    for name, service in SERVICES.items():
        for variable, value in service.get("environment", {}).items():
            if re.search("TOKEN|PASSWORD|SECRET|KEY", variable):
                assert value == SECRET, f"{name}: {variable}"
    text = "".join(file.read_text("utf-8") for file in (*DOCKERFILES, *(REPOSITORY / "deploy" / "docker").iterdir()))
    assert not re.search(r"(?i)(password|token|secret)\w* *[=:] *[\"']?\w{8}", text)


def test_every_file_that_is_named_is_there() -> None:
    for name, service in SERVICES.items():
        for source in mounted(name).values():
            if source.startswith("./"):
                assert (REPOSITORY / source).exists(), source
            elif not source.startswith("/"):
                assert source in composed()["volumes"], source
        build = service.get("build", {})
        assert (REPOSITORY / build.get("context", ".") / build.get("dockerfile", "Dockerfile")).is_file()
    used = {source for name in SERVICES for source in mounted(name).values()}
    assert set(composed()["volumes"]) <= used


def test_all_containers_are_sealed_limited_and_watched() -> None:
    for name, service in SERVICES.items():
        assert service["read_only"] is True, name
        assert service["cap_drop"] == ["ALL"], name
        assert service.get("cap_add", []) == (["SYS_ADMIN"] if name == "sshfs" else []), name
        assert "no-new-privileges:true" in service["security_opt"], name
        assert not service.get("privileged"), name
        assert {"cpus", "mem_limit", "pids_limit", "logging"} <= set(service), name
        if name != "webpd":  # which .env has
            assert float(service["cpus"]) <= 1, f"{name} can't be started on a host of one core"
        assert ("healthcheck" in service) != (name == "webpd"), name  # whose image has one
        named = re.fullmatch(r"(?:[\w-]+/)?[\w-]+:(?:v?\d+\.\d+[\w.-]*|local)", service["image"])
        assert named, service["image"]
        assert service["image"].endswith(":local") == ("build" in service), name
    assert "HEALTHCHECK" in DOCKERFILE


def test_nginx_may_start_all_its_processes() -> None:
    """Which "auto" would not have: it goes by the cores of the host."""
    text = (REPOSITORY / "deploy" / "docker" / "nginx.conf").read_text("utf-8")
    workers = re.search(r"^worker_processes (\d+);$", text, re.MULTILINE)
    assert workers is not None
    assert int(workers[1]) < SERVICES["nginx"]["pids_limit"]


def test_nobody_from_outside_reaches_more_than_nginx_unless_it_is_wished() -> None:
    for name, service in SERVICES.items():
        for port in service.get("ports", ()):
            assert port.startswith("0.0.0.0:" if name == "nginx" else "127.0.0.1:"), port
    assert SERVICES["nginx"]["networks"] == ["outside"]
    assert [name for name, service in SERVICES.items() if "outside" in service.get("networks", ())] == [
        "nginx",
        "sshfs",
    ]


def settings_in(service: str) -> Settings:
    """Return the settings as they are in the container, with those of the image."""
    image = dict(re.findall(r"(WEBPD_\w+)=(\S+)", DOCKERFILE))
    loaded = load({}, image | SERVICES[service]["environment"], os.devnull)
    assert loaded.unknown == ()
    return loaded.settings


def test_ports_and_paths_are_those_of_the_settings() -> None:
    settings = settings_in("webpd")
    assert settings.health_address is not None
    assert settings.metrics_address is not None
    assert settings.hint_socket is not None
    plain = Settings()
    assert plain.health_address is not None
    assert plain.metrics_address is not None
    health, metrics = settings.health_address.port, settings.metrics_address.port
    assert (health, metrics) == (plain.health_address.port, plain.metrics_address.port)
    assert f"EXPOSE {health} {metrics}\n" in DOCKERFILE
    assert f"http://127.0.0.1:{health}/readyz" in DOCKERFILE
    assert [port.rpartition(":")[2] for port in SERVICES["webpd"]["ports"]] == [str(health)]
    assert settings.roots == plain.roots
    site = site_of(settings, settings.roots[0])
    assert mounted("webpd")[site.document_root] == mounted("nginx")[site.document_root]
    assert SERVICES["sshfs"]["environment"]["SSHFS_TARGET"] == f"/mnt/site{site.url}"
    assert mounted("sshfs")["/mnt/site"] == mounted("webpd")[site.document_root]
    assert mounted("webpd")[state_dir(settings)] == "state"
    folder = os.path.dirname(settings.hint_socket)
    assert mounted("webpd")[folder] == mounted("nginx")[folder] == "hints"
    assert settings_in("nginx-config").hint_socket == settings.hint_socket
    assert settings_in("nginx-config").roots == settings.roots
    assert float(SERVICES["webpd"]["stop_grace_period"].rstrip("s")) > settings.shutdown_timeout
    owner = SERVICES["webpd"]["build"]["args"]
    assert str(settings.owner) == f"{owner['UID']}:{owner['GID']}" == SERVICES["nginx"]["user"] == str(plain.owner)
    assert re.findall(r"^ARG (?:UID|GID)=(\d+)$", DOCKERFILE, re.MULTILINE) == [owner["UID"], owner["GID"]]
    made = re.search(r"install -d [^/]*((?:/\S+ ?)+)", DOCKERFILE)
    assert made is not None
    volumes = {place for name in ("webpd", "nginx-config") for place in mounted(name) if place != site.document_root}
    assert set(made[1].split()) == volumes  # or they would belong to root


def test_monitoring_is_what_is_shipped_but_for_the_addresses() -> None:
    shipped = (REPOSITORY / "deploy" / "prometheus" / "prometheus.yml").read_text("utf-8")
    for loopback, name in (("127.0.0.1:9093", "alertmanager:9093"), ("127.0.0.1:9101", "webpd:9101")):
        assert name.partition(":")[0] in SERVICES
        shipped = shipped.replace(f'"{loopback}"', f'"{name}"')
    here = (REPOSITORY / "deploy" / "docker" / "prometheus.yml").read_text("utf-8")
    assert yaml.safe_load(here) == yaml.safe_load(shipped)
    folder = os.path.dirname("/etc/prometheus/prometheus.yml")
    assert {f"{folder}/{name}" for name in yaml.safe_load(here)["rule_files"]} <= set(mounted("prometheus"))

    grafana = REPOSITORY / "deploy" / "grafana" / "provisioning"
    source = (grafana / "datasources" / "prometheus.yaml").read_text("utf-8")
    here = (REPOSITORY / "deploy" / "docker" / "grafana-datasource.yaml").read_text("utf-8")
    assert yaml.safe_load(here) == yaml.safe_load(source.replace("127.0.0.1:9090", "prometheus:9090"))
    dashboards = yaml.safe_load((grafana / "dashboards" / "webpd.yaml").read_text("utf-8"))
    assert mounted("grafana")[dashboards["providers"][0]["options"]["path"]] == "./deploy/grafana/dashboards"
    for name in ("prometheus", "alertmanager", "grafana"):
        inner = SERVICES[name]["ports"][0].rpartition(":")[2]
        assert f"http://127.0.0.1:{inner}/" in SERVICES[name]["healthcheck"]["test"][-1]


def test_hadolint_finds_no_fault_with_the_images() -> None:
    hadolint = shutil.which("hadolint", path=f"{os.path.dirname(WEBPD[0])}:{os.environ['PATH']}")
    assert hadolint is not None
    done = subprocess.run((hadolint, "--no-color", *DOCKERFILES), capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, "")


def sources(dockerfile: str) -> list[str]:
    """Return what the file copies out of the checkout."""
    copied = re.findall(r"^COPY (?!--from)(?:--\S+ )*(.+) \S+$", dockerfile, re.MULTILINE)
    return [source for line in copied for source in line.split()]


def test_what_the_images_copy_is_there_and_let_through() -> None:
    rules = (REPOSITORY / ".dockerignore").read_text("utf-8").splitlines()
    assert "*" in rules
    allowed = {rule[1:] for rule in rules if rule.startswith("!")}
    copied = {source for file in DOCKERFILES for source in sources(file.read_text("utf-8"))}
    for source in copied:
        assert (REPOSITORY / source).exists(), source
        assert any(source == one or source.startswith(f"{one}/") for one in allowed), source
    assert all(any(source == one or source.startswith(f"{one}/") for source in copied) for one in allowed)


def test_what_the_image_copies_is_enough_to_build_webpd(tmp_path: Path) -> None:
    for source in sources(DOCKERFILE):
        place = tmp_path / "build" / source
        if (REPOSITORY / source).is_dir():
            shutil.copytree(REPOSITORY / source, place, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            write(place, (REPOSITORY / source).read_bytes())
    code = "import sys; from hatchling.build import build_wheel; print(build_wheel(sys.argv[1]))"
    done = subprocess.run(
        (WEBPD[0], "-c", code, str(tmp_path)), cwd=tmp_path / "build", capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert fnmatch(done.stdout.strip(), "webpd-*-py3-none-any.whl")


def test_the_images_run_as_nobody_special_on_named_bases() -> None:
    for file in DOCKERFILES:
        for base in re.findall(r"^FROM (\S+)", file.read_text("utf-8"), re.MULTILINE):
            assert re.fullmatch(r"(python:\d\.\d+-slim|debian:)-?bookworm(-slim)?", base), base
    last = DOCKERFILE.rpartition("\nFROM ")[2]
    assert "\nUSER $UID:$GID\n" in last
    assert "pip uninstall" in last
    assert not re.search(r"apt-get install [^\n]*(gcc|make|-dev|git)", last)


def test_the_scripts_are_what_sh_understands() -> None:
    for script in (REPOSITORY / "deploy" / "docker").glob("*.sh"):
        subprocess.run(("sh", "-n", str(script)), check=True)
        assert os.access(script, os.X_OK)
