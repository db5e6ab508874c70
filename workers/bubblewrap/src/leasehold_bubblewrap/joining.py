"""
The two processes between the supervisor and a command: the launcher and the joiner.

Why two? `bwrap` tells a signal as an exit code (137 may be either), hands a missing command
out as "1", and dies at once of a TERM that was meant for the command. So it only makes the
place: it starts `cat`, the *holder*, in a new set of namespaces, and waits. The command itself
joins these namespaces, as a child of the supervisor's: its exit is the kernel's word to the
supervisor alone, nothing inside can forge it, and its words, variables and input never pass
`bwrap` at all.

    supervisor ── bwrap ── bwrap, process 1 of the sandbox ── cat, the holder
               └─ the command, in the same namespaces

The *launcher* is the supervisor's child that becomes `bwrap`. It joins the limits first, which
all that follows inherits, then forks the *joiner* as a sibling. Both wait on pipes for a word
of the supervisor's; if it dies they see the pipe close, and leave.

The joiner waits for the holder to live, enters its namespaces and forks the command, again as
the supervisor's child (who enters a pid namespace is not in it; its children are). While it
does so nothing but `bwrap` and `cat` is in there, so nobody can watch or disturb it. Before the
exec the command gives up all capabilities for good, takes no new privileges, and gets the
filter of system calls.

What happens if we die here, or the supervisor? Process 1 dies with `bwrap`, and `bwrap` with
the supervisor (parent death signal; the holder also sees its input close). A pid namespace
whose process 1 is dead has nobody left in it and lets nobody in: that is the proof that nothing
of the command runs, and it needs no cgroup.
"""

import _socket
import ctypes
import fcntl
import os
import signal
import warnings  # noqa: F401 - an exec asks for it, where its file cannot be found any more
from collections.abc import Sequence
from typing import Final, NoReturn

from leasehold_local.command import (
    Spec,
    Stream,
    die_with_parent,
    execute,
    join_limits,
    libc,
)

from leasehold_bubblewrap.gate import listen

_CLONE3: Final = 435
_AS_SIBLING: Final = 0x8000
_OWNER_OF: Final = 0xB701
"""The ioctl that opens the user namespace which another namespace belongs to."""

_NEW_MOUNTS, _NEW_USER = 0x00020000, 0x10000000
_PRIVATE, _BIND = 0x44000, 0x1000
_DROP_BOUND, _NO_NEW_PRIVILEGES, _FILTER_CALLS, _BY_PROGRAM = 24, 38, 22, 2
_CAPABILITIES: Final = 64
_OTHERS: Final = ("pid", "net", "ipc", "uts", "cgroup", "mnt")


class _Program(ctypes.Structure):
    _fields_ = [("length", ctypes.c_ushort), ("code", ctypes.c_char_p)]


def launch(
    spec: Spec,
    *,
    starter: int,
    tell: int,
    holder: tuple[int, int],
    word: int,
    born: int,
    streams: list[Stream],
    stdin: int | None,
    gate: _socket.socket | None,
) -> NoReturn:
    """
    Be the launcher: fork the joiner, wait for the word, become `bwrap`; never returns.

    Args:
        starter: The supervisor's word that the command may start.
        tell: Where to tell why the command could not be started.
        holder: What the holder reads and where it writes.
        word: Where the joiner learns the holder's pid.
        born: Where it tells the command's.
        gate: Where it hands a listener over, if there is an allow-list.
    """
    try:
        os.setsid()
        for stream in streams:
            os.close(stream.read_end)
        join_limits(spec)
        if _fork_sibling() == 0:
            _join(
                spec, tell=tell, word=word, born=born, streams=streams, stdin=stdin, gate=gate
            )
        if spec["owner"] is not None:
            _stage(spec)
            _become(spec["owner"])
        # A change of uid takes it away, so not before.
        die_with_parent()
        if os.read(starter, 1) != b"1":
            os._exit(0)
        signal.set_wakeup_fd(-1)
        os.dup2(holder[0], 0)  # @ launch
        os.dup2(holder[1], 1)
        os.dup2(streams[1].write_end, 2)
        arguments = list(spec["arguments"])
        for place, content in spec["files"]:
            arguments += [b"--perms", b"0644", b"--file", b"%d" % _memory(content), place]
        arguments += [b"--remount-ro", b"/"]
        handle = _memory(b"".join(part + b"\0" for part in arguments))
        words = [b"bwrap", b"--args", b"%d" % handle, b"--", b"cat"]
        os.execve(spec["bwrap"], words, {"PATH": spec["path"]})  # noqa: S606 - no shell is the point
    except OSError as error:
        os.write(
            streams[1].write_end, b"leasehold: the sandbox: " + str(error).encode() + b"\n"
        )
    finally:
        os.write(tell, b"internal")
        os._exit(127)


def _stage(spec: Spec) -> None:
    """
    Show the lease's directories where the command's uid can reach them.

    They lie below directories of root's alone. These mounts are in a namespace of our own.
    """
    stage: bytes = spec["stage"]
    _call("unshare", _NEW_MOUNTS)
    _mount(None, b"/", None, _PRIVATE)
    _mount(b"tmpfs", stage, b"tmpfs", 0, b"mode=0755,size=64k")
    for source, name in spec["rooms"]:
        os.mkdir(stage + b"/" + name)
        _mount(source, stage + b"/" + name, None, _BIND)


def _become(owner: int) -> None:
    os.setgroups([])
    os.setresgid(owner, owner, owner)
    os.setresuid(owner, owner, owner)


def _join(
    spec: Spec,
    *,
    tell: int,
    word: int,
    born: int,
    streams: list[Stream],
    stdin: int | None,
    gate: _socket.socket | None,
) -> NoReturn:
    """Be the joiner: enter the holder's namespaces, fork the command; never returns."""
    try:
        os.setsid()
        if spec["owner"] is not None:
            _become(spec["owner"])
        die_with_parent()
        holder = os.read(word, 32)
        if not holder:
            os._exit(0)
        enter(int(holder))  # @ enter
        if gate is not None:
            listen(gate, spec["gate"]["port"])  # @ listen
        pid = _fork_sibling()
        if pid == 0:
            os.setsid()
            die_with_parent()
            execute(spec, tell, streams, stdin, lambda: confine(spec["filter"]))
        os.write(born, b"%d" % pid)  # @ born
        os._exit(0)
    except OSError as error:
        os.write(streams[1].write_end, b"leasehold: joining: " + str(error).encode() + b"\n")
    finally:
        os.write(tell, b"internal")
        os._exit(127)


def enter(holder: int) -> None:
    """
    Enter a process's namespaces: the pid namespace for our children, all others ourselves.

    The mounts belong to an outer user namespace, in which `bwrap` made them; the command's
    own, without any right over them, lies inside of it and comes last.
    """
    folder = f"/proc/{holder}/ns"
    handles = {name: os.open(f"{folder}/{name}", os.O_RDONLY) for name in ("user", *_OTHERS)}
    owner = fcntl.ioctl(handles["mnt"], _OWNER_OF)
    _call("setns", owner, _NEW_USER)
    for name in _OTHERS:
        if not _same(handles[name], f"/proc/self/ns/{name}"):
            _call("setns", handles[name], 0)
    if os.fstat(owner).st_ino != os.fstat(handles["user"]).st_ino:
        _call("setns", handles["user"], _NEW_USER)
    for handle in (owner, *handles.values()):
        os.close(handle)


def _same(handle: int, path: str) -> bool:
    """Tell whether it is ours already; we cannot enter what belongs to the host."""
    return os.fstat(handle).st_ino == os.stat(path).st_ino


def confine(program: bytes | None) -> None:
    """Give up every capability for good, take no new privileges, filter the system calls."""
    for number in range(_CAPABILITIES):
        if libc.prctl(_DROP_BOUND, number, 0, 0, 0) != 0:
            break
    _call("prctl", _NO_NEW_PRIVILEGES, 1, 0, 0, 0)  # @ confine
    if program is not None:
        loaded = _Program(len(program) // 8, program)
        _call("prctl", _FILTER_CALLS, _BY_PROGRAM, ctypes.byref(loaded), 0, 0)


def _fork_sibling() -> int:
    """Fork a child of our parent's; who cannot is told so."""
    arguments = (ctypes.c_uint64 * 11)(_AS_SIBLING)
    pid = int(libc.syscall(_CLONE3, arguments, ctypes.sizeof(arguments)))
    if pid < 0:
        _fail("clone3")
    return pid


def _memory(content: bytes) -> int:
    """Return a file in memory that an exec keeps open."""
    handle = os.memfd_create("leasehold", 0)
    view = memoryview(content)
    while view:
        view = view[os.write(handle, view) :]
    os.lseek(handle, 0, os.SEEK_SET)
    return handle


def _mount(
    source: bytes | None,
    target: bytes,
    kind: bytes | None,
    flags: int,
    data: bytes | None = None,
) -> None:
    if libc.mount(source, target, kind, ctypes.c_ulong(flags), data) != 0:
        _fail(f"mount of {os.fsdecode(source or target)}")


def _call(name: str, *arguments: object) -> None:
    if getattr(libc, name)(*arguments) != 0:
        _fail(name)


def _fail(name: str) -> NoReturn:
    number = ctypes.get_errno()
    raise OSError(number, f"{name}: {os.strerror(number)}")


def children(pid: int) -> Sequence[int]:
    """Return a process's children, youngest last; none if it is gone."""
    try:
        with open(f"/proc/{pid}/task/{pid}/children", "rb") as file:
            return [int(word) for word in file.read().split()]
    except OSError:
        return ()
