"""
The supervisor of one execution: starts the command, keeps its output, writes down how it ended.

It runs as a process of its own session, forked by the zygote (`zygote.py`), so it costs no
interpreter start and half a megabyte. Standard library only; it never sees the worker.

Authoritative is what stands in the execution's directory (``layout.py`` lists the names):

- ``go``, a symbolic link, is the referee. We make it with our identity and the command's in it,
  after a last look at the fences. Who finds it made by somebody else leaves without a trace.
- ``end``, a symbolic link: who decided that the tree is to end, since when, with which grace.
- ``exit``, a symbolic link, the last word: made once, after the last byte of output.

What happens if we die here?

- Before ``go``: the command waits on a pipe that we hold, sees it close, and leaves. The claim
  stands without ``go``: whoever repeats `start` spawns another of us, `settle` closes it.
- After ``go``: the command is told by the kernel (parent death signal) and dies; ``go`` has the
  identities, so `settle` kills what is left of its cgroup or session and answers "lost".
- After ``exit``: nothing is lost.

We are a subreaper: a process that left the command's session becomes our child when its parent
dies, so "no child is left" proves that the whole tree is gone, also without cgroups.

A line with an effect ends in a mark ``# @ name``; a crash harness runs copies of this file that
kill themselves before or after such a line.
"""

import ctypes
import errno
import os
import select
import signal
from collections.abc import Callable
from typing import Final, NoReturn

from leasehold_local import cgroups, processes
from leasehold_local.command import Spec, Stream, become, libc, outcome
from leasehold_local.processes import now_cs

_SUBREAPER: Final = 36
_CLONE3: Final = 435
_INTO_CGROUP: Final = 0x200000000
_LATE_CS: Final = 300
"""Who wakes this much too late was stopped, and may have slept through a renewal."""

_LOOK_CS: Final = 2000
"""How often a deadline is read again that may have been moved nearer."""

_SURVIVORS_CS: Final = 100
"""What outlives its leader, or holds a pipe, gets this long."""


class Supervisor:
    def __init__(self, spec: Spec, stdin: int | None) -> None:
        self.spec, self.stdin = spec, stdin
        self.place: str = spec["place"]
        self.group: str | None = None
        self.child = 0
        self.began_at = now_cs()
        self.status: int | None = None
        self.tree_gone_at: int | None = None
        self.ending: tuple[str, int, int] | None = None
        self.kills = 0
        self.not_before = 0
        self.planned: int | None = self.began_at
        self.deadline: tuple[int, int] | None = None
        self.look_at = 0
        self.failure: str | None = None
        self.oom_before = 0
        self.survivors_cs = _SURVIVORS_CS

    # ---- start ---------------------------------------------------------------------------

    def run(self) -> None:
        """Supervise from the claim to the exit record."""
        os.setsid()
        os.chdir("/")
        self.wake = self._catch_signals()
        libc.prctl(_SUBREAPER, 1, 0, 0, 0)
        cap = self.spec["cap"]
        self.streams = [Stream(f"{self.place}/out", cap), Stream(f"{self.place}/err", cap)]
        self._make_group()
        self._open()
        starter, release = os.pipe()
        told, tell = os.pipe()
        self.child = self._fork()
        if self.child == 0:
            os.close(release)
            os.close(told)
            self._become(starter, tell)
        os.close(starter)
        os.close(tell)
        if self.stdin is not None:
            os.close(self.stdin)
        if not self._win_go():
            os.close(release)
            self._dismiss()
            self._drop_group()
            return
        for stream in self.streams:
            stream.prepare()
        os.write(release, b"1")  # @ release
        os.close(release)
        self._begun(told)
        self._follow()
        self._record()

    # What a supervisor of another kind of sandbox does otherwise.

    def _open(self) -> None:
        """Make what the child is to inherit."""

    def _become(self, starter: int, tell: int) -> NoReturn:
        """Be the child."""
        become(self.spec, starter, tell, self.streams, self.stdin)

    def _dismiss(self) -> None:
        """See the child leave that was not released."""
        os.waitpid(self.child, 0)

    def _begun(self, told: int) -> None:
        """The child was released: learn whether the command runs."""
        self.failure = outcome(told)

    def _sources(self) -> dict[int, Callable[[], bool]]:
        """What to listen to, by descriptor; a handler says whether more may come."""
        return {stream.read_end: stream.pump for stream in self.streams}

    def _ended(self, pid: int, status: int) -> None:
        if pid == self.child:
            self.status = status

    def _catch_signals(self) -> int:
        """Let signals only wake us; an ignored one would be inherited by the command."""
        read_end, write_end = os.pipe()
        os.set_blocking(read_end, False)
        os.set_blocking(write_end, False)
        signal.set_wakeup_fd(write_end, warn_on_full_buffer=False)
        for number in ("HUP", "INT", "QUIT", "TERM", "USR1", "CHLD"):
            signal.signal(signal.Signals[f"SIG{number}"], lambda *_: None)
        return read_end

    def _make_group(self) -> None:
        if self.spec["memory_group"]:
            self.oom_before = cgroups.oom_kills(self.spec["memory_group"])
        base = self.spec["group"]
        if base is None:
            return
        path = f"{base}/{self.spec['id']}.{os.getpid()}"
        try:
            os.mkdir(path, 0o755)  # @ group
        except OSError:
            return
        self.group = path

    def _fork(self) -> int:
        """
        Fork, right into the cgroup.

        Moving a process later would wait for the kernel's grace period (17 ms here), one
        process at a time on the whole machine.
        """
        if self.group is None:
            return os.fork()
        handle = os.open(self.group, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        arguments = (ctypes.c_uint64 * 11)(
            _INTO_CGROUP, 0, 0, 0, signal.SIGCHLD, 0, 0, 0, 0, 0, handle
        )
        pid = int(libc.syscall(_CLONE3, arguments, ctypes.sizeof(arguments)))
        if pid < 0:
            pid = os.fork()
            if pid == 0:
                cgroups.write(f"{self.group}/cgroup.procs", "0")
        os.close(handle)
        return pid

    def _win_go(self) -> bool:
        fences = f"{self.spec['control']}/fence"
        ours, theirs = processes.stat(os.getpid()), processes.stat(self.child)
        if ours is None or theirs is None:
            return False
        value = (
            f"run {os.getpid()} {ours.began} {self.child} {theirs.began}"
            f" {processes.boot_id()} {processes.pid_namespace()} {self.group or '-'}"
        )
        try:
            if max(os.listdir(fences)) != self.spec["fence"]:
                return False
            os.symlink(value, f"{self.place}/go")  # @ go
        except (OSError, ValueError):
            return False
        return True

    # ---- while it runs -------------------------------------------------------------------

    def _follow(self) -> None:
        """Move output, keep the times, end the tree; return when all of it is over."""
        poll = select.poll()
        poll.register(self.wake, select.POLLIN)
        sources = self._sources()
        for end in sources:
            poll.register(end, select.POLLIN)
        self._read_end()
        while True:
            now = now_cs()
            if self.planned is not None and now - self.planned >= _LATE_CS:
                self.deadline = self._read_deadline()
                self.not_before = now + (self.deadline or (0, 0))[1]
            self._reap(now)
            self._judge(now)
            if self._over(now):
                return
            pause = self._pause(now)
            self.planned = None if pause is None else now + pause
            for end, _ in poll.poll(None if pause is None else pause * 10 + 1):
                if end == self.wake:
                    os.read(end, 4096)
                    self._read_end()
                elif not sources[end]():
                    poll.unregister(end)

    def _reap(self, now: int) -> None:
        if self.tree_gone_at is not None:
            return
        try:
            while True:
                pid, status = os.waitpid(-1, os.WNOHANG)
                if pid == 0:
                    return
                self._ended(pid, status)
        except ChildProcessError:
            self.tree_gone_at = now

    def _judge(self, now: int) -> None:
        """Decide whether the tree is to end, and end it in time."""
        if self.ending is None:
            if self.status is not None:
                self._decide("itself", now, self.survivors_cs)
            elif self._timeout_left(now) == 0:
                self._decide("timeout", now, self.spec["grace"])
            elif self._deadline_left(now) == 0:
                self._decide("expired", now, self.spec["grace"])
        if self.ending is None or self.tree_gone_at is not None:
            return
        if now >= self.ending[1] + self.ending[2]:
            self._kill()

    def _decide(self, who: str, now: int, grace: int) -> None:
        try:
            os.symlink(f"{who}@{now}@{grace}", f"{self.place}/end")  # @ end
        except OSError:
            self._read_end()
        if self.ending is None:
            self.ending = (who, now, grace)
            self._ask(who)

    def _read_end(self) -> None:
        """Take up that somebody else decided to end it."""
        if self.ending is not None:
            return
        try:
            who, since, grace = os.readlink(f"{self.place}/end").split("@")
        except (OSError, ValueError):
            return
        self.ending = (who, int(since), int(grace))
        self._ask(who)

    def _ask(self, who: str) -> None:
        if who != "itself" and self.status is None:
            tree = self._tree()
            processes.send(tree, signal.SIGTERM)  # @ term
            processes.send(tree, signal.SIGCONT)

    def _tree(self) -> set[int]:
        tree = processes.below([os.getpid()], processes.table())
        if self.group is not None:
            tree |= cgroups.members(self.group)
        return tree

    def _kill(self) -> None:
        self.kills += 1
        if self.group is not None:
            cgroups.kill(self.group)  # @ kill_group
        if self.group is None or self.kills > 1:
            processes.send(self._tree(), signal.SIGKILL)  # @ kill_tree

    def _over(self, now: int) -> bool:
        if self.tree_gone_at is None:
            return False
        closed = not any(stream.open for stream in self.streams)
        return closed or now >= self.tree_gone_at + _SURVIVORS_CS

    def _pause(self, now: int) -> int | None:
        if self.tree_gone_at is not None:
            return max(0, self.tree_gone_at + _SURVIVORS_CS - now)
        if self.ending is not None:
            left = self.ending[1] + self.ending[2] - now
            return left if left > 0 else 1
        pauses = [self._timeout_left(now)]
        left_ = self._deadline_left(now)
        pauses.append(_LOOK_CS if left_ is None else min(left_, _LOOK_CS))
        return min((one for one in pauses if one is not None), default=None)

    def _timeout_left(self, now: int) -> int | None:
        timeout = self.spec["timeout"]
        return None if timeout is None else max(0, self.began_at + int(timeout) - now)

    def _read_deadline(self) -> tuple[int, int] | None:
        """Read the sandbox's own end: (when, renewal), in 1/100 s since boot."""
        try:
            text = processes.read_small(f"{self.spec['control']}/deadline").decode()
            boot, at, renewal = text.split()
        except (OSError, ValueError):
            return None
        return (int(at), int(renewal)) if boot == processes.boot_id() else None

    def _deadline_left(self, now: int) -> int | None:
        if now >= self.look_at or (self.deadline is not None and now >= self.deadline[0]):
            self.deadline = self._read_deadline()
            self.look_at = now + _LOOK_CS
        if self.deadline is None:
            return None
        return max(0, max(self.deadline[0], self.not_before) - now)

    # ---- the end -------------------------------------------------------------------------

    def _record(self) -> None:
        self._drop_group()
        out, err = self.streams
        cause, code, number = self._cause()
        words = (cause, code, number, out.stored, err.stored, out.dropped, err.dropped)
        took = now_cs() - self.began_at
        text = " ".join("-" if word is None else str(word) for word in (*words, took))
        while not self._write_exit(text):
            # A full disk: the record is worth waiting for.
            select.select([], [], [], 1.0)

    def _write_exit(self, text: str) -> bool:
        try:
            os.symlink(text, f"{self.place}/exit")  # @ exit
        except OSError as error:
            return error.errno in {errno.ENOENT, errno.ENOTDIR, errno.EEXIST}
        return True

    def _cause(self) -> tuple[str, int | None, int | None]:
        status = self.status or 0
        number = os.WTERMSIG(status) if os.WIFSIGNALED(status) else None
        code = None if number is not None else os.WEXITSTATUS(status)
        who = "itself" if self.ending is None else self.ending[0]
        if self.failure is not None:
            known = {"not_found": 127, "not_executable": 126}
            return self.failure, known.get(self.failure), None
        if who != "itself":
            return who, None, number
        if self._ran_out_of_memory(number, code):
            return "oom", code, number
        return ("signalled" if number is not None else "exited"), code, number

    def _ran_out_of_memory(self, number: int | None, code: int | None) -> bool:
        group = self.spec["memory_group"]
        if not group or (number != signal.SIGKILL and code != 128 + signal.SIGKILL):
            return False
        return cgroups.oom_kills(group) > self.oom_before

    def _drop_group(self) -> None:
        if self.group is not None:
            cgroups.remove(self.group)  # @ ungroup
