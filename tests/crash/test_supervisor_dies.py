"""
The sh supervisor dies at each of its own marked lines, and the worker that called it as well.

What the lines promise alone is in `tests/unit/test_supervisor`; here the engine takes it up:
the run succeeds or says `execution_lost`, its command was started once at most, nothing stays.
"""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from crash.acts import one_run
from crash.expected import Expected, Scenario
from crash.forks import Kill
from crash.harness import Cells, Engine
from crash.sweep import tell
from leasehold.provider import supervisor
from leasehold_fake_plugin.provider import FakePlugin

SCRIPT = supervisor.script()
SHELL = (Path(supervisor.__file__).parent / "supervisor.sh").read_text()
LINES = [line for line in supervisor.effect_lines(SCRIPT) if line.line < SHELL.count("\n")]
STORY = Scenario(
    name="supervisor-dies",
    provider="fake_plugin",
    act=one_run("fake_plugin"),
    expect={
        "run": Expected(
            # A shell that dies as it becomes the command looks like a command that was killed.
            or_else=frozenset({("failed", "execution_lost"), ("failed", "command_killed")}),
            starts=(0, 1),
            stdout=None,
            stderr=None,
        )
    },
)


def dying_at(index: int) -> Callable[[Engine], None]:
    """Return what gives the first worker, and no later one, a supervisor that dies."""

    def tune(engine: Engine) -> None:
        if engine.worker_id == "worker-0":
            root = engine.cell.path / "host/sandboxes/fake_plugin"
            script = supervisor.with_kill(SCRIPT, index, "before")
            dying = FakePlugin({"root": str(root)}, script=script)
            whole = engine.runtime.registry.require("fake_plugin")
            setattr(whole, "start", dying.start)  # noqa: B010  only its starts die

    return tune


@pytest.mark.slow
@pytest.mark.parametrize("line", LINES, ids=[f"{x.line}-{x.name}" for x in LINES])
def test_a_supervisor_that_dies_anywhere_starts_its_command_once_at_most(
    cells: Cells, line: supervisor.EffectLine
) -> None:
    story = replace(STORY, tune=dying_at(line.index))
    # Dies once its start was answered, or was not: the next worker has a whole script.
    tell(cells, story, Kill("commit.record.execute:before", 1))
