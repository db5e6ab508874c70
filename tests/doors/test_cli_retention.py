"""How long things are kept, through the command line; and how they go."""

import json

import pytest

from command_line import call
from leasehold.store.database import Database
from store.rows import insert_execution, insert_lease, insert_run

pytestmark = pytest.mark.usefixtures("deployment")
DAY_US = 86_400_000_000


def old_run(database: Database, *, days: int) -> str:
    with database.write("test") as tx:
        at = tx.now() - days * DAY_US
        run = insert_run(tx, status="failed", finished_at=at)
        lease = insert_lease(tx, status="released", run_id=run["id"])
        execution = insert_execution(tx, run, lease_id=lease["id"], status="exited")
        tx.run("UPDATE executions SET stdout_offset = 5 WHERE id = :id", id=execution["id"])
        tx.run(
            "INSERT INTO output_chunks (execution_id, stream, start, data)"
            " VALUES (:id, 'stdout', 0, :data)",
            id=execution["id"],
            data=b"hello",
        )
    return str(run["id"])


def test_what_is_set_is_shown_and_the_rest_stays(database: Database) -> None:
    shown = call("retention", "show", "--json")
    assert shown.json() == {"runs_s": 90 * 86_400, "output_s": 30 * 86_400}
    assert call("retention", "set", "--output", "12h").code == 0
    said = call("retention", "set", "--runs", "never", "--json")
    assert said.json() == {"runs_s": None, "output_s": 43_200}
    assert "for ever" in call("retention", "show").out
    assert "12 h after the end" in call("retention", "show").out
    with database.read() as tx:
        rows = tx.all("SELECT name, data FROM events ORDER BY id")
    told = [json.loads(row["data"]) for row in rows if row["name"] == "retention.changed"]
    assert told == [
        {"fields": ["output_s"], "actor": "cli"},
        {"fields": ["runs_s"], "actor": "cli"},
    ]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ((), "give at least one"),
        (("--runs", "soon"), "--runs: must be seconds or a duration"),
        (("--output", "1s"), "--output: Input should be greater than or equal to 3600"),
    ],
)
def test_what_cannot_be_set_is_refused_in_words(arguments: tuple[str, ...], words: str) -> None:
    said = call("retention", "set", *arguments)
    assert said.code == 2
    assert words in said.err
    assert call("retention", "show", "--json").json()["runs_s"] == 90 * 86_400


def test_a_dry_run_says_what_would_go_and_deletes_nothing(database: Database) -> None:
    run_id = old_run(database, days=91)
    said = call("prune", "--dry-run", "--json")
    assert (said.json()["runs"], said.json()["output_bytes"]) == (1, 5)
    assert "nothing was deleted" in call("prune", "--dry-run").err
    assert call("runs", "show", run_id).code == 0
    assert call("prune", "--json").json()["runs"] == 1
    assert call("runs", "show", run_id).code == 3
    assert call("prune").out.count("\n") > 3


def test_output_that_is_gone_is_said_to_be_gone(database: Database) -> None:
    run_id = old_run(database, days=31)
    assert call("runs", "logs", run_id).out == "hello"
    assert call("prune").code == 0
    said = call("runs", "logs", run_id)
    assert (said.code, said.out) == (0, "")
    assert "retention deleted the output" in said.err
    assert "retention deleted the output" in call("runs", "artifacts", run_id).err
    assert call("runs", "show", run_id, "--json").json()["output_pruned_at"] is not None
