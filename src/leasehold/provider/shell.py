"""
`ShellProvider`: the author's shortcut to a whole provider.

Write `describe`, `probe`, `validate`, `acquire`, `inspect`, `renew`, `release`, `list_owned`;
say with `place` where a sandbox keeps its things; supply one primitive: `run` an argv in the
sandbox and wait for it. All else is the shell supervisor, called through that primitive.

Nothing is kept in memory: the sandbox's own files decide (see `supervisor`), so any process
may repeat any call. An answer that was lost is asked for again; only a complete first line
counts as one, everything else is "not reached", never a state of the execution.
"""

import signal
import subprocess
from abc import abstractmethod
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from datetime import timedelta
from os import killpg
from typing import BinaryIO, Final, NamedTuple
from uuid import uuid4

from leasehold.errors import (
    DeadlineExceededError,
    InterruptedCallError,
    ProviderError,
    UnavailableError,
)
from leasehold.provider import supervisor
from leasehold.provider.archive import checked_tree
from leasehold.provider.budget import Budget, boot_time
from leasehold.provider.contract import (
    Chunk,
    Command,
    Handle,
    Polled,
    PollItem,
    Provider,
    Settled,
    Started,
    StartOutcome,
    Stream,
    Target,
)
from leasehold.provider.supervisor import Place

SAFE_PATH: Final = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
_PART_BYTES: Final = 4 * 1024 * 1024
_FILES: Final = {Stream.STDOUT: "out", Stream.STDERR: "err"}
_SLICE_S: Final = 0.2


class RunResult(NamedTuple):
    """How a call of `run` ended."""

    rc: int
    out: bytes
    err: bytes


def run_here(argv: Sequence[str], *, stdin: bytes, budget: Budget) -> RunResult:
    """
    Run on this host, with a clean environment; the `run` of a host-process provider.

    Raises:
        DeadlineExceededError: The budget ran out; the call was killed, effects may stand.
        InterruptedCallError: Nobody wants the call any more; as above.
    """
    budget.check()
    process = subprocess.Popen(
        argv,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        # The supervisor outlives us: neither our environment nor our directory is its business.
        env={"PATH": SAFE_PATH, "LC_ALL": "C"},
        cwd="/",
        start_new_session=True,
    )
    data: bytes | None = stdin
    while True:
        try:
            out, err = process.communicate(
                data, timeout=max(0.01, min(_SLICE_S, budget.left_s()))
            )
        except subprocess.TimeoutExpired:
            data = None
            try:
                budget.check()
            except (DeadlineExceededError, InterruptedCallError):
                with suppress(ProcessLookupError):
                    killpg(process.pid, signal.SIGKILL)
                process.communicate()
                raise
        else:
            return RunResult(process.returncode, out, err)


class ShellProvider(Provider):
    """A provider made of `run` and the shell supervisor."""

    def __init__(self, *, script: str | None = None) -> None:
        """`script`: another text of the supervisor; crash tests pass copies that die."""
        self._script = script or supervisor.script()

    @abstractmethod
    def run(
        self, target: Target, argv: Sequence[str], *, stdin: bytes, budget: Budget
    ) -> RunResult:
        """
        Run `argv` in the sandbox, wait for it, return its exit code and all of its output.

        Raises:
            SandboxGoneError: There is no such sandbox.
            UnavailableError: It could not be reached; the call may have had its effect.
        """

    @abstractmethod
    def place(self, target: Target) -> Place:
        """Say where the sandbox keeps its things; no input or output if avoidable."""

    def cgroup(self, target: Target, execution_id: str) -> str | None:  # noqa: ARG002 - for authors
        """Return the directory of the execution's own cgroup, made already, or None."""
        return None

    def call(
        self, target: Target, verb: str, *args: str, stdin: bytes = b"", budget: Budget
    ) -> tuple[list[str], bytes]:
        """Call one verb of the supervisor; returns the words of its answer and what follows."""
        budget.check()
        line = supervisor.argv(self._script, verb, self.place(target).control, *args)
        return supervisor.answer(*self.run(target, line, stdin=stdin, budget=budget))

    def install(self, target: Target, *, fence: int, budget: Budget) -> None:
        """Create the control directory in a new sandbox, with its first fence."""
        self.call(target, "init", supervisor.fence_name(fence), budget=budget)

    def end_all(self, target: Target, *, fence: int, budget: Budget) -> None:
        """Kill every execution's tree and make sure that none starts; for `release`."""
        self.call(target, "end", supervisor.fence_name(fence), budget=budget)

    def seize(self, target: Target, *, fence: int, budget: Budget) -> None:
        self.call(target, "seize", supervisor.fence_name(fence), budget=budget)

    def start(
        self,
        target: Target,
        *,
        fence: int,
        execution_id: str,
        command: Command,
        budget: Budget,
    ) -> Started:
        supervisor.checked_id(execution_id)
        spec, cmd, stdin = supervisor.start_input(
            command, self._furnished(target), execution_id=execution_id, fence=fence
        )
        words, _ = self.call(
            target,
            "start",
            execution_id,
            supervisor.fence_name(fence),
            *(str(size) for size in (len(spec), len(cmd), len(spec) + len(cmd) + len(stdin))),
            self.cgroup(target, execution_id) or "-",
            stdin=b"".join((spec, cmd, stdin)),
            budget=budget,
        )
        return Started(outcome=StartOutcome(words[1]), handle={})

    def poll(
        self, items: Sequence[PollItem], *, limit_bytes: int, budget: Budget
    ) -> Sequence[Polled]:
        groups: dict[str, list[int]] = {}
        answers: dict[int, Polled] = {}
        for index, item in enumerate(items):
            try:
                supervisor.checked_id(item.execution_id)
                groups.setdefault(self.place(item.target).control, []).append(index)
            except ProviderError as error:
                answers[index] = Polled(execution_id=item.execution_id, error=error)
        for indexes in groups.values():
            mine = [items[index] for index in indexes]
            answers.update(
                zip(indexes, self._poll_one(mine, limit_bytes, budget), strict=True),
            )
        return [answers[index] for index in range(len(items))]

    def _poll_one(self, items: list[PollItem], limit: int, budget: Budget) -> Iterator[Polled]:
        """Ask one sandbox about its executions, in one call."""
        asked = "".join(
            f"{item.execution_id} {item.stdout_offset} {item.stderr_offset}\n" for item in items
        )
        line = supervisor.argv(
            self._script, "poll", self.place(items[0].target).control, str(limit)
        )
        trouble: ProviderError | None = None
        rest = b""
        try:
            budget.check()
            result = self.run(items[0].target, line, stdin=asked.encode(), budget=budget)
            rest = result.out
            if not rest.startswith(b"item "):
                supervisor.answer(*result)
        except ProviderError as error:
            trouble = error
        for item in items:
            polled, rest = (None, rest) if trouble else supervisor.parse_item(item, rest)
            yield polled or Polled(
                execution_id=item.execution_id,
                error=trouble or UnavailableError("the answer to a poll was cut short"),
            )

    def settle(
        self, target: Target, *, fence: int, execution_id: str, handle: Handle, budget: Budget
    ) -> Settled:
        del handle
        words, _ = self.call(
            target,
            "settle",
            supervisor.checked_id(execution_id),
            supervisor.fence_name(fence),
            budget=budget,
        )
        if words[1] == "running":
            raise UnavailableError("the command runs under its supervisor")
        return supervisor.parse_settled(words)

    def read(
        self,
        target: Target,
        *,
        execution_id: str,
        handle: Handle,
        stream: Stream,
        offset: int,
        limit_bytes: int,
        budget: Budget,
    ) -> Chunk:
        del handle
        words, data = self.call(
            target,
            "read",
            supervisor.checked_id(execution_id),
            _FILES[stream],
            str(offset),
            str(limit_bytes),
            budget=budget,
        )
        if len(data) != int(words[2]):
            raise UnavailableError("the answer to a read was cut short")
        return Chunk(data=data, next_offset=offset + len(data), eof=words[1] == "1")

    def cancel(
        self,
        target: Target,
        *,
        fence: int,
        execution_id: str,
        handle: Handle,
        grace: timedelta,
        budget: Budget,
    ) -> Settled:
        del handle
        supervisor.checked_id(execution_id)
        began = boot_time()
        first = "1"
        while True:
            # The sandbox knows since when; our own count rules if another end is slower.
            force = boot_time() - began >= grace.total_seconds()
            words, _ = self.call(
                target,
                "cancel",
                execution_id,
                supervisor.fence_name(fence),
                str(round(grace.total_seconds() * 100)),
                first,
                "1" if force else "0",
                budget=budget,
            )
            if words[1] != "ending":
                return supervisor.parse_settled(words)
            first = "0"

    def forget(
        self, target: Target, *, fence: int, execution_id: str, handle: Handle, budget: Budget
    ) -> None:
        del handle
        self.call(
            target,
            "forget",
            supervisor.checked_id(execution_id),
            supervisor.fence_name(fence),
            budget=budget,
        )

    def put(
        self,
        target: Target,
        path: str,
        source: BinaryIO,
        *,
        fence: int,
        tree: bool,
        mode: int,
        budget: Budget,
    ) -> None:
        root, inside = supervisor.inside(self.place(target), path)
        spool = f"spool-{uuid4().hex}"
        try:
            with checked_tree(source) if tree else _as_is(source) as parts:
                part = parts.read(_PART_BYTES)
                while True:
                    self.call(target, "store", spool, stdin=part, budget=budget)
                    if not (part := parts.read(_PART_BYTES)):
                        break
            number = supervisor.fence_name(fence)
            if tree:
                self.call(target, "unpack", number, spool, root, inside, budget=budget)
            else:
                self.call(
                    target, "place", number, spool, root, inside, f"{mode:o}", budget=budget
                )
        except ProviderError:
            with suppress(ProviderError):
                self.call(target, "drop", spool, budget=budget)
            raise

    def get(self, target: Target, path: str, *, tree: bool, budget: Budget) -> Iterator[bytes]:
        root, inside = supervisor.inside(self.place(target), path)
        if not tree:
            yield from self._slices(target, root, inside, budget)
            return
        spool = f"spool-{uuid4().hex}"
        try:
            self.call(target, "pack", spool, root, inside, budget=budget)
            yield from self._slices(target, self.place(target).control, spool, budget)
        finally:
            with suppress(ProviderError):
                self.call(target, "drop", spool, budget=budget)

    def _slices(self, target: Target, root: str, path: str, budget: Budget) -> Iterator[bytes]:
        offset, inode = 0, ""
        while True:
            words, data = self.call(
                target, "slice", root, path, str(offset), str(_PART_BYTES), budget=budget
            )
            if len(data) != int(words[1]):
                raise UnavailableError("the answer to a read was cut short")
            # A put replaces a file, so its parts would be of two files.
            if inode and words[2] != inode:
                raise UnavailableError("the file was replaced while it was read")
            inode = words[2]
            if data:
                yield data
            if len(data) < _PART_BYTES:
                return
            offset += len(data)

    def _furnished(self, target: Target) -> Place:
        place = self.place(target)
        if place.env is not None:
            return place
        safe = {"PATH": SAFE_PATH, "HOME": place.cwd, "LANG": "C.UTF-8", "TMPDIR": "/tmp"}  # noqa: S108 - the sandbox's own
        return Place(control=place.control, cwd=place.cwd, root=place.root, env=safe)


@contextmanager
def _as_is(source: BinaryIO) -> Iterator[BinaryIO]:
    yield source
