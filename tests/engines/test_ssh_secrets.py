"""Keys and variables are where they are needed, and nowhere else (P7, P10)."""

import json
import logging
import threading
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from engines.ssh_lease import Leased, budget
from engines.sshd import Sshd, keygen, serving
from leasehold.provider import AuthFailedError, Command, HealthState, UnavailableError
from leasehold_ssh.provider import SshProvider
from living import wait_for

VARIABLE = "swordfish-in-a-variable"
STDIN = "swordfish-on-stdin"


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Sshd]:
    with serving(tmp_path / "sshd") as server:
        yield server


@pytest.fixture
def provider() -> Iterator[SshProvider]:
    provider = SshProvider({})
    yield provider
    provider.close()


def body(key: Path) -> str:
    """Return a line of the key that nothing else contains."""
    return key.read_text().splitlines()[2]


def test_no_secret_is_seen_in_arguments_handles_metadata_or_logs(
    provider: SshProvider, server: Sshd, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    seen: set[str] = set()
    over = threading.Event()

    def look() -> None:
        while not over.wait(0.001):
            for process in psutil.process_iter():
                try:
                    seen.add("\0".join(process.cmdline()))
                except psutil.Error:
                    continue

    watcher = threading.Thread(target=look)
    watcher.start()
    try:
        leased = Leased(provider, server.config(tmp_path / "root"), "lease-1")
        command = Command(
            argv=("sh", "-c", 'cat >got; echo "$WORD"; until [ -e go ]; do sleep 0.05; done'),
            env={"WORD": VARIABLE},
            stdin=STDIN.encode(),
        )
        leased.start("x1", command)
        wait_for("its word", lambda: VARIABLE.encode() in leased.poll("x1").stdout)
        count = len(seen)
        wait_for("another look", lambda: len(seen) > count or not watcher.is_alive())
        (Path(leased.sandbox.remote_cwd) / "go").touch()
        leased.ended("x1")
        health = provider.probe(leased.config, budget=budget())
    finally:
        over.set()
        watcher.join()
    assert (Path(leased.sandbox.remote_cwd) / "got").read_text() == STDIN
    told = json.dumps(
        [
            dict(leased.sandbox.handle),
            dict(leased.sandbox.metadata),
            leased.sandbox.sandbox_id,
            health.summary,
            dict(health.details),
        ]
    )
    files = b"".join(
        path.read_bytes()
        for path in (tmp_path / "root").rglob("*")
        if path.is_file() and path.name not in {"got", "out"}
    )
    words = "\0".join(seen)
    assert "leasehold" in words
    for secret in (body(server.key), VARIABLE, STDIN):
        for place in (words, told, caplog.text, files.decode(errors="replace")):
            assert secret not in place
    assert health.state is HealthState.HEALTHY
    leased.destroy()


def test_a_refusal_does_not_quote_the_key(
    provider: SshProvider, server: Sshd, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    wrong = keygen(tmp_path / "wrong")
    config = server.config(tmp_path / "root", private_key=wrong.read_text())
    with pytest.raises(AuthFailedError) as refused:
        Leased(provider, config, "lease-1")
    server.kill()
    with pytest.raises(UnavailableError) as away:
        Leased(provider, server.config(tmp_path / "root"), "lease-1")
    for key in (wrong, server.key):
        assert body(key) not in f"{refused.value!r} {away.value!r} {caplog.text}"


def test_a_command_sees_its_own_variables_and_nothing_of_the_account(
    provider: SshProvider, server: Sshd, tmp_path: Path
) -> None:
    leased = Leased(provider, server.config(tmp_path / "root"), "lease-1")
    leased.start("x1", Command(argv=("env",), env={"MINE": "yes"}))
    leased.ended("x1")
    names = {line.split("=")[0] for line in leased.output("x1").decode().splitlines()}
    assert names == {"MINE", "PATH", "HOME", "LANG", "TMPDIR"}
    leased.destroy()
