"""What a codec process gives up before the first picture reaches it.

Everything here is called by the process itself, in this order: ``detach``, then everything that is ever to be imported,
then ``limit`` and ``seal``. None of it can be taken back, even by a picture that takes the process over.
"""

import contextlib
import ctypes
import errno
import math
import os
import resource
import signal
import time

from webpd.convert.frames import Seal

NICENESS = 10
"""How much the codecs stand back for the service's own threads and for the rest of the host (``nice``'s default)."""
LIBSECCOMP = "libseccomp.so.2"

# linux/prctl.h
PR_SET_PDEATHSIG, PR_SET_DUMPABLE, PR_SET_NO_NEW_PRIVS = 1, 4, 38

# linux/landlock.h; these three system calls have the same numbers on every architecture
LANDLOCK_CREATE_RULESET, LANDLOCK_RESTRICT_SELF = 444, 446
LANDLOCK_CREATE_RULESET_VERSION = 1
LANDLOCK_FS_RIGHTS = {1: 13, 2: 14, 3: 15, 5: 16}
"""By version, how many rights on files there are: bit 13 moves, 14 truncates, 15 does ioctl on devices."""
LANDLOCK_NET_SINCE, LANDLOCK_SCOPE_SINCE = 4, 6
"""Since which version TCP bind and connect, and abstract sockets and signals, can be denied: two bits each."""

# seccomp.h of libseccomp 2.5
SCMP_ACT_ALLOW, SCMP_ACT_ERRNO = 0x7FFF0000, 0x00050000
SCMP_FLTATR_CTL_TSYNC = 4
SCMP_CMP_EQ, SCMP_CMP_MASKED_EQ = 4, 7
PROT_EXEC = 4

ALLOWED = (
    *("read", "write", "writev", "close"),
    *("brk", "munmap", "mremap", "madvise"),
    *("futex", "sched_yield", "restart_syscall", "rt_sigreturn", "rt_sigprocmask"),
    *("clock_gettime", "gettimeofday", "time", "getrusage", "getrandom", "getpid", "gettid", "getcwd", "sysinfo"),
    *("exit", "exit_group"),
)
"""What decoding and encoding need, and what the C library does unasked. All else answers EPERM."""


class _Condition(ctypes.Structure):
    """``struct scmp_arg_cmp`` of libseccomp: a condition on one argument of a system call."""

    _fields_ = (
        ("argument", ctypes.c_uint),
        ("comparison", ctypes.c_int),
        ("first", ctypes.c_uint64),
        ("second", ctypes.c_uint64),
    )


def detach(parent: int) -> None:
    """Leave the fate of the terminal and of the service's signals; die with the process ``parent``.

    The service ends its codec processes itself, when it no longer needs them: a SIGTERM that systemd sends to the
    whole control group must not cost the images in flight.
    """
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_SETMASK, ())
    _prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        os._exit(1)
    os.umask(0o077)
    os.nice(NICENESS)
    # With autogroups, niceness counts only within a session, and this process has one of its own.
    with contextlib.suppress(OSError), open("/proc/self/autogroup", "w", encoding="ascii") as autogroup:
        autogroup.write(str(NICENESS))


def limit(memory: int) -> None:
    """Limit the address space to ``memory`` bytes, and allow no file to grow, no core dump, no further process.

    Raises MemoryError when the process already has more: it would fail at a picture that it cannot foresee.
    """
    with open("/proc/self/statm", encoding="ascii") as pages:
        if int(pages.read().split()[0]) * resource.getpagesize() >= memory:
            raise MemoryError
    resource.setrlimit(resource.RLIMIT_AS, (memory, memory))
    for kind in (resource.RLIMIT_FSIZE, resource.RLIMIT_CORE, resource.RLIMIT_NPROC):
        resource.setrlimit(kind, (0, 0))


def renew_processor_time(seconds: float) -> None:
    """Allow that many more seconds of processor time; SIGXCPU ends the process after them."""
    until = math.ceil(time.process_time() + seconds) + 1
    resource.setrlimit(resource.RLIMIT_CPU, (until, resource.RLIM_INFINITY))


def seal() -> Seal:
    """Give up files, sockets, processes and signals, as far as the kernel and libseccomp can; return how far.

    Raises RuntimeError in a process with more than one thread (Landlock would shut in only one of them), OSError
    when the kernel has the means and refuses them.
    """
    if len(os.listdir("/proc/self/task")) > 1:
        raise RuntimeError("a library of the codecs has started a thread: the sandbox would not hold it")
    _prctl(PR_SET_DUMPABLE, 0)
    _prctl(PR_SET_NO_NEW_PRIVS, 1)
    try:
        libseccomp = ctypes.CDLL(LIBSECCOMP)
    except OSError:
        libseccomp = None
    landlock = _landlock()
    resource.setrlimit(resource.RLIMIT_NOFILE, (0, 0))
    return Seal(landlock, libseccomp is not None and _seccomp(libseccomp))


def _prctl(option: int, value: int) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(option, ctypes.c_ulong(value), ctypes.c_ulong(0), ctypes.c_ulong(0), ctypes.c_ulong(0)):
        raise OSError(ctypes.get_errno(), f"prctl {option}")


def _landlock() -> int:
    """Handle every right that this kernel knows and grant none; return the version, 0 without Landlock."""
    call = ctypes.CDLL(None, use_errno=True).syscall
    call.restype = ctypes.c_long
    version = int(call(LANDLOCK_CREATE_RULESET, None, ctypes.c_size_t(0), LANDLOCK_CREATE_RULESET_VERSION))
    if version < 1:
        return 0
    files = next(rights for since, rights in sorted(LANDLOCK_FS_RIGHTS.items(), reverse=True) if version >= since)
    net, scope = (0b11 if version >= since else 0 for since in (LANDLOCK_NET_SINCE, LANDLOCK_SCOPE_SINCE))
    attributes = (ctypes.c_uint64 * 3)((1 << files) - 1, net, scope)
    ruleset = int(call(LANDLOCK_CREATE_RULESET, attributes, ctypes.c_size_t(ctypes.sizeof(attributes)), 0))
    if ruleset < 0:
        raise OSError(ctypes.get_errno(), "landlock_create_ruleset")
    if call(LANDLOCK_RESTRICT_SELF, ruleset, 0):
        raise OSError(ctypes.get_errno(), "landlock_restrict_self")
    os.close(ruleset)
    return version


def _seccomp(library: ctypes.CDLL) -> bool:
    """Allow only what the codecs need; return False where the kernel has no filter."""
    library.seccomp_init.restype = ctypes.c_void_p
    context = ctypes.c_void_p(library.seccomp_init(ctypes.c_uint32(SCMP_ACT_ERRNO | errno.EPERM)))
    if not context:
        return False
    _check(library.seccomp_attr_set(context, SCMP_FLTATR_CTL_TSYNC, ctypes.c_uint32(1)), "seccomp_attr_set")
    for name in ALLOWED:
        _allow(library, context, name)
    for name in ("mmap", "mprotect"):
        _allow(library, context, name, _Condition(2, SCMP_CMP_MASKED_EQ, PROT_EXEC, 0))
    _allow(
        library,
        context,
        "prlimit64",
        _Condition(0, SCMP_CMP_EQ, 0, 0),
        _Condition(1, SCMP_CMP_EQ, resource.RLIMIT_CPU, 0),
    )
    result = library.seccomp_load(context)
    if result in (-errno.EINVAL, -errno.ENOSYS):
        return False
    _check(result, "seccomp_load")
    return True


def _allow(library: ctypes.CDLL, context: ctypes.c_void_p, name: str, *conditions: _Condition) -> None:
    number = library.seccomp_syscall_resolve_name(name.encode())
    if number < 0:
        return  # this architecture has no such call
    array = (_Condition * len(conditions))(*conditions)
    action = ctypes.c_uint32(SCMP_ACT_ALLOW)
    _check(library.seccomp_rule_add_array(context, action, number, len(conditions), array), name)


def _check(result: int, what: str) -> None:
    if result < 0:
        raise OSError(-result, f"{what}: {os.strerror(-result)}")
