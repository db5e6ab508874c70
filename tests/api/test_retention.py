"""``/retention`` over HTTP; and output that is gone is no empty output."""

import httpx
import pytest

from leasehold.store.database import Database
from store.rows import insert_execution, insert_lease, insert_run

WHERE = "/api/v1/retention"


def test_what_is_left_out_stays_and_null_is_for_ever(client: httpx.Client) -> None:
    assert client.get(WHERE).json() == {"runs_s": 7_776_000, "output_s": 2_592_000}
    assert client.put(WHERE, json={"runs_s": "10d"}).json()["output_s"] == 2_592_000
    assert client.put(WHERE, json={"output_s": None}).json()["output_s"] is None
    assert client.put(WHERE, json={"runs_s": "never"}).json()["runs_s"] is None
    assert client.get(WHERE).json() == {"runs_s": None, "output_s": None}


@pytest.mark.parametrize("body", [{}, {"runs_s": "soon"}, {"runs_s": 5}, {"run_s": "10d"}, []])
def test_what_cannot_be_kept_so_is_refused(client: httpx.Client, body: object) -> None:
    answer = client.put(WHERE, json=body)
    assert answer.status_code == 422
    assert answer.json()["code"] == "bad_input"
    assert client.get(WHERE).json()["runs_s"] == 7_776_000


def test_output_that_retention_deleted_is_not_there(
    client: httpx.Client, database: Database
) -> None:
    with database.write("test") as tx:
        run = insert_run(tx, status="succeeded", output_pruned_at=tx.now())
        lease = insert_lease(tx, status="released")
        insert_execution(tx, run, lease_id=lease["id"], status="exited")
    answer = client.get(f"/api/v1/runs/{run['id']}/output")
    assert answer.status_code == 404
    assert "retention deleted the output" in answer.json()["message"]
    assert client.get(f"/api/v1/runs/{run['id']}").json()["output_pruned_at"] is not None
