"""The same commands through both doors, on one stack: the same words, JSON and exit codes."""

import json
from collections.abc import Iterator
from typing import Any, Final

import pytest

from leasehold.cli.local_only import WHY
from leasehold.cli.main import app
from two_doors import ID, PLATFORM, READS, STORIES, Doors, ageless, both, plain

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def doors(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Doors]:
    with both(tmp_path_factory.mktemp("doors")) as doors:
        yield doors


@pytest.mark.parametrize("as_json", [False, True], ids=["text", "json"])
@pytest.mark.parametrize("command", READS, ids=" ".join)
def test_what_changes_nothing_says_the_same(
    doors: Doors, command: tuple[str, ...], *, as_json: bool
) -> None:
    names = {"RUN": doors.run, "SHORT": doors.run[-12:], "LEASE": doors.lease}
    typed = [names.get(word, word) for word in command]
    if as_json:
        place = typed.index("--") if "--" in typed else len(typed)
        typed.insert(place, "--json")
    sql, rest = doors.sql(*typed), doors.rest(*typed)
    assert (rest.code, ageless(rest.out), rest.err) == (sql.code, ageless(sql.out), sql.err)
    if as_json and sql.code == 0:
        assert rest.json() == sql.json()


@pytest.mark.parametrize("command", PLATFORM, ids=" ".join)
def test_a_key_of_the_platform_is_shown_what_sql_shows(
    doors: Doors, command: tuple[str, ...]
) -> None:
    sql, rest = doors.sql(*command, "--json"), doors.rest(*command, "--json", root=True)
    assert (rest.code, plain(rest.err)) == (sql.code, plain(sql.err))
    assert plain(rest.out) == plain(sql.out)


@pytest.mark.parametrize("name", STORIES)
def test_what_changes_something_says_the_same_of_it(doors: Doors, name: str) -> None:
    told: list[list[tuple[int, str, str]]] = []
    for door, ask in (("by-sql", doors.sql), ("by-api", doors.rest)):
        lines, last, second = [], "", ""
        for command in STORIES[name]:
            names = {"LEASE": doors.lease, "LAST": last, "LEASE2": second}
            typed = [names.get(word, word.replace("DOOR", door)) for word in command]
            said = ask(*typed, stdin=b"correct horse battery\n")
            last = said.out.strip() or last
            second = last if ID.fullmatch(last) else second
            words = [plain(text).replace(door, "DOOR") for text in (said.out, said.err)]
            lines.append((said.code, *map(ageless, words)))
        told.append(lines)  # type: ignore[arg-type]
    for sql, rest in zip(*told, strict=True):
        if sql[1].startswith("{"):
            shapes = [steady(json.loads(one[1])) for one in (sql, rest)]
            assert (rest[0], shapes[1], rest[2]) == (sql[0], shapes[0], sql[2])
        else:
            assert rest == sql


def steady(shape: Any) -> Any:
    """Return a run without what depends on which worker was how quick."""
    return {name: shape[name] for name in shape if name not in {"events", "worker_id"}}


def test_tenants_are_managed_by_both(doors: Doors) -> None:
    told = []
    for door, root in (("by-sql", False), ("by-api", True)):
        lines = []
        for command in (
            ("tenants", "create", door, "--max-concurrent", "3"),
            ("tenants", "limits", door, "--max-queued", "5", "--max-concurrent", "none"),
            ("keys", "create", "first", "--role", "admin", "--tenant", door),
            ("keys", "list", "--tenant", door),
            ("tenants", "archive", door),
            ("tenants", "archive", door, "--undo"),
        ):
            typed = (*command, "--json")
            said = doors.rest(*typed, root=True) if root else doors.sql(*typed)
            lines.append((said.code, plain(said.out + said.err).replace(door, "DOOR")))
        told.append(lines)
    assert told[0] == told[1]


def test_a_detached_run_is_waited_for_cancelled_and_retried(doors: Doors) -> None:
    for ask in (doors.sql, doors.rest):
        said = ask("run", "-d", "--", "sh", "-c", "echo on; exec sleep 600")
        assert said.code == 0, said.err
        run = said.out.strip()
        gave_up = ask("runs", "wait", run, "--timeout", "0.3s")
        assert (gave_up.code, gave_up.out) == (124, "")
        extended = ask("runs", "extend", run, "--deadline", "30d", "--json")
        assert (
            extended.json()["deadline_at"]
            > ask("runs", "show", run, "--json").json()["created_at"]
        )
        assert ask("runs", "cancel", run).err == f"leasehold: run {run} is to end (cancel)\n"
        assert ask("runs", "wait", run).code == 255
        again = ask("runs", "retry", run, "--key", f"again-{run}")
        assert again.code == 0, again.err
        assert ask("runs", "retry", run, "--key", f"again-{run}").out == again.out
        ask("runs", "cancel", again.out.strip())


def commands(group: Any, *path: str) -> Iterator[tuple[str, ...]]:
    for name, command in group.commands.items():
        if hasattr(command, "commands"):
            yield from commands(command, *path, name)
        else:
            yield (*path, name)


HERE_IN_ANY_CASE: Final = {("simulate",), ("secrets", "new-key"), ("providers", "check")}
"""They ask no deployment."""


def test_every_command_goes_through_both_doors_or_says_why_not() -> None:
    import typer

    stories = [line for story in STORIES.values() for line in story]
    tried = {line[:n] for line in [*READS, *PLATFORM, *stories] for n in (1, 2, 3)}
    tried |= {("runs", "retry"), ("tenants", "create"), ("tenants", "limits")}
    tried |= {("tenants", "archive"), ("secrets", "rotate"), ("leases", "release")}
    there = set(commands(typer.main.get_command(app)))
    assert there - tried == set(WHY) | HERE_IN_ANY_CASE
