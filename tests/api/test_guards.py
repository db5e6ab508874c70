"""Who asks too often waits, who guesses pays, and pages of strangers read nothing."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import httpx
import pytest

from api.served import client_of, make_key, serving
from leasehold.api.gate import address_of
from leasehold.domain.roles import Role
from leasehold.errors import BadInputError
from leasehold.settings import Settings, load
from leasehold.store.database import Database

SQLITE = pytest.mark.parametrize("dialect", ["sqlite"], indirect=True)
"""Nothing here is different on another database."""

VERSION = "/api/v1/version"
SLOW = 1e-6
"""A rate at which no test sees the next token."""


@contextmanager
def limited(settings: Settings, key: str | None, **changes: Any) -> Iterator[httpx.Client]:
    found = settings.model_copy(update=changes)
    with serving(found) as service, client_of(service, key) as client:
        yield client


@SQLITE
def test_a_key_that_asks_too_often_is_told_when_to_come_again(
    settings: Settings, database: Database
) -> None:
    one, other = make_key(database), make_key(database, Role.VIEWER)
    limits = {"api_requests_per_s": SLOW, "api_burst": 3}
    with limited(settings, one, **limits) as client:
        assert [client.get(VERSION).status_code for _ in range(4)] == [200, 200, 200, 429]
        refused = client.get("/api/v1/nowhere", headers={"X-Request-ID": "mine"})
        assert refused.status_code == 429
        said = refused.json()
        assert (said["code"], said["request_id"]) == ("rate_limited", "mine")
        assert int(refused.headers["Retry-After"]) >= said["details"]["retry_after_s"] > 0
        headers = {"Authorization": f"Bearer {other}"}
        assert client.get(VERSION, headers=headers).status_code == 200
        assert client.get("/healthz").status_code == 200


@SQLITE
def test_who_guesses_is_refused_before_anything_is_looked_up(
    settings: Settings, database: Database
) -> None:
    good = {"Authorization": f"Bearer {make_key(database)}"}
    late = {"Authorization": f"Bearer {make_key(database, Role.VIEWER)}"}
    guess = {"Authorization": f"Bearer lh_{'0' * 16}_{'A' * 43}"}
    with limited(settings, None, api_failures_per_minute=SLOW) as client:
        # What is valid costs nothing: a bucket for one failure is still full.
        assert client.get(VERSION, headers=good).status_code == 200
        assert client.get(VERSION, headers=guess).status_code == 401
        refused = client.get(VERSION, headers=guess)
        assert (refused.status_code, refused.json()["code"]) == (429, "rate_limited")
        assert "Retry-After" in refused.headers
        # Who was known before is not locked out by a neighbour; who was not has to wait.
        assert client.get(VERSION, headers=good).status_code == 200
        assert client.get(VERSION, headers=late).status_code == 429
        assert client.get("/readyz").status_code == 200
        with database.write("test") as tx:
            tx.run("UPDATE api_keys SET revoked_at = {now}")
        assert client.get(VERSION, headers=good).status_code == 401
        assert client.get(VERSION, headers=good).status_code == 429


@SQLITE
def test_behind_a_proxy_that_is_believed_each_client_has_an_address(
    settings: Settings, database: Database
) -> None:
    make_key(database)

    def ask(client: httpx.Client, address: str) -> int:
        return client.get(VERSION, headers={"X-Forwarded-For": address}).status_code

    with limited(settings, None, api_failures_per_minute=SLOW) as client:
        assert [ask(client, f"192.0.2.{n}") for n in range(2)] == [401, 429]
    believed = {"api_failures_per_minute": SLOW, "api_proxies": "127.0.0.0/8"}
    with limited(settings, None, **believed) as client:
        assert [ask(client, f"192.0.2.{n}") for n in (1, 2, 1)] == [401, 401, 429]


@pytest.mark.parametrize(
    ("client", "counted"),
    [
        (("192.0.2.1", 4), "192.0.2.1"),
        (("2001:db8:0:1:2::3", 4), "2001:db8:0:1::/64"),
        (("::ffff:192.0.2.1", 4), "192.0.2.1"),
        (("socket", 0), "socket"),
        (None, ""),
    ],
)
def test_an_ipv6_client_is_counted_by_its_network(client: Any, counted: str) -> None:
    assert address_of({"client": client}) == counted


def preflight(client: httpx.Client, origin: str) -> httpx.Response:
    asked = {"Access-Control-Request-Method": "POST"}
    asked["Access-Control-Request-Headers"] = "authorization,content-type,idempotency-key"
    return client.options("/api/v1/runs", headers={"Origin": origin, **asked})


@SQLITE
def test_no_page_of_another_origin_may_use_the_api(
    settings: Settings, database: Database
) -> None:
    key = make_key(database)
    with limited(settings, None) as client:
        asked = preflight(client, "https://ops.example.org")
        assert asked.status_code == 401
        answer = client.get(
            VERSION,
            headers={"Origin": "https://ops.example.org", "Authorization": f"Bearer {key}"},
        )
        assert answer.status_code == 200
        every = {*asked.headers, *answer.headers}
        assert not [name for name in every if name.startswith("access-control")]


@SQLITE
def test_pages_of_a_named_origin_may_and_read_errors_too(
    settings: Settings, database: Database
) -> None:
    key, ours = make_key(database), "https://ops.example.org"
    origins = f"{ours},http://127.0.0.1:3000"
    with limited(settings, key, api_cors_origins=origins) as client:
        asked = preflight(client, ours)
        assert asked.status_code == 200
        assert asked.headers["Access-Control-Allow-Origin"] == ours
        for path, headers, status in (
            (VERSION, {}, 200),
            ("/api/v1/nowhere", {}, 404),
            (VERSION, {"Authorization": "Bearer nonsense"}, 401),
        ):
            answer = client.get(path, headers={"Origin": ours, **headers})
            assert answer.status_code == status
            assert answer.headers["Access-Control-Allow-Origin"] == ours
            assert "Access-Control-Allow-Credentials" not in answer.headers
            assert "X-Request-ID" in answer.headers["Access-Control-Expose-Headers"]
        for stranger in (
            "https://evil.example.org",
            "null",
            f"{ours}.evil",
            "http://ops.example.org",
        ):
            refused = preflight(client, stranger)
            assert refused.status_code == 400
            answer = client.get(VERSION, headers={"Origin": stranger})
            for one in (refused, answer):
                assert "Access-Control-Allow-Origin" not in one.headers


@pytest.mark.parametrize(
    "origins",
    [
        "*",
        "https://*.example.org",
        "https://a.org/",
        "https://a.org/x",
        "a.org",
        "null",
        "https://A.org",
        "https://a.org, https://b.org",
        "ftp://a.org",
    ],
)
def test_an_origin_is_exact_or_refused(origins: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LEASEHOLD_API_CORS_ORIGINS", origins)
    with pytest.raises(BadInputError, match="LEASEHOLD_API_CORS_ORIGINS"):
        load()
