"""The bytes of files that runs left: whole and proven, of one's own tenant only."""

import hashlib
import io
from pathlib import Path
from urllib.parse import quote

import httpx
import pytest

from api.served import client_of, make_key, serving
from leasehold.api.serving import Service
from leasehold.blobs import Blobs
from leasehold.client import Client
from leasehold.domain.roles import Role
from leasehold.errors import BlobMissingError, NotFoundError
from leasehold.settings import Settings
from leasehold.store import artifacts
from leasehold.store.database import Database
from store.rows import insert_run

PATH = "out/a b/r\u00e9sum\u00e9 #1?.txt"
BIG = bytes(range(256)) * 40_000
"""More than waits in memory."""


def leave(
    database: Database, settings: Settings, data: bytes, *, kind: str = "artifact"
) -> tuple[str, str]:
    """Make a run that has left a file; return its id and the file's digest."""
    digest = hashlib.sha256(data).hexdigest()
    store = Blobs(settings.store_address)
    store.put("default", io.BytesIO(data), name=digest, size=len(data))
    line = {"kind": kind, "path": PATH, "bytes": len(data), "sha256": digest, "mode": 0o644}
    with database.write("test") as tx:
        row = insert_run(tx, status="succeeded")
        artifacts.replace(tx, row, [line])
    return row["id"], digest


@pytest.mark.parametrize("data", [b"", b"small", BIG], ids=["empty", "small", "big"])
def test_a_file_comes_whole_with_its_digest(
    client: httpx.Client,
    service: Service,
    database: Database,
    settings: Settings,
    tmp_path: Path,
    data: bytes,
) -> None:
    run_id, digest = leave(database, settings, data)
    with Client(service.url, make_key(database, Role.VIEWER)) as api:
        target = tmp_path / "target"
        with target.open("wb") as file:
            assert api.runs.fetch(run_id, PATH, file) == digest
        assert target.read_bytes() == data
        with pytest.raises(NotFoundError, match="left no changed"):
            api.runs.fetch(run_id, PATH, io.BytesIO(), kind="changed")
    answer = client.get(f"/api/v1/runs/{run_id}/artifacts/{quote(PATH)}")
    assert answer.headers["Content-Length"] == str(len(data))
    assert answer.headers["Content-Type"] == "application/octet-stream"
    assert answer.headers["Content-Disposition"].startswith("attachment; filename*=UTF-8")
    assert answer.headers["X-Content-Type-Options"] == "nosniff"


def test_what_has_rotted_is_an_error_and_never_half_an_answer(
    client: httpx.Client, database: Database, settings: Settings
) -> None:
    run_id, digest = leave(database, settings, BIG)
    (kept,) = Path(settings.store_address).rglob(digest)
    kept.write_bytes(BIG[:-1] + b"x")
    api = Client(str(client.base_url), client.headers["Authorization"].split()[1], tries=1)
    with api, pytest.raises(BlobMissingError, match="the log has it"):
        api.runs.fetch(run_id, PATH, (file := io.BytesIO()))
    assert file.getvalue() == b""


def test_bytes_are_kept_under_their_digest(
    client: httpx.Client, service: Service, database: Database, settings: Settings
) -> None:
    digest = hashlib.sha256(BIG).hexdigest()
    with Client(service.url, make_key(database, Role.OPERATOR)) as api:
        for _ in range(2):
            api.runs.keep(io.BytesIO(BIG), digest=digest, size=len(BIG))
    (kept,) = Path(settings.store_address).rglob(digest)
    assert kept.read_bytes() == BIG
    wrong = client.put(f"/api/v1/blobs/{digest}", content=b"other")
    assert wrong.status_code == 422
    assert hashlib.sha256(b"other").hexdigest() in wrong.json()["message"]
    assert client.put("/api/v1/blobs/nonsense", content=b"").status_code == 422


def test_what_is_too_large_is_refused_before_it_is_read(
    settings: Settings, database: Database
) -> None:
    small = settings.model_copy(update={"max_workspace_bytes": 1000})
    with serving(small) as service, client_of(service, make_key(database)) as client:
        digest = hashlib.sha256(BIG).hexdigest()
        answer = client.put(f"/api/v1/blobs/{digest}", content=BIG)
        assert answer.status_code == 413, answer.text
        whole = iter([BIG[:600], BIG[600:1300]])
        digest = hashlib.sha256(BIG[:1300]).hexdigest()
        answer = client.put(f"/api/v1/blobs/{digest}", content=whole)
        assert answer.status_code == 413, answer.text
    assert not list(Path(settings.store_address).rglob(digest))


def test_another_tenants_files_are_not_there(
    service: Service, database: Database, settings: Settings
) -> None:
    run_id, _ = leave(database, settings, b"mine")
    with client_of(service, make_key(database, tenant="other")) as other:
        assert other.get(f"/api/v1/runs/{run_id}/artifacts/{PATH[:3]}").status_code == 404
    with (
        Client(service.url, make_key(database, tenant="other", name="again")) as api,
        pytest.raises(NotFoundError, match="there is no run"),
    ):
        api.runs.fetch(run_id, PATH, io.BytesIO())
