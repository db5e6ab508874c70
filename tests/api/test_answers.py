"""What holds for every request and answer: one shape of errors, limits, headers, no traces."""

import re
import socket
from typing import Any, Final

import httpx
import pytest

from api.served import client_of, make_key, serving
from leasehold import errors
from leasehold.api import answers
from leasehold.api.serving import Service
from leasehold.errors import LeaseholdError
from leasehold.settings import Settings
from leasehold.store.database import Database

SQLITE = pytest.mark.parametrize("dialect", ["sqlite"], indirect=True)
"""Nothing here is different on another database."""

RUNS = "/api/v1/runs"
BODY = {"environment": "place", "commands": [{"argv": ["true"]}]}
SHAPE = {"code", "message", "field", "request_id", "details"}


def every_class(kind: type[LeaseholdError] = LeaseholdError) -> set[type[LeaseholdError]]:
    # What a module raises and catches itself never comes here.
    below = [child for child in kind.__subclasses__() if child.__module__ == errors.__name__]
    return {kind}.union(*(every_class(child) for child in below))


def test_every_error_has_a_status_and_only_those_of_providers_are_faults() -> None:
    unsaid = {
        kind
        for kind in every_class()
        if next(s for k, s in answers.STATUSES if issubclass(kind, k)) == 500
    }
    engine = {
        LeaseholdError,
        errors.LostClaimError,
        errors.HostileTreeError,
        errors.BlobMissingError,
        errors.SecretUnavailableError,
        errors.ApiUnavailableError,  # said by clients of the API, never by it
    }
    assert {k for k in unsaid if not issubclass(k, errors.ProviderError)} == engine


@SQLITE
def test_every_answer_has_an_id_and_the_headers_of_security(client: httpx.Client) -> None:
    for method, path, status in (
        ("GET", RUNS, 200),
        ("GET", "/healthz", 200),
        ("GET", "/api/v1/nowhere", 404),
        ("PUT", RUNS, 405),
        ("POST", RUNS, 422),
    ):
        answer = client.request(method, path)
        assert answer.status_code == status, answer.text
        assert answer.headers["X-Content-Type-Options"] == "nosniff"
        assert answer.headers["X-Frame-Options"] == "DENY"
        assert answer.headers["Cache-Control"] == "no-store"
        assert "default-src 'none'" in answer.headers["Content-Security-Policy"]
        assert "server" not in answer.headers
        if status >= 400:
            assert set(answer.json()) == SHAPE
            assert answer.json()["request_id"] == answer.headers["X-Request-ID"]


@SQLITE
def test_a_client_may_name_its_request_in_decent_words(client: httpx.Client) -> None:
    named = client.get("/healthz", headers={"X-Request-ID": "ci-42"})
    assert named.headers["X-Request-ID"] == "ci-42"
    for bad in ("a b", "x" * 65, 'a"b', ""):
        given = client.get("/healthz", headers={"X-Request-ID": bad}).headers["X-Request-ID"]
        assert given != bad
        assert re.fullmatch(r"[0-9a-f-]{36}", given)


@SQLITE
def test_no_page_of_another_origin_may_use_it(client: httpx.Client) -> None:
    asked = {"Origin": "https://evil.example", "Access-Control-Request-Method": "POST"}
    before = client.options(RUNS, headers=asked)
    assert before.status_code == 405
    answer = client.get(RUNS, headers={"Origin": "https://evil.example"})
    for each in (before, answer):
        assert not [name for name in each.headers if name.startswith("access-control")]


NO_BODIES: Final = [
    (b"", "application/json", 422),
    (b"{", "application/json", 422),
    (b"[]", "application/json", 422),
    (b"null", "application/json", 422),
    (b"\xff\xfe", "application/json", 422),
    (b'{"a":1}', "text/plain", 422),
    (b"[" * 200_000, "application/json", 422),
    (b'{"commands":' + b"[" * 100_000, "application/json", 422),
]


@SQLITE
def test_a_body_that_is_none_is_refused_in_the_one_shape(client: httpx.Client) -> None:
    for content, kind, status in NO_BODIES:
        answer = client.post(RUNS, content=content, headers={"Content-Type": kind})
        assert answer.status_code == status, answer.text
        assert set(answer.json()) == SHAPE


@SQLITE
def test_a_body_that_is_too_big_is_refused_with_and_without_a_length(
    settings: Settings, database: Database
) -> None:
    big = b'{"a":"' + b"x" * 2000 + b'"}'
    headers = {"Content-Type": "application/json"}
    key = make_key(database)
    with serving(settings, max_body_bytes=1000) as service, client_of(service, key) as client:
        for content in (big, iter([big[:600], big[600:]])):
            answer = client.post(RUNS, content=content, headers=headers)
            assert answer.status_code == 413
            assert answer.json()["message"] == "the body has more than 1000 bytes"
        assert client.post(RUNS, json=BODY).status_code == 201


@SQLITE
def test_headers_that_are_too_big_are_refused(client: httpx.Client) -> None:
    answer = client.get(RUNS, headers={"X-Big": "x" * 17_000})
    assert (answer.status_code, answer.json()["code"]) == (413, "too_large")
    assert client.get(f"{RUNS}?label={'x' * 17_000}").status_code == 413


@SQLITE
def test_who_does_not_send_the_body_is_not_waited_for(
    settings: Settings, database: Database
) -> None:
    with serving(settings, body_s=0.2) as service:
        head = (
            f"POST {RUNS} HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
            f"Authorization: Bearer {make_key(database)}\r\nContent-Length: 100\r\n\r\n"
        )
        with socket.create_connection(("127.0.0.1", service.port), timeout=20) as raw:
            raw.sendall(head.encode() + b"{")
            answer = b"".join(iter(lambda: raw.recv(65536), b""))
    assert answer.startswith(b"HTTP/1.1 408 ")
    assert b'"code":"slow_request"' in answer


@SQLITE
def test_a_fault_of_ours_shows_an_id_and_no_trace(
    service: Service, client: httpx.Client, capsys: pytest.CaptureFixture[str]
) -> None:
    def broken(_work: Any) -> Any:
        raise ZeroDivisionError("secret words")

    service.application.state.door.read = broken
    with client_of(service, None) as stranger:
        key = f"lh_{'0' * 16}_{'A' * 43}"
        headers = {"Authorization": f"Bearer {key}", "X-Request-ID": "find-me"}
        answer = stranger.get(RUNS, headers=headers)
    assert answer.status_code == 500
    assert answer.json()["code"] == "internal"
    assert "secret" not in answer.text
    assert "Traceback" not in answer.text
    logged = capsys.readouterr()
    assert "find-me" in logged.out + logged.err


@SQLITE
def test_a_database_that_is_away_is_a_503_without_its_address(
    tmp_path: Any, settings: Settings, database: Database
) -> None:
    key = make_key(database)
    with serving(settings) as service, client_of(service, key) as client:

        def away(_work: Any) -> Any:
            raise errors.StoreUnavailableError("connection to 10.1.2.3 failed")

        door = service.application.state.door
        door.read, door.check_ready = away, lambda: away(None)
        for path in (RUNS, "/readyz"):
            answer = client.get(path)
            assert answer.status_code == 503
            assert answer.json()["code"] == "database_unavailable"
            assert answer.headers["Retry-After"] == "1"
            assert "10.1.2.3" not in answer.text
        assert client.get("/healthz").status_code == 200


@SQLITE
def test_what_is_described_is_what_there_is(client: httpx.Client) -> None:
    described = client.get("/api/v1/openapi.json").json()
    assert described["info"]["title"] == "Leasehold"
    create = described["paths"][RUNS]["post"]
    assert create["security"] == [{"HTTPBearer": []}]
    assert "Problem" in str(create["responses"]["422"])
    assert client.get("/docs").status_code == 404


@SQLITE
def test_the_use_of_a_key_is_written_once_a_minute_and_only_if_it_can_be(
    service: Service, client: httpx.Client, database: Database
) -> None:
    def used() -> Any:
        with database.read() as tx:
            return tx.value("SELECT last_used_at FROM api_keys")

    assert used() is None
    client.get(RUNS)
    first = used()
    client.get(RUNS)
    assert used() == first is not None
    with database.write("test") as tx:
        tx.run("UPDATE api_keys SET last_used_at = last_used_at - 60000000")
    client.get(RUNS)
    assert used() >= first

    def full(_name: str, _work: Any) -> Any:
        raise errors.StoreUnavailableError("database or disk is full")

    with database.write("test") as tx:
        tx.run("UPDATE api_keys SET last_used_at = NULL")
    service.application.state.door.write = full
    assert client.get(RUNS).status_code == 200
    assert used() is None
