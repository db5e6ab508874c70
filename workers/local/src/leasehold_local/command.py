"""
The command's side of the supervisor: its output pipes, and what it does between fork and exec.

The child waits for one byte before it execs. The supervisor sends it only after it has won `go`
and made the output files; if the supervisor dies first, the pipe closes and the child leaves
without having run anything. From its first breath it dies with its supervisor (parent death
signal; a program with a set-user-id bit takes that away).
"""

import ctypes
import errno
import os
import resource
import signal
from collections.abc import Callable, Mapping
from typing import Any, Final, NoReturn

from leasehold_local import cgroups

_PARENT_DEATH: Final = 1
_CHUNK: Final = 65536
_NOT_OURS: Final = frozenset({signal.SIGKILL, signal.SIGSTOP, 32, 33})
"""What cannot be changed, or belongs to the C library."""

libc: Final = ctypes.CDLL(None, use_errno=True)

Spec = Mapping[str, Any]
"""As `executions.py` writes it: bytes, numbers and lists only."""


class Stream:
    """One output: a pipe, its file, the cap. A full disk counts as the cap."""

    def __init__(self, path: str, cap: int) -> None:
        self.read_end, self.write_end = os.pipe()
        self.path, self.cap = path, cap
        self.file = -1
        self.stored = self.dropped = 0
        self.open = True

    def prepare(self) -> None:
        """Make the file; only called by who has won `go`."""
        flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC
        try:
            self.file = os.open(self.path, flags, 0o600)  # @ output
        except OSError:
            self.cap = 0
        os.close(self.write_end)

    def pump(self) -> bool:
        """Move what is there; false at the end of the stream."""
        data = os.read(self.read_end, _CHUNK)
        if not data:
            self.open = False
            return False
        room = self.cap - self.stored
        view = memoryview(data)[:room] if room > 0 else memoryview(b"")
        written = 0
        try:
            while written < len(view):
                written += os.write(self.file, view[written:])
        except OSError:
            self.cap = 0
        self.stored += written
        self.dropped += len(data) - written
        return True


def become(
    spec: Spec, starter: int, tell: int, streams: list[Stream], stdin: int | None
) -> NoReturn:
    """Wait for the word, then exec; never returns."""
    try:
        os.setsid()
        for stream in streams:
            os.close(stream.read_end)
        die_with_parent()
        join_limits(spec)
        if os.read(starter, 1) != b"1":
            os._exit(0)
        execute(spec, tell, streams, stdin)
    finally:
        os.write(tell, b"internal")
        os._exit(127)


def die_with_parent() -> None:
    libc.prctl(_PARENT_DEATH, int(signal.SIGKILL), 0, 0, 0)


def execute(
    spec: Spec,
    tell: int,
    streams: list[Stream],
    stdin: int | None,
    confine: Callable[[], None] = lambda: None,
) -> NoReturn:
    """Exec the command, or tell why not; `confine` is called last. Never returns."""
    failure = b"internal"
    try:
        signal.set_wakeup_fd(-1)
        for number in range(1, signal.NSIG):
            if number not in _NOT_OURS:
                signal.signal(number, signal.SIG_DFL)
        source = os.open("/dev/null", os.O_RDONLY) if stdin is None else stdin
        os.dup2(source, 0)
        os.dup2(streams[0].write_end, 1)
        os.dup2(streams[1].write_end, 2)
        failure = b"cwd"
        _enter(spec)
        os.umask(0o022)
        for name, value in spec["rlimits"]:
            _limit(name, value)
        failure = b"internal"
        confine()
        failure = b"exec"
        os.execvpe(spec["argv"][0], spec["argv"], spec["env"])  # noqa: S606 - no shell is the point
    except OSError as error:
        if failure == b"exec":
            missing = error.errno in {errno.ENOENT, errno.ENOTDIR}
            failure = b"not_found" if missing else b"not_executable"
        os.write(2, b"leasehold: " + spec["argv"][0] + b": " + _said(failure, error) + b"\n")
    finally:
        os.write(tell, failure)
        os._exit(127)


def _said(failure: bytes, error: OSError) -> bytes:
    where = b"the working directory: " if failure == b"cwd" else b""
    return where + os.strerror(error.errno or 0).encode()


def join_limits(spec: Spec) -> None:
    for group in spec["limit_groups"]:
        cgroups.join(group)


def _enter(spec: Spec) -> None:
    """Go to the working directory; a link must not lead out of the sandbox."""
    os.chdir(spec["cwd"])
    here, root = os.getcwdb() + b"/", spec["root"] + b"/"
    if not here.startswith(root):
        raise PermissionError(errno.EACCES, "outside of the sandbox")


def _limit(name: str, value: int) -> None:
    kind = getattr(resource, name)
    hard = resource.getrlimit(kind)[1]
    top = value if hard == resource.RLIM_INFINITY else min(value, hard)
    resource.setrlimit(kind, (top, top))


def outcome(told: int) -> str | None:
    """Return None once the command runs, or why it could not be executed."""
    text = os.read(told, 64)
    os.close(told)
    if not text:
        return None
    known = {b"cwd", b"not_found"}
    return text.decode() if text in known else "not_executable"
