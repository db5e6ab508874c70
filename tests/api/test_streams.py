"""Streams of history and output: nothing is missed, and nothing comes twice."""

import base64
from typing import Any

import httpx
import pytest

from api.served import client_of, make_key
from api.streaming import (
    RUNS,
    Message,
    end,
    leave,
    start,
    streaming,
    tell,
    whole,
    write,
    written,
)
from api.test_runs import refused
from command_line import until
from leasehold.api.serving import Service
from leasehold.store import moves
from leasehold.store.database import Database
from store.rows import insert_run


def by_stream(coming: list[Message]) -> list[tuple[str, Any]]:
    """Return messages without their places, those of stderr after those of stdout."""
    shown = [(m.name, m.data) for m in coming]
    return sorted(shown, key=lambda m: (m[1].get("start", 0), m[1].get("stream", "~")))


def test_history_comes_while_it_is_made_and_ends_with_its_run(
    quick: Service, database: Database, run: str
) -> None:
    with client_of(quick, make_key(database)) as client:
        with streaming(client, f"{run}/events/stream") as coming:
            first = [next(coming) for _ in range(2)]
            tell(database, run, "step.execute.started")
            assert next(coming).data["name"] == "step.execute.started"
            end(database, run)
            rest = list(coming)
        assert [m.data["name"] for m in first] == ["run.queued", "run.running"]
        assert [m.name for m in rest] == ["", "end"]
        assert rest[-1].data == {
            "status": "succeeded",
            "code": None,
            "message": None,
            "exit_code": 0,
        }
        # It is what the pages say.
        items = client.get(f"{RUNS}/{run}/events").json()["items"]
        assert [m.data for m in whole(client, f"{run}/events/stream")[:-1]] == items


def test_who_comes_back_from_any_message_gets_the_rest_and_only_that(
    quick: Service, database: Database, run: str
) -> None:
    for number in (1, 3):
        execution = start(database, run, number)
        for part in (b"one\n", b"\xc3", b"\xa4 two\n", b"\xff\xfe", b"x" * 70_000):
            write(database, execution, part)
        write(database, execution, b"oops\n", "stderr")
        leave(database, execution)
    end(database, run)
    out = 2 * (b"one\n\xc3\xa4 two\n\xff\xfe" + b"x" * 70_000)
    everything: list[Message] = []
    with client_of(quick, make_key(database)) as client:
        for path in (f"{run}/events/stream", f"{run}/output/stream"):
            everything = whole(client, path)
            assert everything[-1].name == "end"
            for at, message in enumerate(everything[:-1], 1):
                rest = whole(client, path, after=message.id)
                # Two streams of one command come in any order, each in its own.
                assert by_stream([*everything[:at], *rest]) == by_stream(everything)
            headers = {"Last-Event-ID": everything[-1].id}
            again = client.get(f"{RUNS}/{path}", headers=headers)
            assert (again.status_code, again.content) == (204, b"")
        assert written(everything, "stdout") == out
        assert written(everything, "stderr") == 2 * b"oops\n"
        exits = [m.data for m in everything if m.name == "exit"]
        assert [(shown["start"], shown["status"]) for shown in exits] == [
            (1, "exited"),
            (3, "exited"),
        ]
        only = whole(client, f"{run}/output/stream", stream="stderr")
        assert (written(only, "stdout"), written(only, "stderr")) == (b"", 2 * b"oops\n")


def test_a_letter_that_is_half_written_comes_whole_and_bytes_that_are_none_exactly(
    quick: Service, database: Database, run: str
) -> None:
    execution = start(database, run, 1)
    key = make_key(database)
    with client_of(quick, key) as client, streaming(client, f"{run}/output/stream") as coming:
        write(database, execution, b"a\xf0\x9f\xa6")
        assert next(coming).data["text"] == "a"
        write(database, execution, b"\x8a")
        assert next(coming).data["text"] == "\N{FOX FACE}"
        write(database, execution, b"\xffb\xe2\x82")
        strange = next(coming).data
        assert (strange["text"], strange["base64"]) == (
            "\N{REPLACEMENT CHARACTER}b",
            "/2I=",
        )
        leave(database, execution, 3)
        last, exited = next(coming), next(coming)
        assert base64.b64decode(last.data["base64"]) == b"\xe2\x82"
        assert (exited.name, exited.data["exit_code"]) == ("exit", 3)
        end(database, run)
        assert next(coming).name == "end"


def test_an_event_that_comes_to_light_behind_a_newer_one_is_not_missed(
    quick: Service, database: Database, run: str
) -> None:
    path = f"{run}/events/stream"
    with client_of(quick, make_key(database)) as client:
        with streaming(client, path) as coming:
            seen = [next(coming), next(coming)]
            tell(database, run, "newer", id=9002)
            seen.append(next(coming))
            tell(database, run, "elder", id=9001)
            seen.append(next(coming))
            assert [m.data["name"] for m in seen[2:]] == ["newer", "elder"]
        # After the newer one the elder is still to come; after both none of them is.
        tell(database, run, "last", id=9003)
        with streaming(client, path, after=seen[2].id) as coming:
            assert [next(coming).data["name"] for _ in range(2)] == ["elder", "last"]
        with streaming(client, path, after=seen[3].id) as coming:
            assert next(coming).data["name"] == "last"


def test_places_stay_short_however_much_history_there_is(
    quick: Service, database: Database
) -> None:
    with database.write("test") as tx:
        run = insert_run(tx, status="failed")
        for n in range(450):
            moves.record(tx, f"line.{n}", tenant_id="default", run_id=run["id"])
    with client_of(quick, make_key(database)) as client:
        everything = whole(client, f"{run['id']}/events/stream")
        assert len(everything) == 450 + 3 + 1
        assert max(len(m.id) for m in everything) < 1000
        old = tell_old(database, run["id"])
        assert whole(client, f"{run['id']}/events/stream")[-1].id == f"{old}:end"


def tell_old(database: Database, run_id: str) -> int:
    """Make all events of a run older than any transaction; return the last one's id."""
    with database.write("test") as tx:
        tx.run("UPDATE events SET at = at - 60000000 WHERE run_id = :id", id=run_id)
        return int(tx.value("SELECT MAX(id) FROM events WHERE run_id = :id", id=run_id))


@pytest.mark.parametrize("dialect", ["sqlite"], indirect=True)
def test_a_place_that_is_none_is_refused_and_a_run_that_is_none_not_found(
    client: httpx.Client, run: str
) -> None:
    for kind in ("events", "output"):
        for place in ("x", "1.2", "1.x.3", "-1", "1" * 19, ":end", "1.2.3.4"):
            if kind == "events" and place in {"1.2", "1.2.3.4"}:
                continue
            headers = {"Last-Event-ID": place}
            answer = client.get(f"{RUNS}/{run}/{kind}/stream", headers=headers)
            assert refused(answer, 422, "bad_input")["field"] == "Last-Event-ID", place
        refused(client.get(f"{RUNS}/none/{kind}/stream"), 404, "not_found")
    params = {"stream": "stdin"}
    refused(client.get(f"{RUNS}/{run}/output/stream", params=params), 422, "bad_input")


def test_who_has_nothing_to_read_is_kept_alive(
    quick: Service, database: Database, run: str
) -> None:
    with (
        client_of(quick, make_key(database)) as client,
        client.stream("GET", f"{RUNS}/{run}/output/stream") as answer,
    ):
        assert answer.headers["Cache-Control"] == "no-store"
        lines = answer.iter_lines()
        assert next(lines) == "retry: 1000"
        assert [next(lines) for _ in range(5)] == ["", ": alive", "", ": alive", ""]


def test_output_that_is_watched_is_looked_at_often(
    quick: Service, database: Database, run: str
) -> None:
    def asked() -> bool:
        with database.read() as tx:
            return tx.value("SELECT follow_until FROM runs WHERE id = :id", id=run) is not None

    with client_of(quick, make_key(database)) as client:
        with streaming(client, f"{run}/events/stream") as coming:
            assert [next(coming).data["name"] for _ in range(2)][-1] == "run.running"
            assert not asked()
        with streaming(client, f"{run}/output/stream"):
            until("its beats are asked for", asked)
