"""docs/settings.md is what the code reads today."""

import runpy
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest

from leasehold.domain.timers import Timers
from leasehold.settings import Settings

DOCS = Path(__file__).parents[2] / "docs"


@pytest.fixture(scope="module")
def generator() -> dict[str, Any]:
    return runpy.run_path(str(DOCS / "generate_settings.py"))


def test_the_page_is_fresh(generator: dict[str, Any]) -> None:
    written = (DOCS / "settings.md").read_text(encoding="utf-8")
    assert written == generator["render"](), "run: python docs/generate_settings.py"


def test_every_setting_and_every_timer_has_its_sentence(generator: dict[str, Any]) -> None:
    assert set(generator["sentences"](Settings)) == set(Settings.model_fields)
    assert set(generator["sentences"](Timers)) == {field.name for field in fields(Timers)}
