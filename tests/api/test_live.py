"""The whole way: a run is asked for over HTTP, done by real workers, and read over HTTP."""

import json
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from api.streaming import Message, streaming, whole, written
from command_line import Live, until

pytestmark = pytest.mark.slow
RUNS = "/api/v1/runs"


@pytest.fixture(scope="module")
def live(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Live]:
    """A home in which a stack runs; afterwards nothing is left and every promise held."""
    with Live(tmp_path_factory.mktemp("live") / "home") as live:
        yield live
        verified = live.call("verify", "--json")
        assert verified.code == 0, verified.out
        assert live.call("leases", "list", "--live", "--json").json() == []


@pytest.fixture(scope="module")
def url(live: Live) -> Iterator[str]:
    """Where `leasehold api` serves that home, as a process of its own."""
    process = live.start("api", "--port", "0", "--json")
    assert process.stdout is not None
    yield json.loads(process.stdout.readline())["url"]
    process.send_signal(signal.SIGTERM)
    out, err = process.communicate(timeout=30)
    assert (process.returncode, out) == (0, ""), err
    assert "Traceback" not in err


@pytest.fixture(scope="module")
def client(live: Live, url: str) -> Iterator[httpx.Client]:
    key = live.call("keys", "create", "tests", "--role", "admin").out.strip()
    headers = {"Authorization": f"Bearer {key}"}
    with httpx.Client(base_url=url, headers=headers, timeout=30) as client:
        yield client


def ended(client: httpx.Client, *argv: str, **spec: Any) -> Any:
    """Create a run of one command and wait until it is over and its sandbox is given back."""
    answer = client.post(RUNS, json={"commands": [{"argv": argv}], **spec})
    assert answer.status_code == 201, answer.text
    place = answer.headers["Location"]

    def look() -> Any:
        run = client.get(place).json()
        return run if run["finished_at"] else None

    run = until(f"{argv} is over", look)
    lease = f"/api/v1/leases/{run['lease_id']}"
    until("it is released", lambda: client.get(lease).json()["status"] == "released")
    return run


def test_a_run_is_created_executes_and_its_output_is_read(client: httpx.Client) -> None:
    run = ended(client, "sh", "-c", "printf 'a\\377b'; echo no >&2; exit 3")
    assert (run["status"], run["exit_code"], run["environment"]) == ("failed", 3, "local")
    out = client.get(f"{RUNS}/{run['id']}/output")
    assert out.content == b"a\xffb"
    assert out.headers["Content-Type"] == "application/octet-stream"
    assert out.headers["Leasehold-Complete"] == "true"
    assert out.headers["Leasehold-Next-Offset"] == "3"
    err = client.get(f"{RUNS}/{run['id']}/output", params={"stream": "stderr", "start": 1})
    assert err.content == b"no\n"
    events = client.get(f"{RUNS}/{run['id']}/events").json()["items"]
    names = [event["name"] for event in events]
    assert names[0] == "run.queued"
    assert "execution.exited" in names
    assert names[: len(run["events"])] == [event["name"] for event in run["events"]]


def test_output_is_read_in_pages_and_in_ranges(client: httpx.Client) -> None:
    whole = b"".join(b"%06d\n" % n for n in range(100_000))
    run = ended(client, "seq", "-f", "%06g", "0", "99999")
    place = f"{RUNS}/{run['id']}/output"
    read, offset = b"", 0
    while True:
        page = client.get(place, params={"offset": offset, "limit": 300_001})
        read += page.content
        offset = int(page.headers["Leasehold-Next-Offset"])
        if page.headers["Leasehold-Complete"] == "true":
            break
    assert read == whole
    past = client.get(place, params={"offset": len(whole) + 5})
    assert (past.status_code, past.content) == (200, b"")
    for asked, first, data in (
        ("bytes=0-6", 0, whole[:7]),
        ("bytes=262140-262150", 262_140, whole[262_140:262_151]),
        ("bytes=699990-", 699_990, whole[699_990:]),
        ("bytes=-7", 699_993, whole[-7:]),
        ("bytes=699999-800000", 699_999, whole[699_999:]),
    ):
        part = client.get(place, headers={"Range": asked})
        assert (part.status_code, part.content) == (206, data), asked
        last = first + len(data) - 1
        assert part.headers["Content-Range"] == f"bytes {first}-{last}/{len(whole)}"
    for asked in ("bytes=700000-", "bytes=5-4", "bytes=-0", "bytes=-"):
        none = client.get(place, headers={"Range": asked})
        assert none.status_code == 416, asked
        assert none.headers["Content-Range"] == f"bytes */{len(whole)}"
        assert none.json()["code"] == "range_not_satisfiable"
    for ignored in ("lines=1-2", "bytes=0-1,3-4", "nonsense"):
        assert client.get(place, headers={"Range": ignored}).status_code == 200


def test_output_that_is_not_there_yet_is_empty_and_of_no_such_start_not_found(
    client: httpx.Client,
) -> None:
    body = {"commands": [{"argv": ["sleep", "600"]}]}
    run = client.post(RUNS, json=body).json()["id"]
    page = client.get(f"{RUNS}/{run}/output")
    assert (page.status_code, page.content) == (200, b"")
    assert page.headers["Leasehold-Complete"] == "false"
    missing = client.get(f"{RUNS}/{run}/output", params={"start": 9})
    assert (missing.status_code, missing.json()["code"]) == (404, "not_found")
    for params in ({"stream": "stdin"}, {"start": 0}, {"limit": 0}, {"offset": -1}):
        assert client.get(f"{RUNS}/{run}/output", params=params).status_code == 422
    asked = client.post(f"{RUNS}/{run}/cancel").json()
    assert asked["end_requested"] == "cancel"
    until("cancelled", lambda: client.get(f"{RUNS}/{run}").json()["status"] == "cancelled")


def test_a_key_that_is_revoked_is_refused_by_the_next_request(live: Live, url: str) -> None:
    key = live.call("keys", "create", "short", "--json").json()["key"]
    with httpx.Client(base_url=url, headers={"Authorization": f"Bearer {key}"}) as client:
        assert client.get("/api/v1/version").status_code == 200
        assert live.call("keys", "revoke", "short").code == 0
        assert client.get("/api/v1/version").status_code == 401
    (shown,) = [k for k in live.call("keys", "list", "--json").json() if k["name"] == "short"]
    assert shown["last_used_at"] is not None


def test_an_address_that_is_taken_is_said_in_a_line(live: Live, url: str) -> None:
    port = url.rsplit(":", 1)[-1]
    said = live.call("api", "--port", port)
    assert said.code == 2
    assert f"127.0.0.1:{port} cannot be taken: Address already in use" in said.err
    assert said.err.count("\n") == 1


def test_a_home_without_a_schema_is_refused_with_the_command_that_mends_it(
    tmp_path: Path,
) -> None:
    said = Live(tmp_path / "none").call("api", "--port", "0")
    assert said.code == 6
    assert "leasehold db upgrade" in said.err


def test_a_stream_that_is_cut_goes_on_where_it_was_and_ends_with_the_run(
    client: httpx.Client,
) -> None:
    script = "for n in 1 2 3 4 5; do echo line $n; echo err $n >&2; sleep 0.3; done; exit 4"
    body = {"commands": [{"argv": ["sh", "-c", script]}], "retries": 1}
    run = client.post(RUNS, json=body).json()["id"]
    seen: list[Message] = []
    cuts = 0
    while not seen or seen[-1].name != "end":
        after = seen[-1].id if seen else None
        with streaming(client, f"{run}/output/stream", after=after) as coming:
            # Cut after each of the first messages, in the middle of what the command does.
            seen += [next(coming)] if cuts < 5 else list(coming)
        cuts += 1
    lines = b"".join(b"line %d\n" % n for n in range(1, 6))
    assert written(seen, "stdout") == 2 * lines
    assert written(seen, "stderr") == 2 * lines.replace(b"line", b"err")
    exits = [m.data["exit_code"] for m in seen if m.name == "exit"]
    assert exits == [4, 4]
    assert (seen[-1].data["status"], seen[-1].data["exit_code"]) == ("failed", 4)
    history = whole(client, f"{run}/events/stream")
    assert "run.failed" in [m.data.get("name") for m in history]
