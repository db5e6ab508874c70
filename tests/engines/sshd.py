"""
Real sshds for tests: private ones, on a free loopback port or in a network of their own.

Each has its own host key, config and accepted key, runs as the current user, and dies with
the test process. Connections are processes of their own, and go on when the one that accepted
them is killed; `kill` is the death of all of them at once, and spares what they started.
"""

import os
import pwd
import shutil
import socket
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import psutil
import pytest

from leasehold.embedded import broker, tether
from living import wait_for

_PROGRAM: Final = "/usr/sbin/sshd"
_START_S: Final = 20.0


def required(missing: str) -> None:
    """Fail where services are required, else skip and say what is not tested."""
    if os.environ.get("CI") or os.environ.get("LEASEHOLD_REQUIRE_SERVICES"):
        pytest.fail(f"MISSING SERVICE: {missing}", pytrace=False)
    pytest.skip(f"MISSING SERVICE, NOT TESTED: {missing}")


def keygen(path: Path, *, passphrase: str = "") -> Path:
    """Make a key pair; returns the private half's path."""
    argv = [
        "ssh-keygen",
        "-q",
        "-t",
        "ed25519",
        "-N",
        passphrase,
        "-C",
        "test",
        "-f",
        str(path),
    ]
    subprocess.run(argv, check=True, stdin=subprocess.DEVNULL)
    return path


class Sshd:
    """One sshd; its port and keys stay what they are over restarts."""

    def __init__(
        self,
        home: Path,
        *,
        address: str = broker.HOST,
        port: int | None = None,
        inside: Sequence[str] = (),
        **options: object,
    ) -> None:
        """`inside`: an argv before it that enters a namespace; `options`: of sshd_config."""
        if not Path(_PROGRAM).exists():
            required(f"{_PROGRAM} (Debian: openssh-server)")
        home.mkdir(parents=True, exist_ok=True)
        self.home, self.address = home, address
        self.port = port or broker.free_port()
        self.user = pwd.getpwuid(os.geteuid()).pw_name
        self._inside = list(inside)
        self._process: subprocess.Popen[bytes] | None = None
        self.key = keygen(home / "user")
        self.host_key = keygen(home / "host")
        shutil.copy(self.key.with_suffix(".pub"), home / "accepted")
        lines = {
            "Port": self.port,
            "ListenAddress": address,
            "HostKey": self.host_key,
            "PidFile": "none",
            "AuthorizedKeysFile": home / "accepted",
            "UsePAM": "no",
            "StrictModes": "no",
            "PasswordAuthentication": "no",
            "KbdInteractiveAuthentication": "no",
            "PermitRootLogin": "prohibit-password",
            "MaxStartups": "200:30:400",
            "UseDNS": "no",
            "PrintMotd": "no",
            # The account's own start-up files may take a tenth of a second for each call.
            "SetEnv": f"HOME={home}",
            **options,
        }
        self._config = home / "sshd_config"
        self._config.write_text("".join(f"{key} {value}\n" for key, value in lines.items()))
        self._more_if_known("PerSourcePenalties no")

    def _more_if_known(self, line: str) -> None:
        """Newer ones punish an address for refused keys, which tests offer on purpose."""
        text = self._config.read_text()
        self._config.write_text(f"{text}{line}\n")
        if subprocess.run(
            [_PROGRAM, "-t", "-f", str(self._config)], capture_output=True, check=False
        ).returncode:
            self._config.write_text(text)

    def known_hosts(self, key: Path | None = None) -> str:
        public = (key or self.host_key).with_suffix(".pub").read_text()
        name = self.address if self.port == 22 else f"[{self.address}]:{self.port}"
        return f"{name} {public}"

    def config(self, path: Path, **more: Any) -> dict[str, Any]:
        """Return an environment's config for sandboxes below `path`."""
        return {
            "host": self.address,
            "port": self.port,
            "user": self.user,
            "path": str(path),
            "private_key": self.key.read_text(),
            "known_hosts": self.known_hosts(),
            **more,
        }

    def start(self) -> None:
        if os.geteuid() == 0:
            Path("/run/sshd").mkdir(mode=0o755, exist_ok=True)
        argv = [_PROGRAM, "-D", "-f", str(self._config), "-E", str(self.home / "log")]
        self._process = subprocess.Popen(
            tether.command([*self._inside, *argv]), cwd="/", stdin=subprocess.DEVNULL
        )
        wait_for("the sshd answers", self._answers, within_s=_START_S)

    def _answers(self) -> bool:
        assert self._process is not None
        assert self._process.poll() is None, (self.home / "log").read_text()
        with socket.socket() as probe:
            probe.settimeout(1)
            return probe.connect_ex((self.address, self.port)) == 0

    def connections(self) -> list[psutil.Process]:
        """Return the processes that serve a connection."""
        if self._process is None:
            return []
        return [
            child
            for child in psutil.Process(self._process.pid).children(recursive=True)
            if child.name().startswith("sshd")
        ]

    def kill(self) -> None:
        """SIGKILL to all of it; what commands have started detached lives on."""
        if self._process is None:
            return
        doomed = self.connections()
        self._process.kill()
        self._process.wait()
        self._process = None
        for process in doomed:
            try:
                process.kill()
            except psutil.NoSuchProcess:
                continue


@contextmanager
def serving(home: Path, **options: Any) -> Iterator[Sshd]:
    """Lend a running sshd."""
    server = Sshd(home, **options)
    server.start()
    try:
        yield server
    finally:
        server.kill()
