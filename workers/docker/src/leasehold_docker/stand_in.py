"""
The stand-in: what the supervisor on the host runs in place of a command in the container.

`supervisor.sh` of the contract runs on the host, in the control directory that no container
sees, and supervises this process as "the command": claim, `go`, time-outs, cancel, exit record
and proof are all its own, as for a process of the host. Two things tie the stand-in to the real
one:

- The execution's control group. The supervisor counts its members into the command's tree: it
  signals them, kills them, and writes no exit record before they are gone. The stand-in moves
  the wrapper in before it hands it the command, so all that the command starts is born there.
- The pipes. The supervisor's own are linked into the directory that the container sees, so the
  command writes into them directly, and output does not pass through here.

The stand-in waits for the wrapper's end by a pidfd, not by its word, and then ends as it ended:
with the same code, or by the same signal. Nothing here speaks to the engine, so an engine that
is restarted disturbs nothing.

What happens if we die here?

- This process, at any time: the supervisor sees its "command" end by KILL and ends the group.
- The supervisor: its watchdog goes on; `settle` kills the group and this process, "lost".
- The wrapper, before it had its command (the sandbox ended, the engine started nothing after
  all): it cannot be said what became of the start, so the supervisor is ended and `settle`
  decides. With the command given: what is left of the group is killed, and it was killed.

It runs with `python -I -S` on the standard library alone, as whoever runs the worker.
"""

import json
import os
import resource
import select
import shutil
import signal
import sys
from contextlib import suppress
from time import monotonic
from typing import NoReturn

PATIENCE_S = 30.0
"""How long a wrapper may take to come up; the engine has said that it was started."""

_SLICE_MS = 500
_WHY_KILLED = 137
_REFUSED = frozenset({"not_found", "not_executable", "cwd"})
_SILENT_SIGNALS = frozenset({128 + signal.SIGINT, 128 + signal.SIGPIPE})


class GivenUpError(Exception):
    """The wrapper never had its command."""


class StandIn:
    def __init__(self, pipes: str, place: str, group: str, memory: str) -> None:
        self.pipes, self.place, self.group, self.memory = pipes, place, group, memory
        self.token = ""
        self.text = b""
        self.said = b""
        self.pidfd = -1

    def run(self) -> None:
        job = json.load(sys.stdin)
        self.token, self.text = job["token"], job["text"].encode(errors="surrogateescape")
        self._link("out")
        self._link("err")
        said = os.open(f"{self.pipes}/said", os.O_RDWR | os.O_NONBLOCK)
        command = os.open(f"{self.pipes}/cmd", os.O_RDWR | os.O_NONBLOCK)
        kills = self._kills()
        try:
            self._adopt(said)
            self._hand_over(command)
        except (OSError, GivenUpError):
            self._give_up()
        # Opened by the wrapper, so the names are not needed; stdin may be secret.
        for name in ("stdin", "cmd"):
            os.unlink(f"{self.pipes}/{name}")
        self._wait(said)
        self._leave(*self._verdict(), kills)

    def _link(self, stream: str) -> None:
        """Give the supervisor's pipe a name that the container sees; it may only write."""
        pipe = f"{self.place}/p.{stream}"
        os.chmod(pipe, 0o622)  # noqa: S103  whose directory is 0700
        os.link(pipe, f"{self.pipes}/{stream}")

    def _adopt(self, said: int) -> None:
        """Find the wrapper among the container's processes and take it into the group."""
        until = monotonic() + PATIENCE_S
        tree = os.path.dirname(self.group)
        while True:
            self._hear(said)
            for line in self.said.splitlines(keepends=True):
                words = line.split()
                if line.endswith(b"\n") and len(words) == 2 and words[0] == b"pid":  # noqa: PLR2004
                    self._take(tree, int(words[1]))
                    return
            if monotonic() > until or not _members(tree):
                raise GivenUpError
            select.select([said], [], [], _SLICE_MS / 1000)

    def _take(self, tree: str, inner: int) -> None:
        for pid in _members(tree):
            if _inner_number(pid) != inner:
                continue
            self.pidfd = os.pidfd_open(pid)
            # Looked at again: the number may have been given away in between.
            if _inner_number(pid) == inner:
                with open(f"{self.group}/cgroup.procs", "w", encoding="ascii") as file:
                    file.write(str(pid))
                return
            os.close(self.pidfd)
        raise GivenUpError

    def _hand_over(self, command: int) -> None:
        poll = select.poll()
        poll.register(command, select.POLLOUT)
        poll.register(self.pidfd, select.POLLIN)
        left = memoryview(self.text)
        while left:
            ready = dict(poll.poll())
            if self.pidfd in ready:
                raise GivenUpError
            with suppress(BlockingIOError):
                left = left[os.write(command, left[:65536]) :]
        os.close(command)

    def _wait(self, said: int) -> None:
        """Wait for the wrapper's end and keep what it says."""
        poll = select.poll()
        poll.register(self.pidfd, select.POLLIN)
        poll.register(said, select.POLLIN)
        while self.pidfd not in dict(poll.poll()):
            self._hear(said)
        self._hear(said)

    def _hear(self, said: int) -> None:
        with suppress(BlockingIOError):
            while data := os.read(said, 65536):
                # What a command writes here by itself must not fill our memory.
                self.said = (self.said + data)[-65536:]

    def _verdict(self) -> tuple[int | None, str | None, bool]:
        """Return the code that was told, why it was not executed, and if a signal was told."""
        code, why, noise = None, None, False
        for line in self.said.decode(errors="replace").splitlines():
            words = line.split(" ")
            if words[0] != self.token:
                noise = noise or words[0] != "pid"
            elif words[1] == "code":
                code = int(words[2])
            elif words[1] == "why" and words[2] in _REFUSED:
                why = words[2]
        return code, why, noise

    def _leave(self, code: int | None, why: str | None, noise: bool, kills: int) -> NoReturn:  # noqa: FBT001
        if code is None:
            # Somebody killed the wrapper, the command for one; it ends with it.
            while members := _members(self.group):
                for pid in members:
                    with suppress(ProcessLookupError):
                        os.kill(pid, signal.SIGKILL)
        if code in (None, _WHY_KILLED) and self._kills() > kills:
            code, why = None, "oom"
        if why:
            with open(f"{self.place}/why", "w", encoding="ascii") as file:
                file.write(f"{why}\n")
        shutil.rmtree(self.pipes, ignore_errors=True)
        if code is None:
            _die(signal.SIGKILL)
        if code > 128 and (noise or code in _SILENT_SIGNALS):  # noqa: PLR2004  as a shell says it
            _die(code - 128)
        os._exit(code)

    def _give_up(self) -> NoReturn:
        shutil.rmtree(self.pipes, ignore_errors=True)
        os.kill(os.getppid(), signal.SIGKILL)
        _die(signal.SIGKILL)

    def _kills(self) -> int:
        """Return how often the container was short of memory so far."""
        with suppress(OSError), open(self.memory, encoding="ascii") as lines:
            return sum(int(line.split()[1]) for line in lines if line.startswith("oom_kill "))
        return 0


def _members(group: str) -> list[int]:
    try:
        with open(f"{group}/cgroup.procs", encoding="ascii") as lines:
            return [int(line) for line in lines]
    except OSError:
        return []


def _inner_number(pid: int) -> int | None:
    """Return a process's number in the innermost pid namespace that it is in."""
    with suppress(OSError), open(f"/proc/{pid}/status", encoding="utf-8") as lines:
        for line in lines:
            if line.startswith("NSpid:"):
                return int(line.split()[-1])
    return None


def _step_out(group: str) -> None:
    """
    Go back to the supervisor's control group, out of the sandbox's.

    The supervisor moved us in with the command's tree. There we would use up the command's
    limits and be killed for its memory; as the leader of its session we stay in its tree.
    """
    with open("/proc/self/mountinfo", encoding="utf-8") as lines:
        mounts = [line.split()[4] for line in lines if " - cgroup" in line]
    where = max((m for m in mounts if group.startswith(f"{m}/")), key=len)
    with open("/proc/self/cgroup", encoding="utf-8") as lines:
        ours = [line.rstrip("\n").split(":", 2) for line in lines]
    with open(f"/proc/{os.getppid()}/cgroup", encoding="utf-8") as lines:
        theirs = {line.split(":", 2)[0]: line.rstrip("\n").split(":", 2)[2] for line in lines}
    for number, _, path in ours:
        if where + path == group:
            with open(f"{where}{theirs[number]}/cgroup.procs", "w", encoding="ascii") as file:
                file.write("0")


def _die(number: int) -> NoReturn:
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    with suppress(OSError, ValueError):
        signal.signal(number, signal.SIG_DFL)
    with suppress(OSError):
        os.kill(os.getpid(), number)
    os._exit(min(255, 128 + number))


def main(arguments: list[str]) -> None:
    pipes, place, group, memory = arguments
    # These are for the command, which gets them from the supervisor as well.
    for number in (signal.SIGHUP, signal.SIGINT, signal.SIGQUIT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
    _step_out(group)
    StandIn(pipes, place, group, memory).run()


if __name__ == "__main__":
    main(sys.argv[1:])
