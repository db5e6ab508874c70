"""The attacks from inside: a box that holds passes, and one that only says so is found out."""

import shutil
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

import pytest

from leasehold.provider import Command, Info, Isolation, Started, Target
from leasehold.provider.conformance import (
    CheckResult,
    Harness,
    Outcome,
    all_checks,
    run_check,
    run_checks,
)
from leasehold.provider.conformance.leaks import names_below, processes_below
from leasehold_fake_plugin.provider import FakePlugin

NEEDS_BWRAP: Final = pytest.mark.skipif(not shutil.which("bwrap"), reason="no bubblewrap here")
ATTACKS: Final = {
    "the hosts secrets cannot be found from inside",
    "the hosts files and processes cannot be touched",
    "another sandboxs files cannot be found",
    "a command can gain no privilege",
    "a command cannot forge its own exit",
    "a command cannot end what supervises it",
    "what another execution was given is in no file here",
}


class Liar(FakePlugin):
    """Says that it isolates, and does not."""

    def describe(self) -> Info:
        info = super().describe()
        can = replace(info.capabilities, isolation=Isolation.PROCESS)
        return replace(info, capabilities=can)


class Boxed(Liar):
    """Each command in namespaces of its own, its supervisor outside of them."""

    def start(self, target: Target, *, command: Command, **more: Any) -> Started:
        return super().start(target, command=self.boxed(target, command), **more)

    def boxed(self, target: Target, command: Command) -> Command:
        cwd = self.place(target).cwd
        words = (
            "bwrap", "--unshare-all", "--die-with-parent", "--new-session", "--cap-drop", "ALL",
            "--ro-bind", "/usr", "/usr", "--symlink", "usr/bin", "/bin",
            "--symlink", "usr/lib", "/lib", "--symlink", "usr/lib64", "/lib64",
            "--proc", "/proc", "--dev", "/dev", "--tmpfs", "/tmp",
            "--dir", cwd, "--bind", cwd, cwd, "--chdir", f"{cwd}/{command.cwd or '.'}", "--",
        )  # fmt: skip
        return replace(command, argv=(*words, *command.argv))


class Gossip(FakePlugin):
    """Puts a command's variables where anyone can read them."""

    def start(self, target: Target, *, command: Command, **more: Any) -> Started:
        pairs = [f"{name}={value}" for name, value in command.env.items()]
        script = 'shift "$1"; "$@"; exit $?'
        words = ("sh", "-c", script, "sh", str(len(pairs) + 1), *pairs)
        told = replace(command, argv=(*words, *command.argv))
        return super().start(target, command=told, **more)


def harness(tmp_path: Path, kind: Callable[[Mapping[str, Any]], FakePlugin]) -> Harness:
    root, scratch = tmp_path / "root", tmp_path / "scratch"
    scratch.mkdir()
    return Harness(
        provider=lambda deployment: kind({"root": str(root), "deployment": deployment}),
        config={"grace_ms": 60_000},
        scratch=scratch,
        leaks=lambda: [*names_below(root), *processes_below(root)],
    )


def attacked(world: Harness) -> dict[str, CheckResult]:
    return {one.name: one for one in run_checks(world, areas=["isolation"])}


def attacked_once(world: Harness, name: str) -> CheckResult:
    (one,) = (one for one in all_checks() if one.sentence == name)
    return run_check(one, world)


@NEEDS_BWRAP
def test_a_box_that_holds_passes_every_attack(tmp_path: Path) -> None:
    results = attacked(harness(tmp_path, Boxed))
    assert results.keys() > ATTACKS
    bad = {name: one.reason for name, one in results.items() if one.outcome != Outcome.PASSED}
    assert bad == {}


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("the hosts secrets cannot be found from inside", "environment of a process, the argv"),
        ("the hosts files and processes cannot be touched", "file of the host was changed"),
        ("a command can gain no privilege", "NoNewPrivs is 0"),
        ("a command cannot end what supervises it", "not within"),
    ],
)
def test_a_box_that_is_none_is_found_out(tmp_path: Path, name: str, told: str) -> None:
    result = attacked_once(replace(harness(tmp_path, Liar), limit_s=3), name)
    assert result.outcome is Outcome.FAILED
    assert told in result.reason


@NEEDS_BWRAP
def test_input_that_is_left_lying_about_is_found(tmp_path: Path) -> None:
    class Hoarder(Boxed):
        def start(self, target: Target, *, command: Command, **more: Any) -> Started:
            name = f"input-{more['execution_id']}"
            Path(self.place(target).cwd, name).write_bytes(command.stdin)
            return super().start(target, command=command, **more)

    name = "what another execution was given is in no file here"
    assert attacked_once(harness(tmp_path, Hoarder), name).outcome is Outcome.FAILED


@NEEDS_BWRAP
@pytest.mark.parametrize(
    ("opening", "found"),
    [
        (("--bind", "/", "/"), "another sandboxs files cannot be found"),
        (("--bind", "/", "/"), "a command cannot forge its own exit"),
        (("--bind", "/", "/"), "the hosts files and processes cannot be touched"),
        (("--share-net", "--cap-add", "CAP_NET_ADMIN"), "a command can gain no privilege"),
    ],
)
def test_one_opening_in_a_box_is_enough(
    tmp_path: Path, opening: tuple[str, ...], found: str
) -> None:
    class Opened(Boxed):
        def boxed(self, target: Target, command: Command) -> Command:
            whole = super().boxed(target, command)
            # Just before the command's own words, so that it wins over what stands before it.
            at = whole.argv.index("--chdir")
            return replace(whole, argv=(*whole.argv[:at], *opening, *whole.argv[at:]))

    assert attacked_once(harness(tmp_path, Opened), found).outcome is Outcome.FAILED


def test_a_secret_in_a_command_line_is_found(tmp_path: Path) -> None:
    result = attacked_once(harness(tmp_path, Gossip), "a commands secrets are shown to nobody")
    assert result.outcome is Outcome.FAILED
    assert "command line" in result.reason


def test_what_the_engine_shows_is_looked_at_too(tmp_path: Path) -> None:
    shown: list[str] = []

    class Labelled(FakePlugin):
        def start(self, target: Target, *, command: Command, **more: Any) -> Started:
            shown.append(f"labels: {dict(command.env)}")
            return super().start(target, command=command, **more)

    world = replace(harness(tmp_path, Labelled), shown=lambda: shown)
    result = attacked_once(world, "a commands secrets are shown to nobody")
    assert result.outcome is Outcome.FAILED
    assert "labels" in result.reason


def test_a_supervisor_in_reach_is_said_and_not_tried(tmp_path: Path) -> None:
    class Inside(Liar):
        def describe(self) -> Info:
            info = super().describe()
            can = replace(info.capabilities, supervisor_in_reach=True)
            return replace(info, capabilities=can)

    result = attacked_once(harness(tmp_path, Inside), "a command cannot forge its own exit")
    assert result.outcome is Outcome.SKIPPED
    assert "in the command's reach" in result.reason
