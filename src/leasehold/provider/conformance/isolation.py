"""
Checks: what a command cannot see, cannot touch and cannot forge.

A provider that declares no isolation is one trust domain with its host: there, only the
variables, the open files and what is shown to others are checked. One that declares isolation
is attacked from inside. Whether the supervisor's directory is out of the command's reach is a
label of its own (`supervisor_in_reach`), since it depends on where the supervisor runs.
"""

import logging
import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from leasehold.errors import ConfigRejectedError
from leasehold.provider.conformance import intruder
from leasehold.provider.conformance.catalogue import (
    check,
    isolated,
    no_kernel_of_its_own,
    posix,
    supervisor_out_of_reach,
)
from leasehold.provider.conformance.harness import Case, Done, must
from leasehold.provider.contract import Command, ExitCause, SandboxState

_TRUE_CODE: Final = 7
_DANGEROUS: Final = {
    2: "DAC_READ_SEARCH", 12: "NET_ADMIN", 16: "SYS_MODULE", 17: "SYS_RAWIO", 19: "SYS_PTRACE",
    21: "SYS_ADMIN", 22: "SYS_BOOT", 25: "SYS_TIME",
}  # fmt: skip


def _name() -> str:
    return f"conf-{os.urandom(8).hex()}"


def _true_exit(done: Done) -> None:
    got = (done.exit.cause, done.exit.code)
    must(got == (ExitCause.EXITED, _TRUE_CODE), f"it exited {_TRUE_CODE}; recorded is {done}")


def _in_environment_of(case: Case) -> bytes:
    return case.run_command(case.shell("env; cat /proc/self/environ; exit 0")).stdout


# ---- whatever the isolation ------------------------------------------------------------------


@check(posix)
def no_secret_of_the_host_is_in_a_commands_environment(case: Case) -> None:
    with intruder.planted(case.harness.scratch) as plants:
        # Made now: what it copies of our environment, it copies with the secret in it.
        stranger = case.again()
        stranger.acquire()
        case.acquire()
        seen = plants.seen_in(_in_environment_of(stranger))
    must(not seen, f"in the command's environment: {seen}")


@check(posix)
def a_command_inherits_no_open_file(case: Case) -> None:
    case.acquire()
    done = case.run_command(case.shell("ls -l /proc/$$/fd"))
    lines = [line.split() for line in done.stdout.decode().splitlines()]
    strange = {
        words[-3]: words[-1]
        for words in lines
        if words[-2:-1] == ["->"] and words[-3] not in {"0", "1", "2"}
    }
    must(not strange, f"open in the command, beside its three streams: {strange}")


@contextmanager
def _logged() -> Iterator[list[str]]:
    """Collect every word that is logged here, of any level."""
    said: list[str] = []

    class Collector(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            said.append(self.format(record))

    root, collector = logging.getLogger(), Collector()
    level = root.level
    root.addHandler(collector)
    root.setLevel(logging.DEBUG)
    try:
        yield said
    finally:
        root.setLevel(level)
        root.removeHandler(collector)


@check(posix)
def a_commands_secrets_are_shown_to_nobody(case: Case) -> None:
    by_env, by_stdin = (f"s3cret-{os.urandom(8).hex()}" for _ in range(2))
    secrets = (by_env.encode(), by_stdin.encode())
    env, stdin = {"TOKEN": by_env}, by_stdin.encode()
    shown: list[str] = []
    with _logged() as logged, intruder.watched(secrets) as lines:
        sandbox = case.acquire()
        started = case.start(
            "one", case.shell("echo out; read -r x; sleep 60", env=env, stdin=stdin)
        )
        case.running("one")
        shown += [repr(sandbox), repr(started), repr(case.owned()), repr(case.inspect())]
        shown += case.harness.shown()
        try:
            case.start("bad", Command(argv=("a\0b",), env=env, stdin=stdin))
        except ConfigRejectedError as error:
            shown.append(str(error))
        shown.append(repr(case.run("no-such-command", env=env, stdin=stdin)))
        shown.append(repr(case.run("true", cwd="no/such", env=env, stdin=stdin)))
        case.cancel("one")
        shown += case.harness.shown()
    must(not lines, f"a secret stood in a command line of this host: {lines[:3]}")
    for text in (*shown, *logged):
        found = [one for one in (by_env, by_stdin) if one in text]
        must(not found, f"a secret can be seen from outside: {text[:500]}")


# ---- a command looks for the host ------------------------------------------------------------


@check(posix, isolated)
def the_hosts_secrets_cannot_be_found_from_inside(case: Case) -> None:
    with intruder.planted(case.harness.scratch) as plants:
        stranger = case.again()
        stranger.acquire()
        case.acquire()
        done = stranger.run_command(
            stranger.shell(intruder.LOOK_AROUND, str(plants.file), str(case.harness.scratch))
        )
        seen = plants.seen_in(done.stdout)
    must(done.exit.code == 0, f"the script ended as it should: {done.exit}")
    must(not seen, f"seen from inside: the {', the '.join(seen)}")
    must(plants.beside.encode() not in done.stdout, "the host's directory can be listed")


@check(posix, isolated)
def the_hosts_files_and_processes_cannot_be_touched(case: Case) -> None:
    case.acquire()
    name = _name()
    with intruder.planted(case.harness.scratch) as plants:
        scratch = plants.file.parent
        before = plants.file.read_bytes()
        words = (str(plants.file), str(scratch), name, str(plants.process.pid))
        case.run_command(case.shell(intruder.TRESPASS, *words))
        unchanged, alive = plants.file.read_bytes() == before, plants.process.poll() is None
        folders = (scratch, "/", "/etc", "/usr", "/usr/bin", "/var/tmp", "/tmp", "/dev/shm")  # noqa: S108  the host's own
        made = [f"{one}/{name}" for one in folders if os.path.exists(f"{one}/{name}")]  # noqa: PTH110  texts
    for path in made:
        os.unlink(path)  # noqa: PTH108  as above
    must(unchanged, "a file of the host was changed")
    must(alive, "a process of the host was killed")
    must(not made, f"files were made on the host: {made}")


@check(posix, isolated)
def another_sandboxs_files_cannot_be_found(case: Case) -> None:
    case.acquire()
    other = case.another()
    other.acquire()
    name, secret = _name(), f"s3cret-{os.urandom(8).hex()}"
    other.run_command(other.shell(f'cat >"{name}"; chmod 666 "{name}"', stdin=secret.encode()))
    other.start("stay", other.shell("echo out; sleep 60"))
    other.running("stay")
    found = case.run_command(case.shell(intruder.FIND, name)).stdout.decode().split("\n")
    must(found == [""], f"the other sandbox's file can be found: {found}")
    at = f"{other.remote_cwd}/{name}"
    must(case.run("cat", at).exit.code != 0, f"{at} can be read")
    must(other.run("cat", name).stdout == secret.encode(), "it is there, and as it was")


@check(posix, isolated, no_kernel_of_its_own)
def a_command_can_gain_no_privilege(case: Case) -> None:
    case.acquire()
    lines = case.run("cat", "/proc/self/status").stdout.decode().splitlines()
    status = {key: value.strip() for key, _, value in (line.partition(":") for line in lines)}
    must(status.get("NoNewPrivs") == "1", f"NoNewPrivs is {status.get('NoNewPrivs')}")
    for kind in ("CapEff", "CapPrm", "CapInh", "CapAmb", "CapBnd"):
        bits = int(status.get(kind, "0"), 16)
        held = [name for bit, name in _DANGEROUS.items() if bits >> bit & 1]
        must(not held, f"{kind} holds {held}")


# ---- a command works against its own supervisor ----------------------------------------------


@check(posix, isolated, supervisor_out_of_reach)
def a_command_cannot_forge_its_own_exit(case: Case) -> None:
    case.acquire()
    name = _name()
    case.start(name, case.shell(intruder.FORGE, name))
    done = case.wait(name)
    must(done.stdout.startswith(b"begun\n"), f"the intruder did its work: {done}")
    must(b"wrote" not in done.stdout, f"it wrote into its supervisor's files: {done.stdout!r}")
    must(b"found" not in done.stdout, f"it found its supervisor's files: {done.stdout!r}")
    _true_exit(done)


@check(posix, isolated, supervisor_out_of_reach)
def a_command_cannot_end_what_supervises_it(case: Case) -> None:
    case.acquire()
    namespace = os.readlink("/proc/self/ns/pid")  # noqa: PTH115  no file
    done = case.run_command(case.shell(intruder.END_ALL, namespace))
    if done.exit.cause is ExitCause.SIGNALLED:
        # What stands between may take it along: then it was killed, and that is told.
        must(done.exit.signal == signal.SIGKILL, f"it was killed; recorded is {done}")
        # It may have come to say a word before all that was left of it was ended.
        must(done.stdout in {b"", b"survived\n"}, f"its output is its own: {done}")
    else:
        must(done.stdout == b"survived\n", f"its output is whole: {done}")
        _true_exit(done)
    must(case.inspect().state is SandboxState.READY, "the sandbox is as it was")
    must(case.run("echo", "again").stdout == b"again\n", "and works")


@check(posix, isolated, supervisor_out_of_reach)
def what_another_execution_was_given_is_in_no_file_here(case: Case) -> None:
    case.acquire()
    halves = (f"s3cret-{os.urandom(8).hex()}", f"-{os.urandom(8).hex()}")
    secret = "".join(halves)
    command = case.shell("echo out; sleep 60", env={"TOKEN": secret}, stdin=secret.encode())
    case.start("other", command)
    case.running("other")
    done = case.run_command(case.shell(intruder.READ_FILES, *halves))
    must(done.exit.code == 0, f"the intruder did its work: {done}")
    must(not done.stdout, f"stdin or environment of another execution: {done.stdout!r}")
