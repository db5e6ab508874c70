"""docs/operations.md names only what there is: commands, options, settings, events, files."""

import re
from pathlib import Path
from typing import Any, Final

import click
import pytest
import typer.main

from command_line import Live
from leasehold.cli.main import app
from leasehold.settings import PREFIX, Settings

ROOT: Final = Path(__file__).parents[2]
TEXT: Final = (ROOT / "docs" / "operations.md").read_text()
COMMANDS: Final = sorted(
    {
        line.strip()
        for line in re.findall(
            r"(?:^|[`(]|exec api )(leasehold [a-z][^`\n]*)", TEXT, re.MULTILINE
        )
    }
)


@pytest.mark.parametrize("line", COMMANDS)
def test_a_command_of_the_page_exists_with_its_options(line: str) -> None:
    command: Any = typer.main.get_command(app)
    words = line.split()[1:]
    while words and hasattr(command, "commands"):
        assert words[0] in command.commands, line
        command = command.commands[words.pop(0)]
    options = {name for one in command.params for name in one.opts}
    assert {word for word in words if word.startswith("--")} <= options, line
    assert isinstance(command, click.Command) or hasattr(command, "callback")


def test_there_are_commands_to_look_at() -> None:
    assert len(COMMANDS) > 20


def test_every_setting_of_the_page_exists() -> None:
    named = set(re.findall(rf"{PREFIX}[A-Z_]+", TEXT))
    assert named <= {PREFIX + name.upper() for name in Settings.model_fields}


def test_every_event_of_the_table_is_logged_somewhere() -> None:
    sources = "".join(path.read_text() for path in (ROOT / "src").rglob("*.py"))
    table = TEXT.partition("## What to watch")[2]
    events = set(re.findall(r"`([a-z]+\.[a-z_]+)`", table))
    assert len(events) > 15
    assert {event for event in events if f'"{event}"' not in sources} == set()


def test_every_file_that_the_page_points_to_is_there() -> None:
    linked = [
        (ROOT / "docs" / name).resolve()
        for name in re.findall(r"\]\(([^)#]+)", TEXT)
        if "://" not in name
    ]
    assert [path for path in linked if not path.exists()] == []


BLOCKS: Final = re.findall(r"^```sh\n(.*?)^```$", TEXT, re.MULTILINE | re.DOTALL)
TOLD: Final = [
    line for block in BLOCKS for line in block.splitlines() if line.startswith("leasehold ")
]
OF_A_DEAD_HOST: Final = "leasehold hosts forget HOST --yes"


@pytest.mark.slow
@pytest.mark.proof
@pytest.mark.timeout(400)
def test_every_command_of_the_blocks_works_on_a_stack(tmp_path: Path) -> None:
    assert len(TOLD) > 12
    assert OF_A_DEAD_HOST in TOLD
    live = Live(tmp_path / "home")
    with live:
        assert live.call("secrets", "set", "one", stdin=b"a-value").code == 0
        assert live.call("run", "--", "true").code == 0
        (host,) = live.call("hosts", "list", "--json").json()
        for line in TOLD:
            if line == OF_A_DEAD_HOST:
                continue
            said = live.call(*line.replace("HOST", host["id"]).split()[1:])
            assert said.code == 0, (line, said.out, said.err)
    # Its stack is gone, and the machine will not come back.
    said = live.call(*OF_A_DEAD_HOST.replace("HOST", host["id"]).split()[1:])
    assert said.code == 0, said.err
    assert live.call("hosts", "list", "--json").json() == []
