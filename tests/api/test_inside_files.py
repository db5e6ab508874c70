"""Files that a command keeps of its own run, with its token."""

# ruff: noqa: F401, F811  fixtures are found by their names
import hashlib
import tempfile
from http.client import HTTPConnection
from typing import Any, BinaryIO, cast

import httpx

from api.served import client_of, serving
from api.test_inside import INSIDE, execution, inside, token
from leasehold.api.serving import Service
from leasehold.blobs import Blobs
from leasehold.settings import Settings
from leasehold.store import artifacts
from leasehold.store.database import Database, Row


def test_a_file_is_kept_under_its_name_and_content(
    service: Service,
    settings: Settings,
    database: Database,
    inside: httpx.Client,
    execution: Row,
) -> None:
    content = b"a page\n" * 300_000
    digest = hashlib.sha256(content).hexdigest()
    for name in ("out/report.html", "out/other.html"):
        answer = inside.put(
            f"{INSIDE}/artifacts/{name}", content=content, headers={"Leasehold-SHA256": digest}
        )
        assert answer.status_code == 201, answer.text
        assert answer.json() == {"path": name, "bytes": len(content), "sha256": digest}
    assert inside.put(f"{INSIDE}/artifacts/out/other.html", content=b"new").status_code == 201
    with database.read() as tx:
        lines = {row["path"]: row for row in artifacts.of_run(tx, execution["run_id"])}
    assert {path: row["bytes"] for path, row in lines.items()} == {
        "out/report.html": len(content),
        "out/other.html": 3,
    }
    with tempfile.TemporaryFile() as file:
        spool = cast("BinaryIO", file)
        Blobs(settings.store_address).fetch("default", digest, spool)
        spool.seek(0)
        assert spool.read() == content


def test_a_file_that_came_otherwise_is_refused(
    database: Database, inside: httpx.Client, execution: Row
) -> None:
    for headers, status in (
        ({"Leasehold-SHA256": "0" * 64}, 422),
        ({"Leasehold-SHA256": "x"}, 422),
    ):
        answer = inside.put(f"{INSIDE}/artifacts/x", content=b"x", headers=headers)
        assert answer.status_code == status
    for path in ("a/../b", "../b", "a//b", "./a", "a/.", "%00", "a%0Ab", "x" * 401, "/etc/x"):
        # As it is: clients make paths that lead up shorter before they send them.
        line = HTTPConnection(inside.base_url.host, inside.base_url.port)
        headers = {"Authorization": inside.headers["Authorization"]}
        line.request("PUT", f"{INSIDE}/artifacts/{path}", body=b"x", headers=headers)
        assert line.getresponse().status in {404, 422}, path
        line.close()
    with database.read() as tx:
        assert artifacts.of_run(tx, execution["run_id"]) == []


def test_files_have_bounds_each_and_together(
    settings: Settings, database: Database, token: str
) -> None:
    limits = {"max_artifact_bytes": 100, "max_artifacts_bytes": 150, "max_artifacts": 3}
    found = settings.model_copy(update=limits)
    with serving(found) as service, client_of(service, token) as client:

        def put(name: str, size: int, *, told: bool = True) -> int:
            content = b"x" * size
            body: Any = content if told else iter([content])
            return client.put(f"{INSIDE}/artifacts/{name}", content=body).status_code

        assert put("big", 101) == 413
        assert put("big", 101, told=False) == 413
        assert put("a", 100) == 201
        assert put("b", 51) == 413
        assert put("b", 51, told=False) == 413
        assert put("b", 50, told=False) == 201
        assert put("a", 1) == 201  # over the one of before
        assert put("c", 1) == 201
        assert put("d", 1) == 413
        # Other bodies have the limit of before.
        assert client.put(f"{INSIDE}/result", json="x" * 200).status_code == 200


def test_what_is_collected_leaves_what_was_sent(
    database: Database, inside: httpx.Client, execution: Row
) -> None:
    for name in ("sent", "both"):
        assert inside.put(f"{INSIDE}/artifacts/{name}", content=b"sent").status_code == 201
    line = {"kind": "artifact", "mode": 0o600, "bytes": 1, "sha256": "0" * 64}
    run = {"id": execution["run_id"], "tenant_id": "default"}
    for _ in range(2):
        with database.write("test") as tx:
            lines = [{**line, "path": "both"}, {**line, "path": "found"}]
            artifacts.replace(tx, run, lines)
    with database.read() as tx:
        kept = {row["path"]: row["bytes"] for row in artifacts.of_run(tx, run["id"])}
    assert kept == {"sent": 4, "both": 1, "found": 1}
