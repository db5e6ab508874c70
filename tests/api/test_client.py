"""`leasehold.Client` before a real server: what it shows, repeats, refuses and never tells."""

import logging
from collections.abc import Callable, Iterator
from datetime import UTC, timedelta

import pytest

import leasehold
from api.served import make_key
from api.troubled import DROP, LOSE, Cut, Door, before
from leasehold import errors
from leasehold.api.serving import Service
from leasehold.client import Client
from leasehold.domain.fields import RunFields
from leasehold.domain.roles import Role
from leasehold.domain.specs import RunSpec
from leasehold.store import executions, runs
from leasehold.store.database import Database
from store.rows import insert_execution, insert_lease, insert_run

SQLITE = pytest.mark.parametrize("dialect", ["sqlite"], indirect=True)
"""For what never comes to a database."""


@pytest.fixture
def token(database: Database) -> str:
    return make_key(database)


@pytest.fixture
def api(service: Service, token: str) -> Iterator[Client]:
    with leasehold.Client(service.url, token) as api:
        yield api


@pytest.fixture
def door(service: Service) -> Iterator[Door]:
    with before(service.url) as door:
        yield door


@pytest.fixture
def troubled(door: Door, token: str) -> Iterator[Client]:
    with Client(door.url, token, tries=4) as api:
        yield api


def count_of_runs(database: Database) -> int:
    with database.read() as tx:
        return len(runs.page(tx, tenant_id="default"))


def test_a_run_is_created_shown_cancelled_and_listed(api: Client) -> None:
    run = api.run(
        ["echo", "hi"],
        environment="place",
        labels={"team": "a"},
        timeout_s=timedelta(minutes=10),
        stdin=b"\xff",
    )
    assert (run.environment, run.provider, run.labels) == ("place", "fake", {"team": "a"})
    assert run.created_at.tzinfo is UTC
    assert not run.over
    same = api.runs.get(run.id)
    assert same.raw["commands"] == [{"argv": ["echo", "hi"], "cwd": None}]
    assert [event.name for event in run.events()] == ["run.queued", "run.running"]
    assert run.cancel().status == "cancelled"
    assert [r.id for r in api.runs.list(labels={"team": "a"}, environment="place")] == [run.id]
    assert list(api.runs.list(status=["succeeded"])) == []
    assert run.output() == b""


def test_a_list_goes_on_over_its_pages(api: Client, database: Database) -> None:
    with database.write("test") as tx:
        made = {insert_run(tx, status="succeeded")["id"] for _ in range(450)}
    listed = [run.id for run in api.runs.list()]
    assert len(listed) == len(made)
    assert set(listed) == made


def test_a_key_makes_one_run_and_another_body_is_a_conflict(api: Client) -> None:
    first = api.run(["true"], environment="place", key="k")
    assert api.run(["true"], environment="place", key="k").id == first.id
    with pytest.raises(errors.IdempotencyConflictError) as caught:
        api.run(["false"], environment="place", key="k")
    assert caught.value.request_id
    assert caught.value.__notes__ == [f"request id: {caught.value.request_id}"]


def test_a_run_says_what_it_starts_after(api: Client) -> None:
    first = api.run(["true"], environment="place")
    second = api.run(["true"], environment="place", after=[f"{first.id}:any"])
    assert (second.status, second.waits_for) == ("queued", 1)
    shown = api.runs.get(second.id).raw["after"]
    assert shown == [{"run": first.id, "outcome": "any", "status": "running"}]
    with pytest.raises(errors.NotFoundError, match="after: there is no run nothing"):
        api.run(["true"], environment="place", after=[{"run": "nothing"}])
    with pytest.raises(errors.BadInputError, match=r"after\.0\.outcome"):
        api.run(["true"], environment="place", after=[f"{first.id}:soon"])


def test_environments_are_made_shown_archived_and_deleted(api: Client) -> None:
    made = api.environments.create(
        "other", provider="fake", policy="retain_on_failure", max_concurrent=3, idle_ttl="10m"
    )
    assert (made.policy, made.limits) == ("retain_on_failure", {"max_concurrent": 3})
    assert made.raw["idle_ttl_s"] == 600
    assert api.environments.get("other").unfinished_runs == 0
    assert [e.name for e in api.environments.list(provider="fake")] == ["other", "place"]
    assert api.environments.archive("other").status == "archived"
    with pytest.raises(errors.ConflictError, match="archived"):
        api.run(["true"], environment="other")
    assert api.environments.unarchive("other").status == "active"
    api.environments.delete("other")
    with pytest.raises(errors.NotFoundError):
        api.environments.get("other")


def test_leases_are_made_used_retained_and_released(api: Client, database: Database) -> None:
    lease = api.leases.create("place", ttl=timedelta(hours=1))
    assert (lease.status, lease.environment) == ("acquiring", "place")
    assert lease.held_until is not None
    run = lease.run(["true"])
    assert run.raw["wanted_lease_id"] == lease.id
    assert [one.id for one in api.leases.list(live=True)] == [lease.id]
    with database.write("test") as tx:
        kept = insert_lease(tx, status="retained")["id"]
    assert api.leases.get(kept).retain().status == "retained"
    with api.leases.get(kept):
        pass
    assert api.leases.get(kept).status == "releasing"


def test_defaults_of_places_are_set_listed_and_taken_away(api: Client) -> None:
    assert api.selections.set("place").kind == "tenant"
    assert api.selections.set("place", project="web").name == "web"
    assert api.selections.set("place", workspace="shop").kind == "workspace"
    assert api.run(["true"], labels={"project": "web"}).environment == "place"
    assert [one.kind for one in api.selections.list()] == ["workspace", "project", "tenant"]
    assert api.selections.set(None, workspace="shop").environment is None
    assert [one.kind for one in api.selections.list()] == ["project", "tenant"]


def test_webhooks_are_made_changed_and_deleted(api: Client) -> None:
    made = api.webhooks.create("pager", "https://pager.test/x", statuses=["failed"])
    assert made.secret.startswith("whsec_")
    assert made.secret not in repr(made)
    assert api.webhooks.new_secret("pager").secret != made.secret
    assert not api.webhooks.change("pager", {"enabled": False, "statuses": None}).enabled
    assert [hook.name for hook in api.webhooks.list()] == ["pager"]
    assert api.webhooks.get("pager").waiting == 0
    assert list(api.webhooks.deliveries("pager", status=["failed"])) == []
    with pytest.raises(errors.NotFoundError):
        api.webhooks.redeliver("pager", "nothing")
    assert api.webhooks.delete("pager").name == "pager"
    deeds = list(api.activity(noun="webhook"))
    assert deeds[0].name == "webhook.deleted"
    assert deeds[-1].name == "webhook.created"
    at = deeds[0].at
    assert not list(api.activity(noun="webhook", since=at + timedelta(hours=1)))
    assert len(list(api.activity(noun="webhook", until=at + timedelta(hours=1)))) == len(deeds)


@SQLITE
@pytest.mark.parametrize(
    ("ask", "kind", "said"),
    [
        (lambda api: api.runs.get("nothing"), errors.NotFoundError, "no run nothing"),
        (lambda api: api.run([]), errors.BadInputError, "at least 1 item"),
        (lambda api: api.run("echo hello"), errors.BadInputError, "no shell reads it"),
        (lambda api: api.run(["a"], colour=1), errors.BadInputError, "no such field"),
        (lambda api: api.run(["a"], environment="x"), errors.NotFoundError, "there are: place"),
    ],
)
def test_what_the_api_refuses_is_an_exception_of_ours(
    api: Client, ask: Callable[[Client], object], kind: type[Exception], said: str
) -> None:
    with pytest.raises(kind, match=said):
        ask(api)


@SQLITE
def test_the_role_and_the_key_are_judged_by_the_api(
    service: Service, database: Database
) -> None:
    with Client(service.url, make_key(database, Role.VIEWER)) as viewer:
        assert list(viewer.runs.list()) == []
        with pytest.raises(errors.ForbiddenError, match="viewer"):
            viewer.run(["true"])
    with Client(service.url, "lh_x_y") as nobody, pytest.raises(errors.UnauthenticatedError):
        list(nobody.runs.list())


@pytest.mark.parametrize("trouble", [LOSE, DROP, 502, 503, 429])
def test_a_run_whose_answer_is_lost_is_asked_for_again_and_made_once(
    troubled: Client, door: Door, database: Database, trouble: str | int
) -> None:
    door.plan = [trouble, trouble]
    run = troubled.run(["true"], environment="place")
    assert run.id
    assert count_of_runs(database) == 1
    keys = {key for _, _, key in door.asked}
    assert len(door.asked) == 3
    assert len(keys) == 1
    assert None not in keys


@SQLITE
def test_what_could_happen_twice_is_not_repeated(
    troubled: Client, door: Door, database: Database
) -> None:
    door.plan = [LOSE]
    with pytest.raises(errors.ApiUnavailableError, match="does not answer"):
        troubled.environments.create("one", provider="fake")
    door.plan = [503]
    with pytest.raises(errors.ApiUnavailableError, match="answered 503"):
        troubled.environments.create("two", provider="fake")
    assert len(door.asked) == 2
    assert [one.name for one in troubled.environments.list()] == ["one", "place"]
    door.plan = [429]
    troubled.environments.create("two", provider="fake")


@SQLITE
def test_a_lease_whose_answer_is_lost_is_asked_for_again_and_made_once(
    troubled: Client, door: Door
) -> None:
    door.plan = [LOSE, 503]
    lease = troubled.leases.create("place")
    assert [one.id for one in troubled.leases.list()] == [lease.id]
    assert len({key for method, _, key in door.asked if method == "POST"}) == 1
    mine = troubled.leases.create("place", ttl="10m", key="mine")
    assert troubled.leases.create("place", ttl=600, key="mine").id == mine.id
    assert mine.key == "mine"
    with pytest.raises(errors.IdempotencyConflictError, match="with another body"):
        troubled.leases.create("place", ttl="20m", key="mine")


@SQLITE
def test_tries_have_an_end_and_the_last_answer_is_said(troubled: Client, door: Door) -> None:
    door.plan = [503, 503, 503, (503, b"<html>the proxy   is sorry</html>")]
    with pytest.raises(errors.ApiUnavailableError, match="the proxy is sorry") as caught:
        troubled.runs.get("x")
    assert caught.value.retryable
    assert len(door.asked) == 4
    door.plan = [(429, b'{"code": "full", "message": "too many", "request_id": "r-1"}')] * 4
    with pytest.raises(errors.FullError, match="too many") as full:
        troubled.run(["true"], environment="place")
    assert full.value.request_id == "r-1"


def test_nobody_there_is_said_with_the_address_and_without_the_token() -> None:
    with (
        Client("http://127.0.0.1:1", "lh_secret_token", tries=2) as api,
        pytest.raises(errors.ApiUnavailableError, match=r"http://127\.0\.0\.1:1") as caught,
    ):
        api.runs.get("x")
    assert "secret_token" not in repr(caught.value) + repr(api) + repr(vars(caught.value))


@SQLITE
def test_the_token_is_in_no_line_of_any_log(
    api: Client, token: str, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.DEBUG):
        run = api.run(["true"], environment="place")
    assert token not in caplog.text
    assert caplog.text
    assert token not in repr(run) + repr(api)


@pytest.mark.parametrize(
    "url", ["http://example.org", "http://10.0.0.1:8321", "http://localhost.example.org"]
)
def test_a_token_does_not_go_over_plain_http_to_another_machine(url: str) -> None:
    with pytest.raises(errors.BadInputError, match="clear text"):
        Client(url, "lh_a_b")
    Client(url, "lh_a_b", allow_plain_http=True).close()
    Client(url.replace("http:", "https:"), "lh_a_b").close()


@pytest.mark.parametrize("url", ["ftp://host", "localhost:8321", "http://", "http://a:b@host"])
def test_what_is_no_address_is_refused(url: str) -> None:
    with pytest.raises(errors.BadInputError, match="LEASEHOLD_API_URL"):
        Client(url, "lh_a_b")


@pytest.mark.parametrize("token", ["", "  ", "a b", "a\nb", "ä"])
def test_what_is_no_token_is_refused_and_not_shown(
    token: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("LEASEHOLD_API_TOKEN", raising=False)
    with pytest.raises(errors.BadInputError, match="LEASEHOLD_API_TOKEN") as caught:
        Client("http://127.0.0.1:1", token)
    assert not token.strip() or token not in str(caught.value)


@SQLITE
def test_address_and_token_come_from_the_environment_and_no_proxy_sees_them(
    service: Service, token: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LEASEHOLD_API_URL", f"{service.url}/")
    monkeypatch.setenv("LEASEHOLD_API_TOKEN", f"{token}\n")
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:1")
    monkeypatch.setenv("ALL_PROXY", "http://127.0.0.1:1")
    with Client() as api:
        assert list(api.runs.list()) == []


@SQLITE
def test_to_wait_has_an_end_of_its_own(api: Client, database: Database) -> None:
    run = api.run(["true"], environment="place")
    with pytest.raises(TimeoutError, match=f"run {run.id} is running"):
        run.wait(timeout=0.1)
    with database.write("test") as tx:
        parked = insert_run(tx, status="parked", code="infra_exhausted")["id"]
    assert api.runs.get(parked).wait(timeout=10).status == "parked"


@SQLITE
def test_output_is_streamed_over_starts_and_broken_connections_once_each(
    troubled: Client, door: Door, database: Database
) -> None:
    with database.write("test") as tx:
        lease = insert_lease(tx, status="released")
        row = insert_run(tx, status="succeeded", lease=lease)
        run = row["id"]
        for number, words in ((1, (b"one\n", b"no\n")), (2, (b"two\n" * 400_000, b""))):
            start = insert_execution(
                tx, row, lease_id=lease["id"], status="exited", number=number, exit_code=0
            )
            for stream, data in zip(("stdout", "stderr"), words, strict=True):
                executions.append(tx, start["id"], stream=stream, offset=0, data=data)
    shown = troubled.runs.get(run)
    door.plan = [DROP, 503, Cut(40), Cut(30_000), 503, DROP, Cut(200_000)]
    read: dict[tuple[int, str], bytes] = {}
    for chunk in shown.stream():
        place = (chunk.start, chunk.stream)
        read[place] = read.get(place, b"") + chunk.data
    long = b"two\n" * 400_000
    assert read == {(1, "stdout"): b"one\n", (1, "stderr"): b"no\n", (2, "stdout"): long}
    assert troubled.runs.get(run).output() == b"two\n" * 400_000
    assert troubled.runs.get(run).output("stderr", start=1) == b"no\n"


@SQLITE
def test_without_a_free_stream_pages_are_read_from_the_same_place_on(
    troubled: Client, door: Door, database: Database
) -> None:
    with database.write("test") as tx:
        lease = insert_lease(tx, status="released")["id"]
        row = insert_run(tx, status="succeeded")
        start = insert_execution(tx, row, lease_id=lease, status="exited", exit_code=0)
        executions.append(tx, start["id"], stream="stdout", offset=0, data=b"\xff " * 90_000)
    full = (429, b'{"code": "full", "message": "500 streams are open", "request_id": "r"}')
    run = troubled.runs.get(row["id"])
    door.plan = [Cut(300_000), full, LOSE, LOSE]
    chunks = list(run.stream(streams=["stdout"]))
    assert b"".join(chunk.data for chunk in chunks) == b"\xff " * 90_000
    assert [path.partition("?")[0].rpartition("/")[2] for _, path, _ in door.asked[1:]][:2] == [
        "stream",
        "stream",
    ]
    assert any(f"offset={chunks[-1].offset}" in path for _, path, _ in door.asked)
    assert chunks[-1].offset > 0


@SQLITE
def test_a_stream_of_a_parked_run_ends_with_the_next_sign_of_life(
    quick: Service, token: str, database: Database
) -> None:
    with database.write("test") as tx:
        parked = insert_run(tx, status="parked", code="infra_exhausted")["id"]
    with Client(quick.url, token) as api:
        assert list(api.runs.get(parked).stream()) == []


def test_the_keyword_arguments_are_the_fields_of_a_run() -> None:
    beside = {"cwd", "stdin", "after"}
    not_for_programs = {"copy_in", "copy_out"}
    fields = set(RunFields.__annotations__)
    assert fields - beside == set(RunSpec.model_fields) - not_for_programs


def test_each_error_of_ours_can_be_made_from_its_code() -> None:
    from leasehold.client import answers

    for code, kind in answers._by_code().items():
        made = answers._make(kind, "words", {"field": "f"}, wait_s=2.0)
        assert (made.code, str(made)) == (code, "words")


def test_a_wire_waits_longer_each_time_and_as_long_as_it_is_told() -> None:
    from leasehold.client.wire import LONGEST_S, pause_s

    assert all(pause_s(n, asked_s=None) <= pause_s(n + 2, asked_s=None) for n in range(4))
    assert pause_s(50, asked_s=None) <= LONGEST_S
    assert pause_s(0, asked_s=2.0) == 2.0
    assert pause_s(0, asked_s=3600.0) == LONGEST_S
