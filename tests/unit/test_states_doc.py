"""docs/states.md is what the arrows say today."""

import runpy
from pathlib import Path
from typing import Any

import pytest

from leasehold.domain import lifecycle as life

DOCS = Path(__file__).parents[2] / "docs"


@pytest.fixture(scope="module")
def generator() -> dict[str, Any]:
    return runpy.run_path(str(DOCS / "generate_states.py"))


def test_the_page_is_fresh(generator: dict[str, Any]) -> None:
    written = (DOCS / "states.md").read_text(encoding="utf-8")
    assert written == generator["render"](), "run: python docs/generate_states.py"


def test_every_status_has_its_sentence(generator: dict[str, Any]) -> None:
    for machine in generator["MACHINES"]:
        assert set(generator["sentences"](machine.kind)) == set(machine.kind)


def test_every_table_of_arrows_is_on_the_page(generator: dict[str, Any]) -> None:
    tables = {id(table) for name, table in vars(life).items() if name.endswith("_MOVES")}
    assert {id(machine.moves) for machine in generator["MACHINES"]} == tables
