"""
The shell supervisor seen from Python: its script, its calls, its answers, its files.

One primitive, "run this argv with this stdin in the sandbox", plus `supervisor.sh` gives
detached commands that outlive whoever started them. Authoritative is what stands on the
sandbox's disk, in the *control directory* that the provider chose (outside of the command's
reach if it can):

    fence/<20 digits>       empty; the highest name is the current fence
    deadline                "<boot id> <uptime> <renewal>", both in 1/100 s: the sandbox's own
                            end, replaced by rename; there is none if the file is missing
    x/<execution id>/       made by mkdir: the claim. Everything below is mode 0600
        spec cmd stdin in   the command as it came; cmd and stdin are removed before the exec
        cgroup              path of the execution's cgroup, if the provider gave one
        sh                  the script that supervises it
        super               identity of the supervisor (leader of the first session)
        child               identity of the command (leader of the second session)
        go                  symbolic link: "by-supervisor", or "by-settle", "by-cancel",
                            "by-destroy": a tombstone. Made once, never changed: the referee
        end                 symbolic link "<who>@<uptime>@<grace>" in 1/100 s: who decided to
                            end it: itself, timeout, cancelled, expired. Made once
        why                 not_found, not_executable or cwd: the command could not be executed
        out err             the output up to the cap
        out.cut err.cut     how many bytes were cut; there when the stream has ended
        p.out p.err how     pipes, and the shell's word about a signal; removed at the end
        out.pid err.pid     who counts what is cut, so that it can be told to stop
        exit                "<cause> <code> <signal> <out> <err> <out cut> <err cut> <1/100 s>",
                            "-" for none; by rename, after all output: the last word. Only
                            its first line counts; the rest is room that was reserved as
                            `exit.new` before the start, so that a full disk cannot refuse it

An identity is "<pid> <start time> <boot id> <pid namespace>", written by rename. A symbolic
link is used where a name must be won *and* carry a value: making it is one atomic step.

Order of a start: fence, claim, input, spawn (detached) | super, pipes, filters, watchdog |
child (its own session): identity, look at the fence once more, `go`, exec | end, drain, exit.
What if we die there?

- The caller before the spawn: nobody will start that claim. `settle` wins `go`: never started.
- The supervisor before the child has `go`: as above. A child that comes too late loses `go`
  and leaves; it never asks twice.
- The supervisor after `go`: the child's identity was recorded before, so `settle` kills its
  session and sees it gone: lost. The watchdog still keeps the timeout and the deadline.
- Anyone while ending it: `end` says who and since when; whoever comes next goes on from there.
- The machine: the boot id differs, nothing of it runs. A record with another boot id and no
  `go` is answered "lost", since the disk may have forgotten `go`.

Limits, honestly: a process that leaves the session escapes unless a cgroup is given; an exit
code of 130 or 141 cannot be told from death by INT or PIPE in sh; without a living leader, a
session is known by its number alone, and that number is not given anew while it has members.
"""

import re
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path, PurePosixPath
from typing import Final

from leasehold.domain import variables
from leasehold.errors import (
    ConfigRejectedError,
    ExecutionUnknownError,
    ProviderError,
    SandboxGoneError,
    StaleFenceError,
    UnavailableError,
)
from leasehold.provider.contract import (
    Command,
    ExecutionState,
    Exit,
    ExitCause,
    Polled,
    PollItem,
    Settled,
    SettledState,
)

_BOOT: Final = 'S=$1; shift; eval "$S"'
_FILES: Final = ("supervisor.sh", "verbs.sh")
_MARK: Final = re.compile(r"#@ (?P<name>\w+)$")
_NAME: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_]*\Z")
_ID: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,127}\Z")


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """Where a sandbox's things are, in the words of the place where `run` runs."""

    control: str
    """Absolute path of the control directory."""

    cwd: str
    """Absolute path where commands start by default."""

    root: str = "/"
    """No working directory and no file of `put` or `get` is outside of it."""

    env: Mapping[str, str] | None = None
    """Variables that every command gets unless it brings its own: PATH, HOME, ..."""


@cache
def script() -> str:
    """Return the text of the supervisor."""
    here = Path(__file__).parent
    return "".join((here / name).read_text(encoding="utf-8") for name in _FILES)


@dataclass(frozen=True, slots=True)
class EffectLine:
    index: int
    """Among the script's marked lines, from 0."""

    line: int
    """In the script, from 0."""

    name: str


def effect_lines(text: str) -> list[EffectLine]:
    """List the marked lines, in the order of the text."""
    found = [
        (number, match["name"])
        for number, line in enumerate(text.splitlines())
        if (match := _MARK.search(line)) and not line.startswith("#")
    ]
    return [EffectLine(index, number, name) for index, (number, name) in enumerate(found)]


def with_kill(
    text: str, index: int, when: str, *, signal: str = "KILL", note: str | None = None
) -> str:
    """
    Return a copy that kills its own process "before" or "after" marked line `index`.

    `signal` may be STOP, for a pause that is not a death; `note` names a file that is made
    just before, so that a test knows that the point was reached.
    """
    lines = text.splitlines()
    at = effect_lines(text)[index].line
    mark = f"true >{shlex.quote(note)}; " if note else ""
    lines.insert(at if when == "before" else at + 1, f"{mark}kill -s {signal} $$")
    return "\n".join(lines) + "\n"


def with_trace(text: str, path: str) -> str:
    """Return a copy that appends the index of each marked line it reaches to a file."""
    lines = text.splitlines()
    for effect in reversed(effect_lines(text)):
        lines.insert(effect.line, f"printf '%s\\n' {effect.index} >>{shlex.quote(path)}")
    return "\n".join(lines) + "\n"


def argv(text: str, verb: str, control: str, *args: str) -> list[str]:
    """Build the argv of one call; no secret is ever part of it."""
    return ["/bin/sh", "-c", _BOOT, "leasehold", text, verb, control, *args]


def fence_name(fence: int) -> str:
    return f"{fence:020d}"


def checked_id(execution_id: str) -> str:
    """Return the id; it becomes a file name, so only plain characters are taken."""
    if not _ID.match(execution_id):
        raise ConfigRejectedError(
            f"execution id {execution_id!r}: letters, digits and _.- only"
        )
    return execution_id


def check_command(command: Command) -> None:
    """
    Refuse what no kernel or shell could take, and variables that would act on ours.

    Raises:
        ConfigRejectedError: Says which part and why; names variables, never their values.
    """
    if not command.argv:
        raise ConfigRejectedError("the command is empty")
    if any("\0" in part for part in (*command.argv, command.cwd or "")):
        raise ConfigRejectedError("a command's arguments and directory cannot hold NUL")
    if (refused := variables.first_refusal(command.env)) is not None:
        raise ConfigRejectedError(refused[1])
    for name, value in command.env.items():
        if not _NAME.match(name):
            raise ConfigRejectedError(f"{name!r} is not the name of an environment variable")
        if "\0" in value:
            raise ConfigRejectedError(f"the value of {name} holds NUL")


def start_input(
    command: Command, place: Place, *, execution_id: str, fence: int
) -> list[bytes]:
    """Return the three parts that `start` reads: its spec, the command as shell, stdin."""
    check_command(command)
    env = {**(place.env or {}), **command.env}
    cwd = command.cwd or "."
    timeout = (
        "-" if command.timeout is None else str(round(command.timeout.total_seconds() * 100))
    )
    spec = {
        "fence": fence_name(fence),
        "cwd": cwd if cwd.startswith("/") else f"{place.cwd}/{cwd}",
        "root": place.root,
        "prog": command.argv[0],
        "path": env.get("PATH", ""),
        "timeout": timeout,
        "grace": str(round(command.grace.total_seconds() * 100)),
        "cap": str(max(0, command.output_cap_bytes)),
    }
    why = shlex.quote(f"{place.control}/x/{execution_id}/why")
    lines = [
        # Only a failed exec comes back to this shell.
        f"trap {shlex.quote(f'echo not_executable >{why}; exit 126')} EXIT",
        "unset PWD OLDPWD SHLVL _",
        *(f"export {name}={shlex.quote(value)}" for name, value in env.items()),
        *([] if "PATH" in env else ["unset PATH"]),
        "set -- " + " ".join(map(shlex.quote, command.argv)),
        'exec "$@"',
    ]
    return [
        "".join(f"{key}={shlex.quote(value)}\n" for key, value in spec.items()).encode(
            errors="surrogateescape"
        ),
        ("\n".join(lines) + "\n").encode(errors="surrogateescape"),
        command.stdin,
    ]


def inside(place: Place, path: str) -> tuple[str, str]:
    """
    Split a path of `put` or `get` into the root and what lies below it.

    Raises:
        ConfigRejectedError: The path is outside of the sandbox's root.
    """
    if "\0" in path:
        raise ConfigRejectedError("a path cannot hold NUL")
    whole = PurePosixPath(place.cwd, path)
    if ".." in whole.parts or not whole.is_relative_to(place.root):
        raise ConfigRejectedError(f"the path {path!r} leaves the sandbox")
    return place.root, str(whole.relative_to(place.root))


def parse_exit(words: Sequence[str]) -> Exit:
    """Read the fields of an `exit` record."""
    cause, code, signal, *numbers = words
    out, err, out_cut, err_cut, took = map(int, numbers)
    return Exit(
        cause=ExitCause(cause),
        code=None if code == "-" else int(code),
        signal=None if signal == "-" else int(signal),
        stdout_bytes=out,
        stderr_bytes=err,
        stdout_dropped=out_cut,
        stderr_dropped=err_cut,
        duration_s=took / 100,
    )


def refusal(words: Sequence[str]) -> ProviderError:
    """Turn an answer "error KIND text" into the contract's error."""
    kind, text = words[1], " ".join(words[2:])
    match kind:
        case "gone":
            return SandboxGoneError(text)
        case "stale":
            return StaleFenceError(text)
        case "unknown":
            return ExecutionUnknownError(text)
        case "path":
            return ConfigRejectedError(text)
        case _:
            return UnavailableError(f"{kind}: {text}")


def answer(rc: int, out: bytes, err: bytes) -> tuple[list[str], bytes]:
    """
    Split an answer into the words of its first line and the bytes after it.

    Raises:
        ProviderError: The supervisor refused, or gave no answer at all.
    """
    head, newline, rest = out.partition(b"\n")
    words = head.decode(errors="replace").split(" ")
    if not newline:
        text = err.decode(errors="replace").strip()[-300:]
        raise UnavailableError(f"the supervisor gave no answer (exit {rc}): {text}")
    if words[0] == "error":
        raise refusal(words)
    return words, rest


def parse_settled(words: Sequence[str]) -> Settled:
    """Read the answer of `settle` or `cancel`."""
    match words[1]:
        case "exited":
            return Settled(state=SettledState.EXITED, exit=parse_exit(words[2:]))
        case "lost":
            return Settled(state=SettledState.LOST)
        case "never":
            return Settled(state=SettledState.NEVER_STARTED)
        case other:
            raise UnavailableError(f"the supervisor answered {other!r}")


def parse_item(item: PollItem, data: bytes) -> tuple[Polled | None, bytes]:
    """Read one item's answer off the front of `data`; None if it is not whole."""
    head, newline, rest = data.partition(b"\n")
    words = head.decode(errors="replace").split(" ")
    if not newline or words[:2] != ["item", item.execution_id]:
        return None, b""
    run, sizes, record = words[2], (int(words[3]), int(words[4])), words[5:]
    stdout, rest = rest[: sizes[0]], rest[sizes[0] :]
    stderr, rest = rest[: sizes[1]], rest[sizes[1] :]
    if (len(stdout), len(stderr)) != sizes:
        return None, b""
    if run == "unknown":
        unknown = ExecutionUnknownError(f"no execution {item.execution_id}")
        return Polled(execution_id=item.execution_id, error=unknown), rest
    if run == "elsewhere":
        elsewhere = UnavailableError("the supervisor runs in another pid namespace")
        return Polled(execution_id=item.execution_id, error=elsewhere), rest
    return Polled(
        execution_id=item.execution_id,
        state=ExecutionState(run),
        exit=parse_exit(record) if run == "exited" else None,
        stdout=stdout,
        stderr=stderr,
    ), rest
