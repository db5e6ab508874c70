"""
This side of the gatekeeper: seeing that a container with an allow-list has its way out.

Its program is `leasehold.provider.way_out.entering`.

The record `ctl/gatekeeper` says of which container's start it is, and its lock, that it lives:
the kernel gives the lock back with the process. So a look is three system calls, which a beat
can afford, and whoever finds nobody starts one; of several, the lock chooses.

What happens if we die here? A gatekeeper that was started lives on and is found by the next
look. It ends with its container, also if nobody is left.
"""

import fcntl
import os
import signal
import subprocess
from contextlib import suppress
from typing import Final

from leasehold.provider import Budget, Json, SandboxGoneError, UnavailableError, effect
from leasehold.provider.way_out import listing, program
from leasehold.provider.way_out.entering import OTHER

from leasehold_docker.containers import Running
from leasehold_docker.layout import Directory

_PAUSE_S: Final = 0.02
_PATIENCE_S: Final = 5.0
_SLICE_S: Final = 0.2


def ensure(directory: Directory, running: Running, config: Json, budget: Budget) -> None:
    """
    See that the container has a gatekeeper, if its config has an allow-list.

    Raises:
        UnavailableError: There can be none; the container has no way out.
    """
    if not listing.wanted(config):
        return
    name = f"{running.container_id} {running.pid} {running.began}"
    patience = Budget(_PATIENCE_S)
    while True:
        held, words = _look(directory)
        if held and words[:1] == [name]:
            return
        if held:
            # One of an earlier start of the container, which is about to leave.
            _hurry(directory, words, patience)
            budget.wait(_PAUSE_S)
        else:
            _begin(directory, running, name, config, budget)


def end(directory: Directory, budget: Budget) -> None:
    """Wait until the gatekeeper of a container that is gone has left; it knows already."""
    patience = Budget(_PATIENCE_S)
    with suppress(SandboxGoneError):
        while True:
            held, words = _look(directory)
            if not held:
                return
            _hurry(directory, words, patience)
            budget.wait(_PAUSE_S)


def _look(directory: Directory) -> tuple[bool, list[str]]:
    """Tell whether somebody holds the record, and what it says."""
    try:
        with open(directory.gatekeeper_file, "a+", encoding="ascii") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
            except BlockingIOError:
                file.seek(0)
                return True, file.read().splitlines()
            return False, []
    except FileNotFoundError as error:
        raise SandboxGoneError(f"there is no sandbox at {directory.path}") from error


def _begin(
    directory: Directory, running: Running, name: str, config: Json, budget: Budget
) -> None:
    words = (directory.gatekeeper_file, name, str(running.pid), running.groups.tree)
    with effect("docker:gatekeeper"):
        process = subprocess.Popen(
            program.argv("entering", *words),
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            env=program.ENVIRONMENT,
            cwd="/",
            start_new_session=True,
        )
        try:
            said = _finish(process, "\n".join(config["allow"]).encode(), budget)
        finally:
            process.kill()
            process.wait()
    if process.returncode not in (0, OTHER):
        text = f"the sandbox has no way out: {said or f'exit {process.returncode}'}"
        raise UnavailableError(text)


def _finish(process: "subprocess.Popen[bytes]", text: bytes, budget: Budget) -> str:
    given: bytes | None = text
    while True:
        budget.check()
        try:
            _, said = process.communicate(given, timeout=_SLICE_S)
        except subprocess.TimeoutExpired:
            given = None
        else:
            return said.decode(errors="replace").strip()[-300:]


def _hurry(directory: Directory, words: list[str], patience: Budget) -> None:
    """Kill one that was stopped; the number is its own for as long as it holds the lock."""
    if patience.left_s() > 0 or len(words) < 2:  # noqa: PLR2004  name and number
        return
    with suppress(ProcessLookupError):
        pidfd = os.pidfd_open(int(words[1]))
        try:
            if _look(directory) == (True, words):
                signal.pidfd_send_signal(pidfd, signal.SIGKILL)
        finally:
            os.close(pidfd)
