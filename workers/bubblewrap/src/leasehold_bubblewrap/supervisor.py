"""
The supervisor of one command behind bubblewrap: `local`'s, with other children.

What is authoritative, and what happens if we die, is said in `leasehold_local.supervisor`, and
all of it holds here. Different are the way to the command (`joining.py` tells it) and the end:

- ``go`` names `bwrap` as the command's session. When nothing is left of that session, process 1
  of the sandbox is dead too, and with it everything in there.
- TERM goes to the command and what it started, never to `bwrap` or the holder; there is nobody
  to ask before the command is born, so it is killed.
- When the command itself has ended, what it left is killed at once, as process 1 would do.
- If the sandbox could not be made, the command was never born: we leave without a record. The
  end is then "lost", the infrastructure's fault, and what `bwrap` said stands in its stderr.
- With an allow-list a gatekeeper is our child too (`gate.py`), and none of the command's tree.
"""

import contextlib
import os
import signal
from collections.abc import Callable
from typing import Final, NoReturn

from leasehold_local import processes
from leasehold_local.command import Spec
from leasehold_local.processes import now_cs
from leasehold_local.supervisor import Supervisor as LocalSupervisor

from leasehold_bubblewrap.gate import Gate
from leasehold_bubblewrap.joining import children, launch

_KILLED_CS: Final = 5
"""What lives so long after `bwrap` was killed is looked for among all processes."""

_WORDS: Final = frozenset({"not_found", "not_executable", "cwd"})


class Supervisor(LocalSupervisor):
    def __init__(self, spec: Spec, stdin: int | None) -> None:
        super().__init__(spec, stdin)
        self.survivors_cs = 0
        self.ends: dict[int, int] = {}
        self.command = 0
        self.spared: set[int] = set()
        self.said = b""
        self.killed_at: int | None = None
        self.gate: Gate | None = None
        self.inside = -1
        """A pidfd of the sandbox's process 1."""

    # ---- start -----------------------------------------------------------------------------

    def _open(self) -> None:
        self.holder_reads, self.holder_input = os.pipe()
        self.holder_output, self.holder_writes = os.pipe()
        self.word_end, self.word = os.pipe()
        self.born, self.born_end = os.pipe()
        if self.spec["gate"] is not None:
            self.gate = Gate(self.spec["gate"])

    def _become(self, starter: int, tell: int) -> NoReturn:
        for end in (self.holder_input, self.holder_output, self.word, self.born):
            os.close(end)
        if self.gate is not None:
            self.gate.outer.close()
        launch(
            self.spec,
            starter=starter,
            tell=tell,
            holder=(self.holder_reads, self.holder_writes),
            word=self.word_end,
            born=self.born_end,
            streams=self.streams,
            stdin=self.stdin,
            gate=None if self.gate is None else self.gate.inner,
        )

    def _dismiss(self) -> None:
        self._forget_the_joiner()
        try:
            while True:
                os.waitpid(-1, 0)
        except ChildProcessError:
            return

    def _begun(self, told: int) -> None:
        self.told = told
        # It comes back from the holder as soon as the sandbox is ready.
        os.write(self.holder_input, b"1")
        for end in (self.holder_reads, self.holder_writes, self.word_end, self.born_end):
            os.close(end)
        if self.gate is not None:
            self.gate.begin()

    def _sources(self) -> dict[int, Callable[[], bool]]:
        own = {
            self.holder_output: self._ready,
            self.born: self._hear_born,
            self.told: self._hear_told,
        }
        if self.gate is not None:
            own[self.gate.outer.fileno()] = self.gate.take_listener
            own[self.gate.heard] = self.gate.hear
        return {**super()._sources(), **own}

    def _ready(self) -> bool:
        """The sandbox stands, or never will: send the joiner in, or away."""
        if os.read(self.holder_output, 1):
            inside = children(self.child) or self._below(self.child)
            holders = [pid for one in inside for pid in children(one) or self._below(one)]
            self.spared = {self.child, *inside, *holders}
            with contextlib.suppress(OSError, IndexError):
                self.inside = os.pidfd_open(inside[0])
            if holders:
                # Who was cancelled meanwhile has no joiner any more.
                with contextlib.suppress(OSError):
                    os.write(self.word, b"%d" % holders[0])  # @ join
        os.close(self.holder_output)
        self._forget_the_joiner()
        return False

    def _below(self, pid: int) -> list[int]:
        """Find children the slow way, where the kernel does not list them."""
        return [one for one, seen in processes.table().items() if seen.parent == pid]

    def _forget_the_joiner(self) -> None:
        if self.word >= 0:
            os.close(self.word)
            self.word = -1

    def _hear_born(self) -> bool:
        text = os.read(self.born, 32)
        if text:
            self.command = int(text)
            self.status = self.ends.get(self.command, self.status)
        elif self.tree_gone_at is None:
            # The joiner is gone, and told of no command.
            self._kill()
        return False

    def _hear_told(self) -> bool:
        text = os.read(self.told, 64)
        self.said += text
        return bool(text)

    # ---- while it runs ---------------------------------------------------------------------

    def _ended(self, pid: int, status: int) -> None:
        self.ends[pid] = status
        if self.gate is not None:
            self.gate.ended(pid)
        if pid == self.command:
            self.status = status
        if pid == self.child:
            # Without `bwrap` there is nothing to join.
            self._forget_the_joiner()

    def _ask(self, who: str) -> None:
        if who != "itself" and self.status is None and not self.command:
            self._kill()
            return
        super()._ask(who)

    def _judge(self, now: int) -> None:
        super()._judge(now)
        if self.status is not None and self.tree_gone_at is None:
            # Whatever grace was left was the command's.
            self._kill()

    def _pause(self, now: int) -> int | None:
        if self.killed_at is not None and self.tree_gone_at is None:
            return _KILLED_CS
        return super()._pause(now)

    def _tree(self) -> set[int]:
        found = super()._tree()
        if self.killed_at is not None:
            return found
        keepers = {self.gate.keeper} if self.gate is not None else set()
        return found - self.spared - keepers

    def _kill(self) -> None:
        now = now_cs()
        if self.killed_at is None:
            self.killed_at = now
            self._forget_the_joiner()
            if self.gate is not None:
                self.gate.end()
            # Process 1 would follow `bwrap` by itself, only later.
            with contextlib.suppress(OSError):
                signal.pidfd_send_signal(self.inside, signal.SIGKILL)
            if self.child not in self.ends:
                os.kill(self.child, signal.SIGKILL)  # @ kill_sandbox
        elif now >= self.killed_at + _KILLED_CS:
            super()._kill()

    # ---- the end ---------------------------------------------------------------------------

    def _record(self) -> None:
        if not self.command:
            self._hear_born()
        while self._hear_told():
            continue
        word = self.said.decode(errors="replace")
        began = self.status is not None and word != "internal"
        if not began and (self.ending is None or self.ending[0] == "itself"):
            self._drop_group()
            return
        self.failure = word if word in _WORDS else None
        super()._record()
