"""Whatever is sent, the answer is no 5xx and has the one shape; the same examples each time."""

import json
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Final

import httpx
import pytest
from fastapi.routing import iter_route_contexts
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from api.served import client_of, make_key
from command_line import serve
from leasehold.api.gate import is_page
from leasehold.api.serving import Service
from leasehold.domain.specs import EnvironmentSpec, RunSpec
from leasehold.store import hosts
from leasehold.store.database import Database

EXAMPLES: Final = 150
FIELDS: Final = sorted(
    {*RunSpec.model_fields, *EnvironmentSpec.model_fields, "lease_id", "ttl_s"}
)
PARAMETERS: Final = ("cursor", "limit", "status", "label", "environment", "after", "offset")
TEXTS: Final = st.one_of(
    st.text(max_size=8),
    st.sampled_from(["place", "fake", "\0", "%", "1h", "a=b", "-1", "9" * 30, "local", "é"]),
)
SCALARS: Final = st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), TEXTS)
VALUES: Final = st.recursive(
    SCALARS,
    lambda inner: st.one_of(
        st.lists(inner, max_size=3), st.dictionaries(st.sampled_from(FIELDS), inner, max_size=3)
    ),
    max_leaves=6,
)
COMMANDS: Final = st.just([{"argv": ["true"]}])
BODIES: Final = st.one_of(
    VALUES,
    st.dictionaries(st.sampled_from(FIELDS), VALUES, max_size=4),
    # Nearly right ones get further.
    st.tuples(COMMANDS, st.dictionaries(st.sampled_from(FIELDS), VALUES, max_size=2)).map(
        lambda pair: {"environment": "place", "commands": pair[0], **pair[1]}
    ),
)


@pytest.fixture
def routes(service: Service) -> list[tuple[str, str]]:
    return sorted(
        (method, str(context.path))
        for context in iter_route_contexts(service.application.routes)
        for method in context.methods or ()
    )


def test_strange_requests_are_refused_and_break_nothing(
    client: httpx.Client, routes: list[tuple[str, str]]
) -> None:
    @settings(max_examples=EXAMPLES, suppress_health_check=list(HealthCheck))
    @given(
        route=st.sampled_from(routes),
        ids=st.sampled_from(["place", "nowhere", "%00", "%ff", "..", "a%2Fb"]),
        params=st.dictionaries(st.sampled_from(PARAMETERS), TEXTS, max_size=2),
        body=BODIES,
        key=st.sampled_from([None, "", "k", "\xff"]),
    )
    def ask(route: tuple[str, str], ids: str, params: Any, body: Any, key: Any) -> None:
        method, path = route
        for name in ("run_id", "lease_id", "name", "key"):
            path = path.replace(f"{{{name}}}", ids)
        headers = {b"Content-Type": b"application/json"}
        if key is not None:
            headers[b"Idempotency-Key"] = key.encode("latin-1")
        content = json.dumps(body).encode()
        answer = client.request(method, path, params=params, content=content, headers=headers)
        assert answer.status_code < 500, (route, params, body, answer.text)
        if is_page(path):
            return  # for people: test_pages has how errors look there
        if answer.status_code >= 400 and method != "HEAD":
            shape = {"code", "message", "field", "request_id", "details"}
            assert set(answer.json()) == shape, (route, answer.text)

    ask()
    assert client.get("/readyz").status_code == 200


@pytest.fixture
def clients(service: Service, database: Database) -> Iterator[list[httpx.Client]]:
    key = make_key(database)
    with (
        client_of(service, key) as a,
        client_of(service, key) as b,
        client_of(service, key) as c,
        client_of(service, key) as d,
    ):
        yield [a, b, c, d]


def at_once(clients: list[httpx.Client], path: str, **sent: Any) -> list[int]:
    """Let all clients post the same at the same time; return the statuses, in order."""
    together = threading.Barrier(len(clients))

    def send(client: httpx.Client) -> int:
        together.wait()
        return client.post(f"/api/v1/{path}", **sent).status_code

    with ThreadPoolExecutor(len(clients)) as threads:
        return sorted(threads.map(send, clients))


def test_one_name_asked_for_by_many_at_once_is_one_environment(
    clients: list[httpx.Client], database: Database
) -> None:
    with database.write("test") as tx:
        serve(tx, key="local", host_id=hosts.hosts(tx)[0]["id"])
    for number in range(5):
        place = {"name": f"e{number}", "provider": "fake"}
        assert at_once(clients, "environments", json=place) == [201, 409, 409, 409]
    # The default place is made by the first, and used by all.
    run = {"commands": [{"argv": ["true"]}]}
    assert at_once(clients, "runs", json=run) == [201] * 4


def test_one_key_sent_by_many_at_once_makes_one_run(clients: list[httpx.Client]) -> None:
    body = {"environment": "place", "commands": [{"argv": ["true"]}]}
    for number in range(5):
        headers = {"Idempotency-Key": f"k{number}"}
        assert at_once(clients, "runs", json=body, headers=headers) == [200, 200, 200, 201]
    assert len(clients[0].get("/api/v1/runs").json()["items"]) == 5


def test_one_name_of_a_key_made_by_many_at_once_is_one_key(clients: list[httpx.Client]) -> None:
    for number in range(5):
        body = {"name": f"key-{number}", "role": "viewer"}
        assert at_once(clients, "keys", json=body) == [201, 409, 409, 409]
