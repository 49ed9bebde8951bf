"""``webpd doctor``: faults that are really there are found, each with its cure."""

import contextlib
import json
import os
import subprocess
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest

from tests.cli.scene import event, remember
from tests.conftest import WEBPD, as_nobody, write
from tests.doctor.clinic import command_in, doctor, found, left_behind, open_folder, sick
from tests.lab import SshfsLab, sshfs_lab, wait_for
from tests.service.driver import QUICK, Service
from webpd.doctor import mounting, root, running, state, tree, vanishing, writing
from webpd.doctor.apart import Apart, LateError, UnfinishedError
from webpd.doctor.finding import Finding, Topic, Verdict
from webpd.ledger.sqlite import SqliteLedger
from webpd.service.places import find
from webpd.service.places import remember as remember_places
from webpd.settings import Address, Settings, database_of
from webpd.watch.mount import Mount, mount_of

Photograph = Callable[..., bytes]


def convert_all(folder: Path, state_dir: Path) -> None:
    """Run the service until all is converted."""
    environment = os.environ | QUICK | {"WEBPD_STATE_DIR": str(state_dir), "WEBPD_WORKERS": "1"}
    subprocess.run([*WEBPD, "run", "--once", str(folder)], env=environment, check=True, capture_output=True)


# All is well


def test_a_sound_tree_has_no_fault_all_is_looked_at_and_nothing_is_left_behind(shop: Path, tmp_path: Path) -> None:
    before = sorted(tmp_path.rglob("*"))
    done = doctor("--json", "--state-dir", tmp_path / "state", shop)
    assert done.returncode == 0, done
    checks = json.loads(done.stdout)
    assert {check["verdict"] for check in checks} <= {"ok", "warning"}
    looked = {check["id"].partition(".")[0] for check in checks}
    themes = {"settings", "host", "state", "root", "mount", "tree", "inotify", "service", "address", "codecs"}
    assert looked == themes
    assert sorted(tmp_path.rglob("*")) == before


def test_a_sound_mount_by_sshfs_is_well_but_for_what_root_is_not_told(lab: SshfsLab, settings: Settings) -> None:
    assert sick(root.look(str(lab.mnt), settings)) == {}
    assert left_behind(lab.origin) == []


def test_a_service_that_runs_has_its_addresses_and_what_it_ails_from_is_told(shop: Path, tmp_path: Path) -> None:
    service = Service(tmp_path, shop, WEBPD_WORKERS="1")
    service.start()
    try:
        same = Settings(
            state_dir=str(service.state),
            health_address=Address("127.0.0.1", service.health_port),
            metrics_address=Address("127.0.0.1", service.metrics_port),
        )
        checks = list(running.look(same, [str(shop)]))
        assert sick(checks) == {}
        assert {"service.runs", "service.settings", "host.open_files", "address.free"} == {one.id for one in checks}
        shop.rename(tmp_path / "moved")
        wait_for(lambda: not service.ready(), "the service misses its root")
        bad = sick(running.look(same.model_copy(update={"quality": 70}), [str(tmp_path)]))
        assert bad["service.part"].verdict is Verdict.FAULT
        assert str(shop) in bad["service.part"].detail
        assert f"kill -HUP {service.pid}" in bad["service.settings"].cure
        assert str(tmp_path) in bad["service.roots"].detail
    finally:
        service.stop()


# How it tells


def test_people_read_each_fault_under_its_subject_with_its_cure_below(tmp_path: Path) -> None:
    missing = tmp_path / "gone" / "resize_cache"
    done = doctor("--state-dir", tmp_path / "state", missing, WEBPD_ROOT="/srv")
    assert done.returncode == 3
    lines = done.stdout.splitlines()
    at = lines.index(str(missing))
    assert lines[at + 1].startswith("  FAULT   can't be looked at: No such file or directory")
    assert lines[at + 2].strip().startswith("-> mount what should be there (`findmnt -T")
    assert lines[-1].endswith(", 1 fault")
    assert "`unset WEBPD_ROOT`" in done.stdout


def test_wrong_settings_are_a_fault(tmp_path: Path) -> None:
    wrong = found(doctor("--json", tmp_path, WEBPD_QUALITY="high"))
    assert "WEBPD_QUALITY=high" in wrong["settings.valid"]["detail"]
    assert "webpd config" in wrong["settings.valid"]["cure"]


def test_checks_that_are_told_to_end_clear_away_their_files(tmp_path: Path, settings: Settings) -> None:
    folder = str(tmp_path)
    begun = Apart(lambda: writing.look(Topic(""), folder, folder, mount_of(folder), settings))
    findings = begun.findings(30)
    assert next(findings).id == "root.mode"
    begun.close()
    wait_for(lambda: not left_behind(tmp_path), "its files are gone")


def test_checks_that_hang_or_fail_are_told_of_and_hold_nobody(tmp_path: Path) -> None:
    def hang() -> Iterator[Finding]:
        yield Topic("").ok("first", "")
        time.sleep(600)

    def fail() -> Iterator[Finding]:
        raise RuntimeError("a fault of ours")
        yield

    hanging, failing = Apart(hang), Apart(fail)
    findings = hanging.findings(0.5)
    assert next(findings).id == "first"
    with pytest.raises(LateError, match="no answer within"):
        next(findings)
    with pytest.raises(UnfinishedError, match="a fault of ours"):
        next(failing.findings(30))


# Faults of the root


def test_a_full_disk(tmpfs: Callable[[str], Path], settings: Settings) -> None:
    folder = tmpfs("size=64k")
    (folder / "full").write_bytes(bytes(64 << 10))
    bad = sick(root.look(str(folder), settings))
    assert bad["root.room"].verdict is Verdict.FAULT
    assert "`df -h" in bad["root.room"].cure
    assert "No space left" in bad["root.writable"].detail
    assert left_behind(folder) == []


def test_a_disk_without_inodes(tmpfs: Callable[[str], Path], settings: Settings) -> None:
    folder = tmpfs("size=1m,nr_inodes=5")
    for number in range(4):
        (folder / str(number)).touch()
    bad = sick(root.look(str(folder), settings))
    assert "`df -i" in bad["root.inodes"].cure
    assert bad["root.writable"].verdict is Verdict.FAULT


def test_a_mount_that_is_read_only(tmpfs: Callable[[str], Path], settings: Settings) -> None:
    folder = tmpfs("size=1m")
    subprocess.run(["mount", "-o", "remount,ro", str(folder)], check=True)
    bad = sick(root.look(str(folder), settings))
    assert f"`mount -o remount,rw {folder}`" in bad["root.writable"].cure


def test_folders_that_this_user_may_not_write_or_list(photograph: Photograph) -> None:
    with open_folder(0o755) as folder:
        for name in "abc":
            write(folder / "tree" / name / "photo.jpg", photograph())
        (folder / "tree" / "closed").mkdir(mode=0o700)
        settings = Settings(state_dir=str(folder / "state"))
        bad = looked_at_by_nobody(lambda: [*root.look(str(folder / "tree"), settings), *state.look(settings)])
    assert "closed" in bad["root.readable"]["detail"]
    assert f"setfacl -R -m u:nobody:rwX,d:u:nobody:rwX {folder}/tree`" in bad["root.readable"]["cure"]
    assert "Permission denied (it belongs to root)" in bad["root.writable"]["detail"]
    assert f"setfacl -R -m u:nobody:rwX,d:u:nobody:rwX {folder}/tree`" in bad["root.writable"]["cure"]
    assert "install -d" in bad["state.writable"]["cure"]


def test_an_owner_that_sidecars_cannot_be_given() -> None:
    with open_folder(0o777) as folder:
        bad = looked_at_by_nobody(lambda: list(root.look(str(folder), Settings(state_dir=str(folder / "state")))))
        assert left_behind(folder) == []
    assert set(bad) == {"root.owner"}
    assert "33:33" in bad["root.owner"]["detail"]
    assert "WEBPD_OWNER=keep" in bad["root.owner"]["cure"]


def looked_at_by_nobody(look: Callable[[], list[Finding]]) -> dict[str, Any]:
    told = as_nobody(lambda: [asdict(finding) for finding in look()])
    return {finding["id"]: finding for finding in told if finding["verdict"] != "ok"}


def test_mounts_without_the_options_that_keep_them_alive_and_shared(lab: SshfsLab, settings: Settings) -> None:
    point = lab.mnt.parent / "bare"
    point.mkdir()
    command = ["sshfs", "-F", str(lab._ssh / "config"), "-o", "dcache_timeout=600", f"lab:{lab.origin}", str(point)]
    subprocess.run(command, check=True)
    try:
        bad = sick(root.look(str(point), settings))
        for option in ("reconnect", "ServerAliveInterval=15", "allow_other", "dcache_timeout=20"):
            assert any(f"-o {option}" in finding.cure for finding in bad.values()), option
        (command_for_all,) = {command_in(finding.cure, "umount") for finding in bad.values()}
        subprocess.run(["sh", "-c", command_for_all], check=True)
        assert sick(root.look(str(point), settings)) == {}
        subprocess.run(["fusermount3", "-u", str(point)], check=True)
        subprocess.run([*command[:4], "allow_other,reconnect", *command[5:]], check=True)
        assert "default_permissions" in sick(root.look(str(point), settings))["mount.default_permissions"].cure
    finally:
        subprocess.run(["fusermount3", "-u", "-z", str(point)], check=True)


def test_who_mounts_as_another_user_than_root_is_told_what_lets_others_in() -> None:
    mount = Mount("/srv", "fuse.sshfs", source="origin:/srv", options=("rw", "user_id=1000"))
    (lacks,) = [mounting._others(Topic("/srv"), mount)]
    (told,) = mounting._told(Topic("/srv"), mount, [lacks])
    assert told.cure.startswith("put `user_allow_other` into /etc/fuse.conf first")


def test_mounts_of_fstab_are_mended_there(lab: SshfsLab, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    table = tmp_path / "fstab"
    table.write_text(f"# none\nlab:{lab.origin} {lab.mnt} fuse.sshfs allow_other 0 0\n")
    monkeypatch.setattr(mounting, "_TABLE", str(table))
    mount = replace(mount_of(str(lab.mnt)), options=("allow_other",))
    cure = sick(mounting.look(Topic(""), mount))["mount.default_permissions"].cure
    assert f"add default_permissions to its options in {table}, then `umount -l {lab.mnt} && mount {lab.mnt}`" in cure


def test_a_mount_that_hangs_is_a_fault_and_neither_a_hung_doctor_nor_one_that_leaves_something(tmp_path: Path) -> None:
    (tmp_path / "sound").mkdir()
    with sshfs_lab(tmp_path / "lab") as lab:
        lab.stop()
        try:
            done = doctor("--json", "--state-dir", tmp_path / "state", lab.mnt, tmp_path / "sound")
            hangs = found(done)["root.answers"]
            waiting = subprocess.Popen(["ls", str(lab.mnt)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
            away, _, again = command_in(hangs["cure"], "umount").partition(" && ")
            subprocess.run(["sh", "-c", away], check=True)
            waiting.wait(10)
            assert not lab.mounted
        finally:
            lab.cont()
        assert again.startswith("sshfs ")
        assert again.endswith(" -o ServerAliveInterval=15,ServerAliveCountMax=3")
        checks = json.loads(done.stdout)
        assert (hangs["verdict"], hangs["subject"]) == ("fault", str(lab.mnt))
        well = {(check["subject"], check["id"]) for check in checks if check["verdict"] == "ok"}
        assert {(str(tmp_path / "sound"), "root.writable"), ("codecs", "codecs.convert")} <= well
        assert left_behind(lab.origin) == []


def test_a_server_that_lets_no_file_take_the_place_of_another(tmp_path: Path) -> None:
    settings = Settings(state_dir=str(tmp_path / "state"), owner=None)
    with sshfs_lab(tmp_path / "lab", options=("ServerAliveInterval=15", "allow_other", "default_permissions")) as lab:
        served = lab._ssh / "sshd_config"
        served.write_text(served.read_text().replace("internal-sftp", "internal-sftp -P posix-rename"))
        lab.kill_sshd()
        lab.start_sshd()
        lab.mount()
        bad = sick(root.look(str(lab.mnt), settings))
        assert set(bad) == {"root.rename"}
        assert bad["root.rename"].verdict is Verdict.FAULT
        assert "`Subsystem sftp internal-sftp`" in bad["root.rename"].cure
        assert left_behind(lab.origin) == []


@pytest.mark.parametrize(
    ("shift", "verdict", "told"),
    [
        ("+1h", "warning", "3,600 s behind ours"),
        ("-1h", "warning", "3,600 s ahead of ours"),
        ("+2d", "fault", "behind"),
    ],
)
def test_a_clock_behind_the_mount_that_is_not_ours(
    shop: Path, tmp_path: Path, shift: str, verdict: str, told: str
) -> None:
    # The clock that stamps files stays, and that of the command is another.
    ours = ("env", "NO_FAKE_STAT=1", "DONT_FAKE_MONOTONIC=1", "faketime", "-f", shift)
    done = doctor("--json", "--state-dir", tmp_path / "state", shop, before=ours, WEBPD_ROLE="watch")
    clock = found(done)["root.clock"]
    assert clock["verdict"] == verdict
    assert told in clock["detail"]
    assert "`timedatectl set-ntp true`" in clock["cure"]


def test_a_mount_whose_sshfs_was_killed_and_one_that_was_put_away(tmp_path: Path) -> None:
    settings = Settings(state_dir=str(tmp_path / "state"), owner=None)
    with sshfs_lab(tmp_path / "lab") as lab:
        with contextlib.closing(SqliteLedger(database_of(settings))) as ledger:
            remember_places(ledger, find([str(lab.mnt)], ledger))
        lab.kill_sshfs()
        dead = sick(root.look(str(lab.mnt), settings))["root.there"]
        assert f"umount -l {lab.mnt} && sshfs" in dead.cure
        lab.unmount()
        away = sick(root.look(str(lab.mnt), settings))["root.mounted"]
        assert "fuse.sshfs" in away.detail
        assert f"`sshfs USER@HOST:FOLDER {lab.mnt} -o reconnect,ServerAliveInterval=15" in away.cure
        assert mounting.first("/srv/www", "nfs4") == "`mount /srv/www`"


def test_options_of_nfs_that_lose_what_was_written_or_ask_for_everything_again() -> None:
    mount = Mount("/srv", "nfs4", source="origin:/srv", options=("rw", "soft", "noac"))
    bad = sick(mounting.look(Topic("/srv"), mount))
    assert set(bad) == {"mount.hard", "mount.noac"}
    assert all("`umount -l /srv && mount /srv`" in finding.cure for finding in bad.values())
    slow = replace(mount, options=("rw", "hard", "acregmax=600", "acdirmax=600"))
    assert "-o actimeo=20" in sick(mounting.look(Topic("/srv"), slow))["mount.cache"].cure


# What others do to the tree


def test_the_trees_of_other_modules(shop: Path, settings: Settings) -> None:
    inside, beside = shop / "webp", shop.parent / "delight.webpconverter"
    inside.mkdir()
    beside.mkdir()
    sample = tree.walk(str(shop), settings)

    def told(exclude: tuple[str, ...]) -> dict[str, Finding]:
        set_so = settings.model_copy(update={"exclude": exclude})
        found = [one for one in tree.look(Topic(""), str(shop), sample, set_so) if one.id == "tree.other_module"]
        return {str(path): one for one in found for path in (inside, beside) if f"`rm -r {path}`" in one.cure}

    assert set(told(settings.exclude)) == {str(inside), str(beside)}
    assert f"`WEBPD_EXCLUDE={str(inside)[1:]}`" in told(())[str(inside)].cure


def test_sidecars_that_others_made(shop: Path, settings: Settings) -> None:
    photo = next(shop.rglob("*.jpg"))
    subprocess.run(["cwebp", "-quiet", str(photo), "-o", f"{photo}.webp"], check=True)
    foreign = sick(root.look(str(shop), settings))["tree.foreign"]
    assert "1 of 1" in foreign.detail
    assert f"webpd convert --overwrite-foreign {shop}" in foreign.cure


def test_sidecars_that_something_removed(shop: Path, tmp_path: Path) -> None:
    settings, paths = Settings(state_dir=str(tmp_path / "state")), [str(shop)]
    convert_all(shop, tmp_path / "state")
    assert sick(vanishing.look(settings, paths)) == {}
    for sidecar in shop.rglob("*.webp"):
        sidecar.unlink()
    bad = sick(vanishing.look(settings, paths))
    assert set(bad) == {"sidecars.vanish"}
    assert "6 have no sidecar any more" in bad["sidecars.vanish"].detail
    assert "--filter='P *.webp'" in bad["sidecars.vanish"].cure


def test_images_converted_again_and_again_though_they_did_not_change(tmp_path: Path) -> None:
    settings = Settings(state_dir=str(tmp_path / "state"))
    for hours in (3, 2, 1):
        remember(tmp_path / "state", *(event(f"{number}.jpg", 3600.0 * hours, root="/r") for number in range(20)))
    bad = sick(vanishing.look(settings, ["/r"]))
    assert set(bad) == {"sidecars.again"}
    assert "20 images were converted 60 times" in bad["sidecars.again"].detail
    assert "--filter='P *.webp'" in bad["sidecars.again"].cure


def test_images_converted_again_because_they_are_written_again_are_no_sign_of_it(tmp_path: Path) -> None:
    for hours in (3, 2, 1):
        seconds = 3600.0 * hours
        written = int((time.time() - seconds) * 1e9)
        events = (replace(event(f"{number}.jpg", seconds, root="/r"), mtime_ns=written) for number in range(20))
        remember(tmp_path / "state", *events)
    assert sick(vanishing.look(Settings(state_dir=str(tmp_path / "state")), ["/r"])) == {}
