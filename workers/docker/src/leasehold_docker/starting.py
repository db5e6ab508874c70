"""
A start: the wrapper is brought up by the engine first, then the claim decides who feeds it.

    1. pipes for this try, in a directory that the container sees
    2. the engine starts `wrapper.sh` in the container, as the command's user; it waits
    3. the supervisor's `start`, on the host: claim, and with the claim a stand-in for this try
    4. (detached) `go` is won; the stand-in hands the command to its wrapper

Only step 2 needs the engine, and an engine that fails there has claimed nothing: the call says
so and is repeated. Whoever dies between 2 and 3, or loses the claim, leaves a wrapper that will
never be fed; it is ended by the loser itself, or by a later start. A try has a name of its own,
so a stand-in can never meet another one's wrapper.

Variables and words go through a pipe: neither an argv nor the engine ever has them.
"""

import json
import os
import re
import shlex
import signal
import sys
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from shutil import rmtree
from typing import Final
from uuid import uuid4

from leasehold.provider import (
    SAFE_PATH,
    Command,
    Started,
    StartOutcome,
    UnavailableError,
    effect,
)
from leasehold.provider.supervisor import check_command

from leasehold_docker import groups
from leasehold_docker.layout import Directory

INSIDE: Final = "/run/leasehold"
WORK: Final = "/sandbox/work"
HOME: Final = "/sandbox/home"
_ENV: Final[Mapping[str, str]] = {
    "PATH": SAFE_PATH,
    "HOME": HOME,
    "LANG": "C.UTF-8",
    "TMPDIR": "/tmp",  # noqa: S108  the sandbox's own
}
_SET_BY_ENGINES: Final = (
    "PWD", "OLDPWD", "SHLVL", "_", "PATH", "HOME", "HOSTNAME", "TERM", "container",
)  # fmt: skip
_NAME: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_]*\Z")
_STALE_S: Final = 120.0


@cache
def text_of(name: str) -> str:
    """Return a script that runs inside of the container, without its comments."""
    lines = (Path(__file__).parent / name).read_text(encoding="utf-8").splitlines()
    return "\n".join(line for line in lines if not line.lstrip().startswith("#")) + "\n"


@dataclass(frozen=True, slots=True)
class Try:
    """One try to start an execution: its pipes, and the wrapper that waits at them."""

    directory: Directory
    name: str

    @property
    def pipes(self) -> str:
        return f"{self.directory.io}/t/{self.name}"

    @property
    def wrapper(self) -> list[str]:
        """Return the argv of the process inside."""
        return ["/bin/sh", "-c", text_of("wrapper.sh"), "leasehold", f"{INSIDE}/t/{self.name}"]

    def drop(self, container: groups.Groups) -> None:
        """End the wrapper, which was never fed, and remove the pipes."""
        mark = f"{INSIDE}/t/{self.name}".encode()
        for pid in groups.processes(container.tree):
            with suppress(OSError), open(f"/proc/{pid}/cmdline", "rb") as file:
                if file.read().split(b"\0")[-2:] == [mark, b""]:
                    os.kill(pid, signal.SIGKILL)
        rmtree(self.pipes, ignore_errors=True)


def prepare(directory: Directory, execution_id: str, stdin: bytes) -> Try:
    """Make the pipes of a new try."""
    made = Try(directory, f"{execution_id}.{os.getpid()}.{uuid4().hex[:12]}")
    try:
        with effect("docker:pipes"):
            os.mkdir(made.pipes)
            os.chmod(made.pipes, 0o711)  # noqa: S103  whose parent is 0700
            for name, mode in (("said", 0o622), ("cmd", 0o644)):
                os.mkfifo(f"{made.pipes}/{name}")
                os.chmod(f"{made.pipes}/{name}", mode)
            with open(f"{made.pipes}/stdin", "xb") as file:
                os.fchmod(file.fileno(), 0o644)
                file.write(stdin)
    except OSError as error:
        rmtree(made.pipes, ignore_errors=True)
        raise UnavailableError(f"cannot make the pipes of {execution_id}: {error}") from error
    return made


def clear(directory: Directory, container: groups.Groups, newest: Try) -> None:
    """End what dead callers left: wrappers that nobody will feed, groups of the ended."""
    with suppress(FileNotFoundError):
        now = os.stat(newest.pipes).st_mtime
        for name in os.listdir(f"{directory.io}/t"):
            old = Try(directory, name)
            execution_id, maker, _ = name.rsplit(".", 2)
            with suppress(FileNotFoundError):
                claimed = os.path.isdir(directory.execution(execution_id))
                stale = now - os.stat(old.pipes).st_mtime > _STALE_S
                if stale and not claimed and not os.path.exists(f"/proc/{maker}"):
                    old.drop(container)
    for execution_id in groups.execution_ids(container):
        if os.path.exists(f"{directory.execution(execution_id)}/exit"):
            groups.remove(container, execution_id)


def stand_in(
    made: Try,
    command: Command,
    *,
    group: str,
    memory: str,
    inherited: Iterable[str],
    variables: Mapping[str, str],
) -> Command:
    """Return what the supervisor on the host runs for `command`."""
    job = {"token": uuid4().hex, "text": ""}
    job["text"] = _text(command, job["token"], inherited, variables)
    execution_id = made.name.rsplit(".", 2)[0]
    script = str(Path(__file__).parent / "stand_in.py")
    place = made.directory.execution(execution_id)
    return Command(
        argv=(sys.executable, "-I", "-S", script, made.pipes, place, group, memory),
        cwd="/",
        # Nothing of the command's own is a variable of a process on the host.
        env={},
        stdin=json.dumps(job).encode(),
        timeout=command.timeout,
        grace=command.grace,
        output_cap_bytes=command.output_cap_bytes,
    )


def _text(
    command: Command, token: str, inherited: Iterable[str], variables: Mapping[str, str]
) -> str:
    """Return the command as the wrapper evaluates it."""
    check_command(command)
    env = {**_ENV, **variables, **command.env}
    cwd = command.cwd or "."
    names = sorted({*_SET_BY_ENGINES, *(name for name in inherited if _NAME.match(name))})
    lines = [
        f"lh_token={token}",
        f"lh_prog={shlex.quote(command.argv[0])}",
        f"lh_path={shlex.quote(env['PATH'])}",
        f"lh_cwd={shlex.quote(cwd if cwd.startswith('/') else f'{WORK}/{cwd}')}",
        "lh_become() {",
        f"unset {' '.join(names)}",
        *(f"export {name}={shlex.quote(value)}" for name, value in env.items()),
        "set -- " + " ".join(map(shlex.quote, command.argv)),
        'exec "$@"',
        "}",
        ": end",
    ]
    return "\n".join(lines) + "\n"


def claimed(place: str) -> Started:
    """Say what became of a start that came first; nothing is started."""
    try:
        go = os.readlink(f"{place}/go")
    except FileNotFoundError:
        go = "by-supervisor"
    tombstone = go != "by-supervisor"
    outcome = StartOutcome.CANCELLED if tombstone else StartOutcome.ADOPTED
    return Started(outcome=outcome, handle={})
