"""
Looking: poll many executions at once, read output from an offset. Pure: nothing is changed.

The common case, a command that waits, must cost next to nothing, since one worker looks at
thousands. An exit record is one `readlink`. A running command whose supervisor is watched costs
two `stat` calls, for its output; else `go` and the supervisor's identity are looked at too.
"""

import contextlib
import os
from collections.abc import Sequence
from dataclasses import replace
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
    Stream,
    Target,
    UnavailableError,
)

from leasehold_local import layout, processes
from leasehold_local.executions import Executions
from leasehold_local.watching import ExitWatch

_FILES: Final = {Stream.STDOUT: "out", Stream.STDERR: "err"}


class Looking:
    def __init__(self, executions: Executions, watch: ExitWatch) -> None:
        self._executions, self._watch = executions, watch

    def poll(self, items: Sequence[PollItem], limit_bytes: int, budget: Budget) -> list[Polled]:
        """Answer each item on its own; an item's failure is its own."""
        answers = []
        for item in items:
            budget.check()
            try:
                answers.append(self._look(item, limit_bytes))
            except ProviderError as error:
                answers.append(Polled(execution_id=item.execution_id, error=error))
            except (OSError, ValueError) as error:
                wrapped = UnavailableError(f"looking at {item.execution_id}: {error}")
                answers.append(Polled(execution_id=item.execution_id, error=wrapped))
        return answers

    def _look(self, item: PollItem, limit: int) -> Polled:
        place = self._executions.place(item.target, item.execution_id)
        record = None
        if self._watch.running(item.execution_id):
            state = ExecutionState.RUNNING
        else:
            state, record = self._state(place, item)
        return Polled(
            execution_id=item.execution_id,
            state=state,
            exit=record,
            stdout=_fresh(f"{place}/out", item.stdout_offset, limit),
            stderr=_fresh(f"{place}/err", item.stderr_offset, limit),
        )

    def _state(self, place: str, item: PollItem) -> tuple[ExecutionState, Exit | None]:
        if record := self._ended(place):
            return ExecutionState.EXITED, record
        go = layout.value(f"{place}/go")
        if go is None:
            self._check_there(place, item.target, item.execution_id)
            here = layout.value(f"{place}/boot") == processes.boot_id()
            return (ExecutionState.STARTING if here else ExecutionState.UNCLEAR), None
        identity = layout.parse_go(go)
        if identity is None or identity.boot != processes.boot_id():
            return ExecutionState.UNCLEAR, None
        if identity.namespace != processes.pid_namespace():
            raise UnavailableError("the supervisor runs in another pid namespace")
        if self._watch.confirm(item.execution_id, identity):
            return ExecutionState.RUNNING, None
        # It may have written its record and left while we looked.
        if record := self._ended(place):
            return ExecutionState.EXITED, record
        return ExecutionState.UNCLEAR, None

    def _ended(self, place: str) -> Exit | None:
        """Return the record; what a loss of power took from the output counts as dropped."""
        record = self._executions.record(place)
        if record is None or layout.value(f"{place}/boot") == processes.boot_id():
            return record
        out, err = _size(f"{place}/out"), _size(f"{place}/err")
        if out >= record.stdout_bytes and err >= record.stderr_bytes:
            return record
        lost_out = max(0, record.stdout_bytes - out)
        lost_err = max(0, record.stderr_bytes - err)
        return replace(
            record,
            stdout_bytes=record.stdout_bytes - lost_out,
            stderr_bytes=record.stderr_bytes - lost_err,
            stdout_dropped=record.stdout_dropped + lost_out,
            stderr_dropped=record.stderr_dropped + lost_err,
        )

    def _check_there(self, place: str, target: Target, execution_id: str) -> None:
        if os.path.isdir(place):
            return
        sandbox = os.path.dirname(os.path.dirname(os.path.dirname(place)))
        layout.check_incarnation(sandbox, target)
        raise ExecutionUnknownError(f"no execution {execution_id} in {sandbox}")

    def read(
        self, target: Target, execution_id: str, stream: Stream, offset: int, limit: int
    ) -> Chunk:
        """Return stored bytes from `offset` on; `eof` once all of an ended one is read."""
        place = self._executions.place(target, execution_id)
        try:
            over = self._ended(place) is not None
            if not over:
                self._check_there(place, target, execution_id)
            path = f"{place}/{_FILES[stream]}"
            data = _fresh(path, offset, limit)
            at = offset + len(data)
            return Chunk(data=data, next_offset=at, eof=over and at >= _size(path))
        except OSError as error:
            raise UnavailableError(f"reading the output: {error}") from error


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
    with contextlib.suppress(FileNotFoundError):
        handle = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            return os.pread(handle, min(limit, size - offset), offset)
        finally:
            os.close(handle)
    return b""
