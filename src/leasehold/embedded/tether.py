"""
Run a program that dies with its parent: ``python -m leasehold.embedded.tether``.

A server that we start must not outlive us, not even when we are killed with SIGKILL and
can clean up nothing. The kernel does it: `PR_SET_PDEATHSIG`, set by the child itself, then
`exec`. Three things to know:

- The signal comes when the *thread* that started the child ends, not only the process.
  Start tethered children from a thread that lives as long as they should (the main one).
- A parent that died before the child asked is seen by comparing parent ids, so there is no
  gap.
- A change of user clears the setting: change the user first.

Linux only, as hosts are. Elsewhere nothing is set, and the parent must end its children.
"""

import argparse
import ctypes
import os
import pwd
import signal
import sys
from typing import Final, NoReturn

_PR_SET_PDEATHSIG: Final = 1


def tether(parent: int, *, signum: int = signal.SIGKILL) -> None:
    """Ask the kernel to send us `signum` when `parent`, who started us, dies."""
    if sys.platform == "linux":
        libc = ctypes.CDLL(None, use_errno=True)
        if libc.prctl(_PR_SET_PDEATHSIG, signum, 0, 0, 0) != 0:
            raise OSError(ctypes.get_errno(), "prctl(PR_SET_PDEATHSIG)")
    if os.getppid() != parent:
        os._exit(1)


def become(user: str) -> None:
    """Drop from root to `user` for good."""
    entry = pwd.getpwnam(user)
    os.initgroups(user, entry.pw_gid)
    os.setgid(entry.pw_gid)
    os.setuid(entry.pw_uid)


def command(
    program: list[str], *, user: str | None = None, signum: int = signal.SIGKILL
) -> list[str]:
    """Return the argv that runs `program` on our tether."""
    argv = [sys.executable, "-m", __name__, "--parent", str(os.getpid())]
    argv += ["--signal", str(int(signum))]
    if user is not None:
        argv += ["--user", user]
    return [*argv, "--", *program]


def main(argv: list[str]) -> NoReturn:
    """Become the program."""
    parser = argparse.ArgumentParser(prog="leasehold.embedded.tether", allow_abbrev=False)
    parser.add_argument("--parent", type=int, required=True)
    parser.add_argument("--signal", type=int, default=int(signal.SIGKILL))
    parser.add_argument("--user")
    parser.add_argument("program", nargs="+")
    options = parser.parse_args(argv)
    if options.user is not None:
        become(options.user)
    tether(options.parent, signum=options.signal)
    os.execvp(options.program[0], options.program)  # noqa: S606 (an argv, no shell)


if __name__ == "__main__":
    main(sys.argv[1:])
