"""docs/providers.md is what plugins declare and what the suite found: complete and green."""

import json
import runpy
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any, Final

import pytest

from leasehold.provider.conformance import (
    AREAS,
    CheckResult,
    Outcome,
    all_checks,
    installed,
    recording,
)
from leasehold.provider.registry import FAKE, GROUP

DOCS: Final = Path(__file__).parents[2] / "docs"
OF_THE_HOST: Final = {"cpu", "memory", "pids", "disk", "containment"}
"""What a plugin may declare on one host and not on another."""

AGAIN: Final = "run: make matrix"


@pytest.fixture(scope="module")
def generator() -> dict[str, Any]:
    return runpy.run_path(str(DOCS / "generate_providers.py"))


@pytest.fixture(scope="module")
def report() -> recording.Report:
    return recording.read(DOCS / "conformance.json")


def test_the_page_is_fresh(generator: dict[str, Any], report: recording.Report) -> None:
    assert (DOCS / "providers.md").read_text(encoding="utf-8") == generator["render"](report)


def test_every_column_has_a_result_of_every_check(
    generator: dict[str, Any], report: recording.Report
) -> None:
    assert report
    gaps = {label: generator["incomplete"](column) for label, column in report.items()}
    assert {label: names for label, names in gaps.items() if names} == {}, AGAIN


def test_the_matrix_is_green(generator: dict[str, Any], report: recording.Report) -> None:
    assert generator["failures"](report) == []


@pytest.mark.parametrize("key", sorted({FAKE, *entry_points(group=GROUP).names}))
def test_every_plugin_that_is_installed_has_a_column_and_declares_what_it_says(
    tmp_path: Path, report: recording.Report, key: str
) -> None:
    columns = [column for column in report.values() if column["key"] == key]
    assert columns, AGAIN
    info = recording.info_of(installed(key, scratch=tmp_path))
    declared = recording.labels_of(info.capabilities)
    for column in columns:
        said = column["capabilities"]
        assert said.keys() == declared.keys(), AGAIN
        differ = {name for name in said if said[name] != declared[name]}
        assert differ <= OF_THE_HOST, AGAIN


def test_every_capability_has_its_words(generator: dict[str, Any]) -> None:
    assert set(generator["WORDS"]) == set(generator["Capabilities"].__dataclass_fields__)


def full_run(
    path: Path, tmp_path: Path, *, label: str = "", failing: str = "", leave_out: str = ""
) -> None:
    """Write a report as the suite would on `fake`."""
    info = recording.info_of(installed(FAKE, scratch=tmp_path / "scratch"))
    for one in all_checks():
        outcome = Outcome.FAILED if one.name == failing else Outcome.PASSED
        if one.name != leave_out:
            result = CheckResult(one.sentence, one.area, outcome, "why")
            recording.record(path, label, info, result)


@pytest.fixture
def elsewhere(tmp_path: Path) -> dict[str, Any]:
    """The generator, writing below `tmp_path`."""
    module = runpy.run_path(str(DOCS / "generate_providers.py"))
    names = module["main"].__globals__
    names["TARGET"], names["REPORT"] = tmp_path / "page.md", tmp_path / "old.json"
    return module


def test_a_new_run_replaces_its_columns_and_keeps_the_others(
    elsewhere: dict[str, Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    full_run(tmp_path / "old.json", tmp_path)
    full_run(tmp_path / "old.json", tmp_path, label="fake (other)")
    full_run(tmp_path / "new.json", tmp_path, label="fake (third)")
    full_run(tmp_path / "new.json", tmp_path)
    assert elsewhere["main"]([str(tmp_path / "new.json")]) == 0
    assert "NOT RUN HERE: fake (other)" in capsys.readouterr().out
    merged = json.loads((tmp_path / "old.json").read_text())
    assert list(merged) == ["fake", "fake (other)", "fake (third)"]
    page = (tmp_path / "page.md").read_text()
    assert "| check | fake | fake (other) | fake (third) |" in page
    assert all(f"### {area}\n" in page for area in AREAS)


def test_a_failure_and_a_part_of_a_run_are_told_loudly(
    elsewhere: dict[str, Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    name = all_checks()[0].name
    full_run(tmp_path / "part.json", tmp_path, leave_out=name)
    assert elsewhere["main"]([str(tmp_path / "part.json")]) == 1
    assert "NOT TAKEN: fake" in capsys.readouterr().out
    assert json.loads((tmp_path / "old.json").read_text()) == {}
    full_run(tmp_path / "bad.json", tmp_path, failing=name)
    assert elsewhere["main"]([str(tmp_path / "bad.json")]) == 1
    assert "FAILED: fake: " in capsys.readouterr().out
    assert "✗" in (tmp_path / "page.md").read_text()
