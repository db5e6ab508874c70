"""What a connection may do to us: die in mid-call, be refused, be shared, be noisy."""

import os
import shutil
import signal
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from multiprocessing import get_context
from pathlib import Path

import pytest

from engines.ssh_lease import TTL, Leased, at_last, budget, take_over
from engines.sshd import Sshd, keygen, serving
from leasehold.provider import (
    Acquired,
    AuthFailedError,
    ConfigRejectedError,
    DeadlineExceededError,
    ExecutionState,
    HealthState,
    ReleaseMode,
    SandboxState,
    StaleFenceError,
    StartOutcome,
    UnavailableError,
)
from leasehold_ssh.provider import SshProvider
from living import wait_for

LINES = 400
COUNTING = (
    "echo x >>starts; i=0; "
    f"while [ $i -lt {LINES} ]; do i=$((i+1)); echo line $i; sleep 0.01; done"
)

ALL = "".join(f"line {i}\n" for i in range(1, LINES + 1)).encode()


def lines(leased: Leased, count: int) -> bool:
    return leased.output("x1").count(b"\n") >= count


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Sshd]:
    with serving(tmp_path / "sshd") as server:
        yield server


@pytest.fixture
def provider() -> Iterator[SshProvider]:
    provider = SshProvider({})
    yield provider
    provider.close()


@pytest.fixture
def leased(provider: SshProvider, server: Sshd, tmp_path: Path) -> Iterator[Leased]:
    leased = Leased(provider, server.config(tmp_path / "root"), "lease-1")
    yield leased
    leased.destroy()
    assert list((tmp_path / "root").iterdir()) == []


def test_a_command_outlives_the_sshd_and_no_byte_is_lost(
    leased: Leased, server: Sshd, tmp_path: Path
) -> None:
    """The sshd is killed with all its connections, twice, while the command writes."""
    leased.shell("x1", COUNTING)
    seen = b""
    for part in (10, 50):
        wait_for("more lines", partial(lines, leased, part))
        seen += leased.poll("x1", len(seen)).stdout
        server.kill()
        polled = leased.poll("x1", len(seen))
        assert isinstance(polled.error, UnavailableError)
        assert polled.state is None
        with pytest.raises(UnavailableError):
            leased.cancel("x1")
        server.start()
        # Whoever repeats a start after such a failure starts nothing twice.
        again = at_last(lambda: leased.shell("x1", COUNTING), UnavailableError)
        assert again.outcome is StartOutcome.ADOPTED
    assert leased.ended("x1").code == 0
    assert seen + leased.poll("x1", len(seen)).stdout == ALL
    work = Path(leased.sandbox.remote_cwd)
    assert (work / "starts").read_text() == "x\n"


def test_a_start_that_lost_its_answer_is_repeated_to_one_start(
    provider: SshProvider, leased: Leased, server: Sshd
) -> None:
    """Connections are killed while eight starts are on their way."""
    names = [f"x{number}" for number in range(8)]
    for name in names:
        for process in server.connections():
            process.send_signal(signal.SIGKILL)
        at_last(
            lambda name=name: leased.shell(name, f"echo x >>starts-{name}"),  # type: ignore[misc]  # bound now
            UnavailableError,
        )
    for name in names:
        assert leased.ended(name).code == 0
        assert (Path(leased.sandbox.remote_cwd) / f"starts-{name}").read_text() == "x\n"


def test_fifty_commands_at_once_go_over_one_connection_of_ten_sessions(
    provider: SshProvider, leased: Leased, server: Sshd
) -> None:
    """All at once, from fifty threads; the sshd allows ten."""
    names = [f"x{number}" for number in range(50)]
    with ThreadPoolExecutor(50) as pool:
        list(pool.map(lambda name: leased.shell(name, f"echo {name}; sleep 0.5"), names))
    polled = provider.poll(
        [leased.item(name) for name in names], limit_bytes=99, budget=budget()
    )
    assert all(one.error is None for one in polled)
    for name in names:
        assert leased.ended(name).code == 0
        assert leased.output(name) == f"{name}\n".encode()
    logins = (server.home / "log").read_text().count("Accepted publickey")
    assert logins == 1


def test_a_target_that_allows_fewer_sessions_is_asked_again(
    tmp_path: Path, provider: SshProvider
) -> None:
    with serving(tmp_path / "narrow", MaxSessions=2) as narrow:
        leased = Leased(provider, narrow.config(tmp_path / "root"), "lease-1")
        names = [f"x{number}" for number in range(10)]
        with ThreadPoolExecutor(10) as pool:
            list(pool.map(lambda name: leased.shell(name, "true"), names))
        assert [leased.ended(name).code for name in names] == [0] * 10
        leased.destroy()


def test_calls_that_are_given_up_leave_no_session_behind(
    provider: SshProvider, leased: Leased, server: Sshd
) -> None:
    """More of them than the sshd has sessions; the connection still works afterwards."""
    for _ in range(25):
        with pytest.raises(DeadlineExceededError):
            provider.run(leased.target, ["sleep", "30"], stdin=b"", budget=budget(seconds=0.05))
    assert provider.run(leased.target, ["true"], stdin=b"", budget=budget()).rc == 0
    wait_for("the calls were ended", lambda: not _sleeping(server))


def _sleeping(server: Sshd) -> bool:
    # Their channel is closed; what ran in them notices at its next word, so it is ended here.
    for connection in server.connections():
        for child in connection.children(recursive=True):
            if child.name() == "sleep":
                child.kill()
                return True
    return False


def test_an_unknown_host_key_is_refused_for_good(
    provider: SshProvider, server: Sshd, tmp_path: Path
) -> None:
    other = keygen(tmp_path / "other")
    config = server.config(tmp_path / "root", known_hosts=server.known_hosts(other))
    with pytest.raises(ConfigRejectedError, match="known_hosts") as caught:
        Leased(provider, config, "lease-1")
    assert not caught.value.retryable
    health = provider.probe(config, budget=budget())
    assert health.state is HealthState.UNHEALTHY
    assert "known_hosts" in health.summary
    stranger = server.config(tmp_path / "root", known_hosts="elsewhere ssh-ed25519 AAAA")
    with pytest.raises(ConfigRejectedError, match="known_hosts"):
        Leased(provider, stranger, "lease-1")
    assert not (tmp_path / "root").exists()


def test_a_changed_known_hosts_does_not_ride_on_an_old_connection(
    provider: SshProvider, leased: Leased, server: Sshd, tmp_path: Path
) -> None:
    other = keygen(tmp_path / "other")
    config = server.config(tmp_path / "root", known_hosts=server.known_hosts(other))
    with pytest.raises(ConfigRejectedError):
        Leased(provider, config, "lease-2")


def test_a_wrong_key_is_refused_for_good(
    provider: SshProvider, server: Sshd, tmp_path: Path
) -> None:
    wrong = keygen(tmp_path / "wrong")
    config = server.config(tmp_path / "root", private_key=wrong.read_text())
    with pytest.raises(AuthFailedError) as caught:
        Leased(provider, config, "lease-1")
    assert not caught.value.retryable
    assert provider.probe(config, budget=budget()).state is HealthState.UNHEALTHY


def test_a_key_with_a_passphrase_works_with_it(
    provider: SshProvider, server: Sshd, tmp_path: Path
) -> None:
    locked = keygen(tmp_path / "locked", passphrase="open sesame")
    shutil.copy(locked.with_suffix(".pub"), server.home / "accepted")
    config = server.config(tmp_path / "root", private_key=locked.read_text())
    with pytest.raises(ConfigRejectedError, match="passphrase"):
        Leased(provider, config, "lease-1")
    Leased(provider, {**config, "passphrase": "open sesame"}, "lease-1").destroy()


def test_a_target_that_is_not_there_is_tried_again_later(
    provider: SshProvider, server: Sshd, tmp_path: Path
) -> None:
    server.kill()
    with pytest.raises(UnavailableError) as caught:
        Leased(provider, server.config(tmp_path / "root"), "lease-1")
    assert caught.value.retryable


def test_one_target_that_is_away_does_not_hide_the_others(
    provider: SshProvider, leased: Leased, tmp_path: Path
) -> None:
    with serving(tmp_path / "second") as second:
        away = Leased(provider, second.config(tmp_path / "there"), "lease-2")
        away.shell("x1", "sleep 60")
        leased.shell("x1", "sleep 60")
        leased.running("x1")
        second.kill()
        here, there = provider.poll(
            [leased.item("x1"), away.item("x1")], limit_bytes=99, budget=budget()
        )
        assert here.state is ExecutionState.RUNNING
        assert isinstance(there.error, UnavailableError)
        second.start()
        at_last(away.destroy, UnavailableError)


def test_what_start_up_files_print_is_nobodys_answer(
    provider: SshProvider, server: Sshd, tmp_path: Path
) -> None:
    """A shell that talks before it obeys, as an account's own files make it."""
    loud = tmp_path / "loud"
    says = "echo ok gone\necho error stale hello >&2\n"
    loud.write_text(f'#!/bin/sh\n{says}eval "$SSH_ORIGINAL_COMMAND"\n')
    loud.chmod(0o755)
    with serving(tmp_path / "talking", ForceCommand=loud) as talking:
        leased = Leased(provider, talking.config(tmp_path / "root"), "lease-1")
        seen = provider.inspect(leased.target, budget=budget())
        assert seen.state is SandboxState.READY
        leased.shell("x1", "echo mine")
        assert leased.ended("x1").stdout_bytes == len("mine\n")
        leased.destroy()


def test_an_account_without_a_shell_is_said_to_be_one(
    provider: SshProvider, tmp_path: Path
) -> None:
    with (
        serving(tmp_path / "closed", ForceCommand="/bin/false") as closed,
        pytest.raises(UnavailableError, match="shell"),
    ):
        Leased(provider, closed.config(tmp_path / "root"), "lease-1")


def test_another_workers_host_takes_over_and_the_first_is_refused(
    leased: Leased, server: Sshd
) -> None:
    """Two processes that share nothing but the target and the rows of one lease."""
    leased.shell("x1", "echo x >>starts; sleep 60")
    leased.running("x1")
    with get_context("spawn").Pool(1) as other:
        told = other.apply(take_over, (leased.lease.id, leased.config, "x1", 7))
    assert told.outcome is Acquired.ADOPTED
    assert told.handle == leased.sandbox.handle
    assert told.start is StartOutcome.ADOPTED
    assert told.state is ExecutionState.RUNNING
    with pytest.raises(StaleFenceError):
        leased.shell("x2", "true")
    with pytest.raises(StaleFenceError):
        leased.cancel("x1")
    with pytest.raises(StaleFenceError):
        leased.provider.renew(leased.target, fence=1, ttl=TTL, budget=budget())
    with pytest.raises(StaleFenceError):
        leased.provider.release(
            leased.target, fence=1, mode=ReleaseMode.DESTROY, budget=budget()
        )
    assert leased.poll("x1").state is ExecutionState.RUNNING
    assert (Path(leased.sandbox.remote_cwd) / "starts").read_text() == "x\n"


def test_a_forked_process_has_connections_of_its_own(leased: Leased, server: Sshd) -> None:
    before = len(server.connections())
    assert before
    child = os.fork()
    if child == 0:
        answer = leased.provider.inspect(leased.target, budget=budget())
        os._exit(0 if answer.state is SandboxState.READY else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert leased.provider.inspect(leased.target, budget=budget()).state is SandboxState.READY
    assert (server.home / "log").read_text().count("Accepted publickey") == 2


def test_after_a_close_the_thread_is_gone_and_a_call_starts_anew(
    provider: SshProvider, leased: Leased, server: Sshd
) -> None:
    assert "leasehold-ssh" in {thread.name for thread in threading.enumerate()}
    provider.close()
    assert "leasehold-ssh" not in {thread.name for thread in threading.enumerate()}
    wait_for("the connection is closed", lambda: not server.connections())
    assert provider.inspect(leased.target, budget=budget()).state is SandboxState.READY
