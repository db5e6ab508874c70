"""
Looking: poll many executions, read output, from the host's files alone. Pure.

The supervisor's files are the truth (`leasehold.provider.supervisor` says what each proves),
and they are on this host: no look asks the engine or runs anything, and a thousand cost what a
thousand `open` cost. Whether the container still runs is no question here: if it ended, its
commands ended, and their supervisors write that down.
"""

import os
from collections.abc import Sequence
from contextlib import suppress
from typing import Final

from leasehold.provider import (
    Budget,
    Chunk,
    ExecutionState,
    ExecutionUnknownError,
    Exit,
    Polled,
    PollItem,
    ProviderError,
    SandboxGoneError,
    Stream,
    UnavailableError,
)
from leasehold.provider.supervisor import checked_id, parse_exit

from leasehold_docker.layout import Directory, boot_id

_FILES: Final = {Stream.STDOUT: "out", Stream.STDERR: "err"}
_STARTED_FIELD: Final = 19
"""Of /proc/PID/stat, counted from the state."""


def poll(
    items: Sequence[tuple[Directory | ProviderError, PollItem]], limit: int, budget: Budget
) -> list[Polled]:
    """Answer each item on its own; an item's failure is its own."""
    answers = []
    for directory, item in items:
        budget.check()
        try:
            if isinstance(directory, ProviderError):
                raise directory
            answers.append(_look(directory, item, limit))
        except ProviderError as error:
            answers.append(Polled(execution_id=item.execution_id, error=error))
        except (OSError, ValueError) as error:
            wrapped = UnavailableError(f"looking at {item.execution_id}: {error}")
            answers.append(Polled(execution_id=item.execution_id, error=wrapped))
    return answers


def read(
    directory: Directory, execution_id: str, stream: Stream, offset: int, limit: int
) -> Chunk:
    """Return stored bytes from `offset` on; `eof` once all of an ended one is read."""
    place = directory.execution(checked_id(execution_id))
    over = _ended(place) is not None
    if not over and not os.path.isdir(place):
        raise _unknown(directory, execution_id)
    try:
        path = f"{place}/{_FILES[stream]}"
        data = _fresh(path, offset, limit)
        at = offset + len(data)
        return Chunk(data=data, next_offset=at, eof=over and at >= _size(path))
    except OSError as error:
        raise UnavailableError(f"reading the output: {error}") from error


def _look(directory: Directory, item: PollItem, limit: int) -> Polled:
    place = directory.execution(checked_id(item.execution_id))
    state, record = _state(directory, place, item)
    return Polled(
        execution_id=item.execution_id,
        state=state,
        exit=record,
        stdout=_fresh(f"{place}/out", item.stdout_offset, limit),
        stderr=_fresh(f"{place}/err", item.stderr_offset, limit),
    )


def _state(
    directory: Directory, place: str, item: PollItem
) -> tuple[ExecutionState, Exit | None]:
    if record := _ended(place):
        return ExecutionState.EXITED, record
    go = ""
    with suppress(FileNotFoundError):
        go = os.readlink(f"{place}/go")
    if go not in ("", "by-supervisor"):
        return ExecutionState.UNCLEAR, None
    words = _words(f"{place}/super")
    if len(words) < 4:  # noqa: PLR2004  an identity's
        if not os.path.isdir(place):
            raise _unknown(directory, item.execution_id)
        return (ExecutionState.UNCLEAR if go else ExecutionState.STARTING), None
    if _lives(*words[:4]):
        return (ExecutionState.RUNNING if go else ExecutionState.STARTING), None
    # It may have written its record and left while we looked.
    if record := _ended(place):
        return ExecutionState.EXITED, record
    return ExecutionState.UNCLEAR, None


def _unknown(directory: Directory, execution_id: str) -> ProviderError:
    if directory.label() is None:
        return SandboxGoneError(f"there is no sandbox at {directory.path}")
    return ExecutionUnknownError(f"no execution {execution_id} in {directory.path}")


def _ended(place: str) -> Exit | None:
    words = _words(f"{place}/exit")
    return parse_exit(words) if words else None


def _words(path: str) -> list[str]:
    """Return the words of a file's first line; none if there is no such file."""
    try:
        with open(path, encoding="ascii") as file:
            return file.readline().split()
    except (FileNotFoundError, NotADirectoryError):
        return []


def _lives(pid: str, began: str, boot: str, namespace: str) -> bool:
    """
    Tell whether a recorded process lives; a zombie does not.

    Raises:
        UnavailableError: It is in another pid namespace, where we cannot see.
    """
    if boot != boot_id():
        return False
    if namespace not in ("unknown", os.readlink("/proc/self/ns/pid")):
        raise UnavailableError("the supervisor runs in another pid namespace")
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            fields = file.read().rpartition(b")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return False
    return fields[0] not in (b"Z", b"X") and fields[_STARTED_FIELD] == began.encode()


def _size(path: str) -> int:
    try:
        return os.stat(path).st_size
    except FileNotFoundError:
        return 0


def _fresh(path: str, offset: int, limit: int) -> bytes:
    """Read what came after `offset`, at most `limit` bytes."""
    size = _size(path)
    if size <= offset or limit <= 0:
        return b""
    with suppress(FileNotFoundError), open(path, "rb", buffering=0) as file:
        return os.pread(file.fileno(), min(limit, size - offset), offset)
    return b""
