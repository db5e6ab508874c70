"""The rules of the house that a linter cannot say."""

import ast
import re
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Final

import pytest

import leasehold.provider

ROOT: Final = Path(__file__).parents[1]
MAX_LINES: Final = 400
FORBIDDEN_NAMES: Final = {"utils", "util", "helpers", "base", "manager", "common", "misc"}
WALL_CLOCK: Final = {
    "src/leasehold/seams.py": "ids grow with time; nothing compares them with a clock",
    "src/leasehold/store/database.py": "db_now() on SQLite, where we are the server",
}
"""Who may read the wall clock, and why."""


def _files(*patterns: str) -> list[Path]:
    found = {path for pattern in patterns for path in ROOT.glob(pattern)}
    return sorted(path for path in found if "build" not in path.relative_to(ROOT).parts)


SOURCES: Final = _files("src/**/*.py", "workers/*/src/**/*.py")
ALL: Final = [*SOURCES, *_files("tests/**/*.py", "bench/**/*.py", "docs/**/*.py")]
CALLED_IN_A_TRANSACTION: Final = _files(
    "src/leasehold/store/**/*.py", "src/leasehold/orchestrator/**/*.py"
)
SCRIPTS: Final = _files("src/**/*.sh", "workers/**/*.sh")


def name_of(path: Path) -> str:
    return str(path.relative_to(ROOT))


@pytest.mark.parametrize("path", [*ALL, *SCRIPTS], ids=name_of)
def test_a_file_fits_in_a_head(path: Path) -> None:
    assert len(path.read_text().splitlines()) <= MAX_LINES


@pytest.mark.parametrize("path", ALL, ids=name_of)
def test_every_module_says_what_it_is(path: Path) -> None:
    text = path.read_text()
    # A package without a line of its own needs no sentence either.
    assert not text.strip() or ast.get_docstring(ast.parse(text))


@pytest.mark.parametrize("path", SOURCES, ids=name_of)
def test_a_file_is_named_for_its_subject(path: Path) -> None:
    assert not FORBIDDEN_NAMES & {part.removesuffix(".py") for part in path.parts[-3:]}


def _assigned_statuses(tree: ast.AST) -> list[int]:
    return [
        node.lineno
        for node in ast.walk(tree)
        if (isinstance(node, ast.Attribute)
            and isinstance(node.ctx, ast.Store)
            and node.attr == "status"
            # A row is never `self`; what an object calls its own status is its own.
            and not (isinstance(node.value, ast.Name) and node.value.id == "self"))
        or (isinstance(node, ast.Call)
            and isinstance(node.func, ast.Name)
            and node.func.id == "setattr"
            and len(node.args) > 1
            and isinstance(node.args[1], ast.Constant)
            and node.args[1].value == "status")
    ]  # fmt: skip


@pytest.mark.parametrize("path", SOURCES, ids=name_of)
def test_nobody_assigns_a_status(path: Path) -> None:
    lines = _assigned_statuses(ast.parse(path.read_text()))
    assert not lines, f"statuses change in store.moves only: lines {lines}"


def test_an_assigned_status_would_be_seen() -> None:
    tree = ast.parse("row.status = 'done'\nsetattr(row, 'status', 1)\nx = row.status\n")
    assert _assigned_statuses(tree) == [1, 2]


def test_a_status_is_set_in_sql_by_the_guarded_move_only() -> None:
    writes = re.compile(r"\bSET\s+status\b", re.IGNORECASE)
    found = {name_of(path) for path in SOURCES if writes.search(path.read_text())}
    assert found <= {"src/leasehold/store/moves.py"}


def _wall_clock_reads(tree: ast.AST) -> list[int]:
    calls = {("time", "time"), ("time", "time_ns"), ("datetime", "now"), ("datetime", "utcnow"),
             ("datetime", "today"), ("date", "today")}  # fmt: skip
    return [
        node.lineno
        for node in ast.walk(tree)
        if isinstance(node, ast.Attribute)
        and isinstance(node.value, ast.Name | ast.Attribute)
        and (getattr(node.value, "id", getattr(node.value, "attr", "")), node.attr) in calls
    ]


@pytest.mark.parametrize("path", SOURCES, ids=name_of)
def test_time_comes_from_the_database(path: Path) -> None:
    lines = _wall_clock_reads(ast.parse(path.read_text()))
    assert not lines or name_of(path) in WALL_CLOCK, f"wall clock read in lines {lines}"


def test_the_list_of_those_who_may_read_the_wall_clock_is_no_longer_than_needed() -> None:
    for name in WALL_CLOCK:
        assert _wall_clock_reads(ast.parse((ROOT / name).read_text())), name


@pytest.mark.parametrize("path", CALLED_IN_A_TRANSACTION, ids=name_of)
def test_store_and_orchestrator_take_a_transaction_and_never_commit(path: Path) -> None:
    if name_of(path) == "src/leasehold/store/database.py":
        return  # where transactions are made
    commits = [
        node.lineno
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Call)
        and isinstance(node.func, ast.Attribute)
        and node.func.attr in {"commit", "rollback"}
    ]
    assert not commits, f"a door or the executor commits: lines {commits}"


def test_what_plugin_authors_see_is_a_sorted_list_that_exists() -> None:
    listed = leasehold.provider.__all__
    assert len(listed) == len(set(listed))
    assert [name for name in listed if not hasattr(leasehold.provider, name)] == []
    # Everything that a method of the contract takes or gives can be imported from one place.
    public = {name for name in vars(leasehold.provider) if name[0].isupper()}
    assert public <= set(listed)


def _declared(path: Path) -> set[str]:
    """Return the packages of other plugins that a file's own plugin says it is built on."""
    project = ROOT / "workers" / path.relative_to(ROOT / "workers").parts[0]
    named = tomllib.loads((project / "pyproject.toml").read_text())["project"]["dependencies"]
    return {name.replace("-", "_") for name in named if name.startswith("leasehold-")}


def test_plugins_import_nothing_else_of_ours() -> None:
    for path in _files("workers/*/src/**/*.py"):
        plugin = path.relative_to(ROOT / "workers").parts[2]
        for node in ast.walk(ast.parse(path.read_text())):
            named = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            if isinstance(node, ast.ImportFrom):
                named = [node.module or ""]
            ours = {name for name in named if name.split(".")[0].startswith("leasehold")}
            known = {plugin, *_declared(path)}
            strange = [name for name in ours if name.split(".")[0] not in known]
            assert all(name.startswith("leasehold.provider") for name in strange), (
                f"{name_of(path)}: {strange}"
            )


def test_the_floors_hold() -> None:
    done = subprocess.run(
        [Path(sys.executable).with_name("lint-imports"), "--no-cache"],
        cwd=ROOT, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_map_of_the_house_fits_on_a_few_screens() -> None:
    assert len((ROOT / "ARCHITECTURE.md").read_text().splitlines()) <= 150
