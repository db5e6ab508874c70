"""The command line for tests: in this process on a database, or as real processes in a home."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Self

from typer.testing import CliRunner

from leasehold.cli.main import app
from leasehold.domain.specs import EnvironmentSpec
from leasehold.orchestrator import submit
from leasehold.store import hosts
from leasehold.store.database import Row, Tx

PATIENCE_S: Final = 60.0


@dataclass(frozen=True, slots=True)
class Said:
    """What a command said and how it ended."""

    code: int
    out: str
    err: str

    def json(self) -> Any:
        return json.loads(self.out)


def call(
    *arguments: str, stdin: bytes | None = None, env: Mapping[str, str] | None = None
) -> Said:
    """Run a command in this process; an exception of ours would be a failed test."""
    result = CliRunner().invoke(app, list(arguments), input=stdin, env=env)
    return Said(result.exit_code, result.stdout, result.stderr)


def submitted(*arguments: str) -> Any:
    said = call("run", "--detach", "--json", *arguments)
    assert said.code == 0, said.err
    return said.json()


def create_environment(name: str = "place", *arguments: str) -> Said:
    return call("env", "create", name, "--provider", "fake", *arguments)


def serve(tx: Tx, *, key: str, host_id: str, schema: Mapping[str, Any] | None = None) -> None:
    """Say that a host serves a provider, as its worker would."""
    row = {
        "key": key,
        "version": "1",
        "health": "healthy",
        "summary": "well",
        "host_bound": True,
        "capacity": None,
        "capabilities": {"isolation": "none"},
        "config_schema": dict(schema or {"type": "object"}),
    }
    hosts.advertise(tx, host_id, row)


def environment(tx: Tx, name: str = "place", *, provider: str = "fake", **spec: Any) -> Row:
    """Save an environment whose provider is advertised already."""
    body = EnvironmentSpec.model_validate({"name": name, "provider": provider, **spec})
    return submit.create_environment(tx, body, tenant_id="default")


class Live:
    """A home in which ``leasehold up`` runs, and commands as processes of their own."""

    def __init__(self, home: Path, **settings: str) -> None:
        self.home = home
        self._settings = {"LEASEHOLD_HOME": str(home), **settings}
        self.stack: subprocess.Popen[str] | None = None

    def environ(self) -> dict[str, str]:
        kept = {k: v for k, v in os.environ.items() if not k.startswith("LEASEHOLD_")}
        return kept | self._settings

    def start(self, *arguments: str, **options: Any) -> subprocess.Popen[str]:
        """Start a command and return its process; it is in a session of its own."""
        return subprocess.Popen(
            [sys.executable, "-m", "leasehold", *arguments],
            env=self.environ(),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
            **options,
        )

    def call(self, *arguments: str, stdin: bytes = b"") -> Said:
        """Run a command to its end, in this process: starting one costs most of a second."""
        return call(*arguments, stdin=stdin, env=self._settings)

    def call_bytes(
        self, *arguments: str, stdin: bytes = b""
    ) -> subprocess.CompletedProcess[bytes]:
        return subprocess.run(
            [sys.executable, "-m", "leasehold", *arguments],
            env=self.environ(),
            input=stdin,
            capture_output=True,
            timeout=PATIENCE_S,
            check=False,
        )

    def up(self, *arguments: str) -> dict[str, Any]:
        """Start the stack, by default without the API; return where it says that it is."""
        with (self.home.parent / "up.log").open("ab") as log:
            self.stack = subprocess.Popen(
                [
                    sys.executable,
                    "-m",
                    "leasehold",
                    "up",
                    "--json",
                    *(arguments or ["--no-api"]),
                ],
                env=self.environ(),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
                start_new_session=True,
            )
        assert self.stack.stdout is not None
        where: dict[str, Any] = json.loads(self.stack.stdout.readline())
        return where

    def down(self) -> None:
        if self.stack is None:
            return
        assert self.stack.stdout is not None
        self.stack.send_signal(signal.SIGTERM)
        assert self.stack.wait(PATIENCE_S) == 0
        self.stack.stdout.close()
        self.stack = None

    def __enter__(self) -> Self:
        self.up()
        return self

    def __exit__(self, *_: object) -> None:
        self.down()


def until(what: str, true: Callable[[], Any]) -> Any:
    """Return what `true` returns once that is true, within a bounded time."""
    give_up_at = time.monotonic() + PATIENCE_S
    while not (value := true()):
        assert time.monotonic() < give_up_at, f"{what}: not within {PATIENCE_S:g} s"
        time.sleep(0.05)
    return value
