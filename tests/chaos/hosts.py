"""
A host of the chaos: a home and a host id of its own, its agent, and what may be done to it.

`look` is its systemd (``Restart=always, RestartSec=1``, and KillMode=process: only the agent
is the unit's). It is called from the main thread alone, to which the agents are tethered.
"""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from time import monotonic
from typing import IO, Final

import psutil

from chaos.network import Wire

RESTART_S: Final = 1.0
_MIB: Final = 1024 * 1024


class Quota:
    """
    A small file system of a host's own, which can be filled.

    Raises:
        PermissionError: It is not permitted here; says why.
    """

    def __init__(self, place: Path, *, mib: int) -> None:
        self.place, self.mib = place, mib
        argv = ["mount", "-t", "tmpfs", "-o", f"size={mib}m,mode=700", "leasehold-chaos"]
        try:
            done = subprocess.run([*argv, str(place)], capture_output=True, text=True,
                                  check=False)  # fmt: skip
        except FileNotFoundError:
            raise PermissionError("there is no program `mount`") from None
        if done.returncode:
            raise PermissionError(f"mount: {done.stderr.strip()}")

    def fill(self) -> None:
        """Leave not a byte."""
        block = b"\0" * _MIB
        size = _MIB
        with (self.place / "ballast").open("ab", buffering=0) as file:
            while size:
                try:
                    if file.write(block[:size]) < size:
                        size //= 2
                except OSError:
                    size //= 2

    def empty(self) -> None:
        (self.place / "ballast").unlink(missing_ok=True)

    def close(self) -> None:
        if subprocess.run(["umount", str(self.place)], capture_output=True,
                          check=False).returncode:  # fmt: skip
            subprocess.run(["umount", "-l", str(self.place)], capture_output=True, check=False)


class Host:
    """One machine with an agent, as far as the engine can tell."""

    def __init__(
        self,
        name: str,
        place: Path,
        *,
        environment: dict[str, str],
        wire: Wire | None = None,
        processes: int = 1,
        log: IO[bytes],
    ) -> None:
        self.name, self.place, self.wire = name, place, wire
        self.slots = processes + 1
        """Workers for steps, and the beat lane."""

        self.quota: Quota | None = None
        self.no_quota = ""
        place.mkdir(parents=True, exist_ok=True)
        self._environment = {**environment, "LEASEHOLD_HOST_ROOT": str(place)}
        self._argv = [*(wire.launcher if wire else []), sys.executable, "-m"]
        self._argv += ["leasehold.agent", "--parent", str(os.getpid())]
        self._argv += ["--processes", str(processes)]
        self._log = log
        self._read, self._warm = 0, set[int]()
        self.agent: subprocess.Popen[bytes] | None = None
        self._ended_at: float | None = None
        self.held = False
        """True: systemd does not start it again, as if the machine were gone."""

        self.busy = False
        """True: a longer fault is under way here."""

    def limit_disk(self, mib: int) -> None:
        """Give it a small disk, if that is permitted here."""
        try:
            self.quota = Quota(self.place, mib=mib)
        except PermissionError as error:
            self.no_quota = str(error)

    @property
    def id(self) -> str:
        """Return its host id; empty before its agent has started once."""
        with suppress(OSError):
            return (self.place / "host-id").read_text().strip()
        return ""

    def start(self) -> None:
        self.agent = subprocess.Popen(
            self._argv,
            env=self._environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=self._log,
            start_new_session=True,
        )
        self._ended_at = None

    def look(self) -> None:
        """Start the agent again a second after its end."""
        if self.agent is None or self.agent.poll() is None:
            return
        if self._ended_at is None:
            self._ended_at = monotonic()
        if not self.held and monotonic() - self._ended_at >= RESTART_S:
            self.start()

    @property
    def is_up(self) -> bool:
        return self.agent is not None and self.agent.poll() is None

    def children(self) -> list[int]:
        """Return the pids of the agent's worker processes."""
        if self.agent is None or self.agent.poll() is not None:
            return []
        with suppress(psutil.Error):
            return [
                child.pid
                for child in psutil.Process(self.agent.pid).children()
                if "leasehold.agent.child" in child.cmdline()
            ]
        return []

    def warm(self) -> set[int]:
        """Return the pids of all processes that have said they are through their imports."""
        with Path(self._log.name).open("rb") as lines:
            lines.seek(self._read)
            for line in lines:
                if not line.endswith(b"\n"):
                    break
                self._read += len(line)
                if b'"worker.warm"' in line:
                    self._warm.add(json.loads(line)["pid"])
        return self._warm

    def signal_agent(self, signum: int) -> bool:
        if self.agent is None or self.agent.poll() is not None:
            return False
        self.agent.send_signal(signum)
        return True

    def kill_all(self) -> int:
        """Kill agent and children at one moment; return how many processes."""
        pids = self.children()
        # The agent first: it must not start new ones.
        killed = int(self.signal_agent(signal.SIGKILL))
        return killed + send(pids, signal.SIGKILL)

    def freeze(self) -> list[int]:
        """Stop agent and children; return the pids, the agent's first."""
        assert self.agent is not None
        pids = [self.agent.pid, *self.children()]
        send(pids, signal.SIGSTOP)
        return pids

    def stop(self, *, within_s: float) -> bool:
        """Drain the agent; false if it had to be killed."""
        self.held = True
        if not self.signal_agent(signal.SIGTERM):
            return True
        assert self.agent is not None
        try:
            self.agent.wait(within_s)
        except subprocess.TimeoutExpired:
            self.kill_all()
            self.agent.wait()
            return False
        return True

    def close(self) -> None:
        """Leave nothing of it: processes, mount, network."""
        self.held = True
        if self.is_up:
            send(self.freeze(), signal.SIGCONT)
            self.kill_all()
        if self.agent is not None:
            self.agent.wait()
        if self.quota is not None:
            self.quota.close()
        if self.wire is not None:
            self.wire.close()


def send(pids: Sequence[int], signum: int) -> int:
    """Send a signal to each that is still there; return to how many."""
    sent = 0
    for pid in pids:
        with suppress(ProcessLookupError):
            os.kill(pid, signum)
            sent += 1
    return sent


def end_processes(mark: bytes, *, but: Callable[[int], bool]) -> int:
    """Kill every process that carries `mark` in its environment; commands outlive workers."""
    found = []
    for path in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            if mark in (path / "environ").read_bytes() and not but(int(path.name)):
                found.append(int(path.name))
    return send(found, signal.SIGKILL)


def supervisors(marks: Path, chosen: Callable[[str], bool]) -> list[int]:
    """Return the parents of the commands that leave marks there, of the runs chosen by name."""
    found = []
    for path in Path("/proc").glob("[0-9]*"):
        with suppress(OSError, ValueError):
            if not (path / "cmdline").read_bytes().startswith(b"/bin/sh\0"):
                continue
            words = (path / "environ").read_bytes().split(b"\0")
            names = [w.removeprefix(b"NAME=").decode() for w in words if w.startswith(b"NAME=")]
            if f"MARKS={marks}".encode() not in words or not all(map(chosen, names)):
                continue
            parent = int((path / "stat").read_text().rpartition(")")[2].split()[1])
            # A shell of the command's own is a child of the command, not of a supervisor.
            if b"leasehold_local" in Path(f"/proc/{parent}/cmdline").read_bytes():
                found.append(parent)
    return found
