"""Alerts that really fire: a service with a real fault, a Prometheus that scrapes it, an Alertmanager that is told."""

import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from tests.conftest import write
from tests.lab import SshfsLab, free_port, sshfs_lab, wait_for
from tests.monitoring.prometheus import Alertmanager, Prometheus
from tests.service.driver import Service

# Not as webpd advises to mount: nothing but the server's going on ends what hangs.
PATIENT = ("dcache_timeout=1", "ServerAliveInterval=0")


class Scene(NamedTuple):
    """A service on a local tree and on an SSHFS mount, and who looks after it. Each test leaves it well."""

    tree: Path
    lab: SshfsLab
    service: Service
    prometheus: Prometheus
    alertmanager: Alertmanager


@pytest.fixture(scope="module")
def scene(tmp_path_factory: pytest.TempPathFactory, photograph: Callable[..., bytes]) -> Iterator[Scene]:
    folder = tmp_path_factory.mktemp("alerts")
    address = f"127.0.0.1:{free_port()}"
    with contextlib.ExitStack() as stack:
        lab = stack.enter_context(sshfs_lab(folder, options=PATIENT))
        write(lab.origin / "1.jpg", photograph())
        write(folder / "tree" / "1.jpg", photograph())
        service = Service(folder / "service", folder / "tree", lab.mnt, WEBPD_METRICS_ADDRESS=address)
        stack.callback(service.close)
        stack.callback(lab.cont)  # or the service could not end
        alertmanager = stack.enter_context(Alertmanager(folder / "alertmanager"))
        service.start()
        prometheus = stack.enter_context(Prometheus(folder / "prometheus", [address], alertmanager.address))
        prometheus.wait_for("webpd_ready == 1")
        yield Scene(folder / "tree", lab, service, prometheus, alertmanager)


def test_a_service_that_does_its_job_alerts_nobody_and_its_numbers_are_recorded(
    scene: Scene, photograph: Callable[..., bytes]
) -> None:
    prometheus = scene.prometheus
    prometheus.wait_for('sum(webpd_images_total{outcome="converted"}) == 2')
    for number in range(20):
        write(scene.tree / f"new{number}.jpg", photograph(100 + number))
    prometheus.wait_for('sum(webpd_images_total{outcome="converted"}) == 22')
    (saved,) = prometheus.wait_for("instance:webpd_saved_per_source_bytes:ratio_rate1h")
    assert 0 < saved.value < 1
    (median,) = prometheus.wait_for('instance_quantile:webpd_delivery_seconds:quantile_rate15m{quantile="0.5"} > 0')
    assert median.labels["job"] == "webpd"
    prometheus.wait_for("instance:webpd_backlog_seconds:estimate == 0")
    # On a busy machine one may be true for the few moments to which these tests have shortened what it waits.
    wait_for(lambda: {rule["state"] for rule in prometheus.rules("alerting")} == {"inactive"}, "nothing alerts")
    assert not [rule for rule in prometheus.rules("recording") if rule["health"] != "ok"]
    wait_for(lambda: not scene.alertmanager.get("/api/v2/alerts"), "nobody is told")


def test_a_mount_that_hangs_is_told_of_until_it_goes_on(scene: Scene) -> None:
    _, lab, service, prometheus, alertmanager = scene
    lab.stop()
    wait_for(lambda: prometheus.alerts("WebpdMountSick"), "Prometheus says that it fires")
    (alert,) = prometheus.alerts("WebpdMountSick")
    assert alert["labels"]["root"] == str(lab.mnt)
    assert alert["labels"]["state"] == "hung"
    assert str(lab.mnt) in alert["annotations"]["description"]

    wait_for(lambda: alertmanager.alerts("WebpdMountSick"), "Alertmanager is told")
    (told,) = alertmanager.alerts("WebpdMountSick")
    assert [receiver["name"] for receiver in told["receivers"]] == ["pager"]
    assert told["annotations"]["runbook_url"].endswith("#webpdmountsick")
    # The service is not ready either: that follows from the mount, and is not sent as well.
    wait_for(lambda: alertmanager.alerts("WebpdNotReady"), "Alertmanager is told of that too")
    wait_for(lambda: alertmanager.alerts("WebpdNotReady")[0]["status"]["inhibitedBy"], "and keeps it to itself")

    lab.cont()
    wait_for(lambda: not prometheus.alerts("WebpdMountSick"), "it does not fire any more")
    wait_for(lambda: not alertmanager.alerts("WebpdMountSick"), "Alertmanager holds it for resolved")
    service.wait_until(service.ready)


def test_a_service_that_was_killed_is_told_of_until_it_runs_again(scene: Scene) -> None:
    _, _, service, prometheus, alertmanager = scene
    wait_for(lambda: not alertmanager.get("/api/v2/alerts"), "all is well")
    service.kill()
    wait_for(lambda: alertmanager.alerts("WebpdDown"), "Alertmanager is told")
    assert [alert["labels"]["alertname"] for alert in alertmanager.get("/api/v2/alerts")] == ["WebpdDown"]

    service.start()
    wait_for(lambda: not prometheus.alerts("WebpdDown"), "it does not fire any more")
    wait_for(lambda: not alertmanager.alerts("WebpdDown"), "Alertmanager holds it for resolved")
