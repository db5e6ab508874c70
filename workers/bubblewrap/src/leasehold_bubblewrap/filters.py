"""
The system calls that a command may not make, as one table, and the filter made of it.

The rest is allowed: what runs here is people's own software, and namespaces already keep it
apart. What is refused is what reaches the kernel past them: making namespaces and mounts, other
processes' memory, keys, programs in the kernel, the machine's clock and modules, and sockets
that no network namespace covers.

A refused call fails with EPERM. `clone3` fails with ENOSYS, because its flags lie in memory,
where a filter cannot look: the C library then uses `clone`, whose flags can be seen.
The kernel kills who makes calls of another architecture than the host's own.

A name that the machine's libseccomp does not know is a call that it cannot filter; the names
here are all known from 2.5 on, except for architectures that do not have the call.
"""

import errno
import os
from functools import cache
from typing import Any, Final

REFUSED: Final[dict[str, tuple[str, ...]]] = {
    "namespaces and mounts": (
        *("unshare", "setns", "mount", "umount", "umount2", "pivot_root", "chroot"),
        *(
            "move_mount",
            "open_tree",
            "fsopen",
            "fsconfig",
            "fsmount",
            "fspick",
            "mount_setattr",
        ),
    ),
    "other processes": (
        *("ptrace", "process_vm_readv", "process_vm_writev", "process_madvise", "kcmp"),
        *("pidfd_getfd", "perf_event_open", "userfaultfd"),
    ),
    "programs in the kernel": (
        *("bpf", "io_uring_setup", "io_uring_enter", "io_uring_register"),
        *("init_module", "finit_module", "delete_module", "kexec_load", "kexec_file_load"),
    ),
    "keys": ("add_key", "request_key", "keyctl"),
    "files by handle, all files": ("open_by_handle_at", "name_to_handle_at", "fanotify_init"),
    "the machine": (
        *(
            "reboot",
            "swapon",
            "swapoff",
            "acct",
            "quotactl",
            "syslog",
            "vhangup",
            "lookup_dcookie",
        ),
        *("settimeofday", "clock_settime", "clock_adjtime", "adjtimex", "stime"),
        *("iopl", "ioperm", "modify_ldt", "vm86", "vm86old", "nfsservctl", "uselib", "_sysctl"),
        *("move_pages", "migrate_pages", "mbind", "set_mempolicy"),
    ),
}

_NEW_NAMESPACES: Final = (
    *(0x10000000, 0x00020000, 0x20000000, 0x40000000),  # user, mount, pid, network
    *(0x08000000, 0x04000000, 0x02000000),  # ipc, host name, cgroup
)
_FAMILIES: Final = {"AF_ALG": 38, "AF_VSOCK": 40}
"""Sockets that go past every network namespace: the kernel's ciphers, the hypervisor."""

_TERMINAL: Final = {"TIOCSTI": 0x5412, "TIOCLINUX": 0x541C}
"""Put words into somebody else's terminal."""

_LOW: Final = 0xFFFFFFFF


class NoFilterError(Exception):
    """The filter cannot be made here; says why."""


@cache
def filter_of_calls() -> bytes:
    """
    Return the filter as the kernel takes it.

    Raises:
        NoFilterError: libseccomp or its binding is missing, or does not know this machine.
    """
    try:
        import pyseccomp
    except (ImportError, RuntimeError, OSError, AttributeError) as error:
        text = f"no seccomp filter: {error} (Debian: libseccomp2; pip: pyseccomp)"
        raise NoFilterError(text) from error
    try:
        return _exported(_made(pyseccomp))
    except (OSError, RuntimeError, ValueError) as error:
        raise NoFilterError(f"no seccomp filter: {error}") from error


def _made(lib: Any) -> Any:
    filter_ = lib.SyscallFilter(lib.ALLOW)
    # A tree instead of a list: every call of a command is looked up in it.
    filter_.set_attr(lib.Attr.CTL_OPTIMIZE, 2)
    refuse, unknown = lib.ERRNO(errno.EPERM), lib.ERRNO(errno.ENOSYS)
    native = lib.system_arch()
    for names in REFUSED.values():
        for name in names:
            # Negative: this architecture has no such call.
            if lib.resolve_syscall(native, name) >= 0:
                filter_.add_rule(refuse, name)
    filter_.add_rule(unknown, "clone3")
    place = 1 if native in {lib.Arch.S390, lib.Arch.S390X} else 0
    for flag in _NEW_NAMESPACES:
        filter_.add_rule(refuse, "clone", lib.Arg(place, lib.MASKED_EQ, flag, flag))
    for number in _FAMILIES.values():
        filter_.add_rule(refuse, "socket", lib.Arg(0, lib.MASKED_EQ, _LOW, number))
    for number in _TERMINAL.values():
        filter_.add_rule(refuse, "ioctl", lib.Arg(1, lib.MASKED_EQ, _LOW, number))
    return filter_


def _exported(filter_: Any) -> bytes:
    handle = os.memfd_create("leasehold-filter", os.MFD_CLOEXEC)
    with open(handle, "w+b") as file:
        filter_.export_bpf(file)
        file.seek(0)
        return file.read()
