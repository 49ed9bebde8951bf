"""The machine: cores, memory, open files, its clock, and what systemd says of the service."""

import ctypes
import os
import resource
import subprocess
from collections.abc import Iterator

from rich.filesize import decimal

from webpd.doctor.finding import Finding, Topic
from webpd.settings import Settings, available_cores

_TOPIC = Topic("this host")
_TIME_ERROR = 5  # adjtimex(2): the clock is not synchronized
_FILES_A_JOB = 4
_FILES_BESIDE = 256
_UNIT = "webpd.service"


def look(settings: Settings) -> Iterator[Finding]:
    """Look at the machine."""
    workers = settings.workers or available_cores()
    if settings.role != "watch":
        yield _cores(workers)
        yield _memory(workers, int(settings.worker_memory))
    yield files(_TOPIC, settings, resource.getrlimit(resource.RLIMIT_NOFILE)[0], "this shell")
    yield _clock(alone=settings.redis_url is None and settings.queue_url is None)
    yield from _systemd()


def files(topic: Topic, settings: Settings, limit: int, whose: str) -> Finding:
    """Tell whether so many open files, the limit of ``whose``, are enough."""
    threads = settings.io_threads or max(64, 4 * (settings.workers or available_cores()))
    needed = _FILES_A_JOB * threads * len(settings.roots) + _FILES_BESIDE
    if limit == resource.RLIM_INFINITY or limit >= needed:
        return topic.ok("host.open_files", f"{limit:,} open files allowed to {whose}, {needed:,} may be needed")
    return topic.warning(
        "host.open_files",
        f"only {limit:,} open files are allowed to {whose}; {needed:,} may be needed",
        f"`ulimit -n {needed}`, or LimitNOFILE={needed} in the service's unit (`systemctl edit webpd`)",
    )


def _cores(workers: int) -> Finding:
    cores = available_cores()
    if workers <= cores:
        return _TOPIC.ok("host.cores", f"{workers} codec processes on {cores} cores")
    return _TOPIC.warning(
        "host.cores",
        f"{workers} codec processes (WEBPD_WORKERS) on {cores} cores: they only take memory from one another",
        "`WEBPD_WORKERS=auto`",
    )


def _memory(workers: int, each: int) -> Finding:
    with open("/proc/meminfo", encoding="ascii") as file:
        told = {name: int(rest.split()[0]) << 10 for name, _, rest in (line.partition(":") for line in file)}
    there, most = told["MemTotal"] + told["SwapTotal"], workers * each
    if most <= there:
        return _TOPIC.ok("host.memory", f"{decimal(there)}; {workers} codec processes may take {decimal(most)}")
    return _TOPIC.warning(
        "host.memory",
        f"{workers} codec processes may take {decimal(most)}, and there are {decimal(there)}: large pictures at the "
        "same time may have the kernel end processes",
        f"`WEBPD_WORKERS={max(1, there // each)}`, or a smaller WEBPD_MAX_PIXELS with a smaller WEBPD_WORKER_MEMORY",
    )


def _clock(*, alone: bool) -> Finding:
    if ctypes.CDLL(None).adjtimex(ctypes.create_string_buffer(512)) != _TIME_ERROR:  # all zeros: only ask
        return _TOPIC.ok("host.clock", "the clock is synchronized")
    if alone:
        return _TOPIC.ok(
            "host.clock", "the clock is not kept by a time server, and no other host's has to agree with it"
        )
    return _TOPIC.warning(
        "host.clock",
        "the clock is not kept by a time server: logs and statistics of several hosts will not agree",
        "`apt install systemd-timesyncd && timedatectl set-ntp true`",
    )


def _systemd() -> Iterator[Finding]:
    if not os.path.isdir("/run/systemd/system"):
        return
    command = ["systemctl", "show", _UNIT, "--property=LoadState,UnitFileState,ActiveState,SubState,Result"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=5, check=True)  # noqa: S603 - ours
    except (OSError, subprocess.SubprocessError) as error:
        yield _TOPIC.unknown(
            "host.systemd", f"systemd does not tell of {_UNIT}: {error}", f"`systemctl status {_UNIT}`"
        )
        return
    told = dict(line.split("=", 1) for line in done.stdout.splitlines() if "=" in line)
    if told.get("LoadState") not in {"loaded", "masked"}:
        return  # installed in another way
    state = told.get("ActiveState")
    if state == "failed" or told.get("SubState") == "auto-restart":
        yield _TOPIC.fault(
            "host.systemd",
            f"{_UNIT} {'has failed' if state == 'failed' else 'ends again and again'} ({told.get('Result')})",
            f"`journalctl -u {_UNIT} -n 50` says why; then `systemctl restart {_UNIT}`",
        )
    elif told.get("UnitFileState") in {"disabled", "masked"}:
        yield _TOPIC.warning(
            "host.systemd",
            f"{_UNIT} is {state}, but {told['UnitFileState']}: it does not start when the machine does",
            f"`systemctl unmask {_UNIT} && systemctl enable {_UNIT}`",
        )
    else:
        yield _TOPIC.ok("host.systemd", f"{_UNIT} is {state}")
