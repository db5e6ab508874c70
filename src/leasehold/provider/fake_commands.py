"""
The words of a command of the `fake` provider. A command is told by its words:

    true | false | exit N | signal N       end at once, so
    echo WORDS… | print TEXT | err TEXT    write to stdout (print: no newline) or stderr
    cat | env | env base64                 write stdin, or the environment, to stdout
    fill N                                 write N bytes
    sleep SECONDS                          end later
    mark FILE                              append a line to a real file, when started
    write FILE WORDS…                      write a file of the sandbox, when started

Phrases are joined by ``then``: ``sleep 1 then echo done then exit 3``. Output appears when
the sleeps before it are over. Any other word is a command that does not exist (127).
"""

from base64 import b64encode
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, TypeAlias

from leasehold.provider import contract as c

Part: TypeAlias = tuple[float, bytes, int]
"""When, what, how often."""


@dataclass(slots=True)
class _Plan:
    """What a command will have done, at which second after its start."""

    out: list[Part]
    err: list[Part]
    ends_after: float
    cause: c.ExitCause
    code: int | None
    signal: int | None
    marks: list[str]
    files: list[tuple[str, str]]


def plan_of(command: c.Command) -> _Plan:
    """Read a command's words."""
    plan = _Plan([], [], 0.0, c.ExitCause.EXITED, 0, None, [], [])
    phrase: list[str] = []
    for word in (*command.argv, "then"):
        if word != "then":
            phrase.append(word)
        elif phrase:
            if not _do(plan, phrase, command):
                break
            phrase = []
    return plan


def _do(plan: _Plan, phrase: list[str], command: c.Command) -> bool:  # noqa: C901, PLR0912  a table of words
    verb, words, at = phrase[0], phrase[1:], plan.ends_after
    match verb:
        case "true":
            return True
        case "false":
            plan.code = 1
        case "exit":
            plan.code = int(words[0])
        case "signal":
            plan.cause, plan.code = c.ExitCause.SIGNALLED, None
            plan.signal = int(words[0])
        case "sleep":
            plan.ends_after += float(words[0])
            return True
        case "echo":
            plan.out.append((at, (" ".join(words) + "\n").encode(), 1))
            return True
        case "print":
            plan.out.append((at, " ".join(words).encode(), 1))
            return True
        case "err":
            plan.err.append((at, (" ".join(words) + "\n").encode(), 1))
            return True
        case "cat":
            plan.out.append((at, command.stdin, 1))
            return True
        case "env":
            text = "".join(f"{k}={v}\n" for k, v in sorted(command.env.items()))
            data = b64encode(text.encode()) if words == ["base64"] else text.encode()
            plan.out.append((at, data, 1))
            return True
        case "fill":
            plan.out.append((at, b"x", int(words[0])))
            return True
        case "mark":
            plan.marks.append(words[0])
            return True
        case "write":
            plan.files.append((words[0], " ".join(words[1:]) + "\n"))
            return True
        case _:
            plan.cause, plan.code = c.ExitCause.NOT_FOUND, 127
            plan.err.append((at, f"{verb}: not found\n".encode(), 1))
    return False


def stamp(command: c.Command, now: float) -> dict[str, Any]:
    """Return what the world keeps of a start: when, and what it will have done."""
    plan = plan_of(command)

    def text(parts: list[Part]) -> list[tuple[float, str, int]]:
        return [(at, data.decode("latin-1"), times) for at, data, times in parts]

    timeout = command.timeout.total_seconds() if command.timeout else None
    return {
        "began": now,
        "out": text(plan.out),
        "err": text(plan.err),
        "ends_after": plan.ends_after,
        "cause": plan.cause,
        "code": plan.code,
        "signal": plan.signal,
        "marks": plan.marks,
        "files": plan.files,
        "timeout_s": timeout,
        "cap": command.output_cap_bytes,
    }


ROUNDING_S: Final = 1e-6


def seen(
    run: Mapping[str, Any], end: Mapping[str, Any] | None, now: float
) -> tuple[bytes, bytes, c.Exit | None]:
    """Return a started command's output so far, and its exit if it is over."""
    began = run["began"]
    natural = began + run["ends_after"]
    over_at = min(natural, end["at"]) if end else natural
    limited = run["timeout_s"]
    timed_out = limited is not None and began + limited < over_at
    if timed_out:
        over_at = began + limited
    # Seconds since boot are floats: began + 0.05 - began may be less than 0.05.
    age = min(now, over_at) - began + ROUNDING_S
    out, out_dropped = _written(run["out"], age, run["cap"])
    err, err_dropped = _written(run["err"], age, run["cap"])
    if now < over_at:
        return out, err, None
    if timed_out:
        cause, code, signal = c.ExitCause.TIMEOUT, None, 15
    elif end and end["at"] < natural:
        cause, code, signal = c.ExitCause(end["cause"]), None, 15
    else:
        cause, code, signal = c.ExitCause(run["cause"]), run["code"], run["signal"]
    exit_ = c.Exit(
        cause=cause,
        code=code,
        signal=signal,
        stdout_bytes=len(out),
        stderr_bytes=len(err),
        stdout_dropped=out_dropped,
        stderr_dropped=err_dropped,
        duration_s=over_at - began,
    )
    return out, err, exit_


def _written(parts: list[tuple[float, str, int]], age: float, cap: int) -> tuple[bytes, int]:
    """Return a stream as it is `age` seconds after the start, and what is beyond the cap."""
    whole, size = b"", 0
    for at, text, times in parts:
        if at <= age:
            data = text.encode("latin-1")
            size += len(data) * times
            room = cap - len(whole)
            if room > 0 and data:
                whole += (data * min(times, room // len(data) + 1))[:room]
    return whole, size - len(whole)
