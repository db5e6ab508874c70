"""Several commands, labels and `exec`, with a real stack and real commands below."""

import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from command_line import Live, until

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def live(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Live]:
    """A stack whose host carries a label; afterwards every promise held."""
    path = tmp_path_factory.mktemp("visits")
    live = Live(path / "home", LEASEHOLD_HOST_LABELS='{"zone": "a"}')
    with live:
        yield live
        verified = live.call("verify", "--json")
        assert verified.code == 0, verified.out
        assert live.call("leases", "list", "--live", "--json").json() == []


def retained(live: Live, name: str) -> dict[str, Any]:
    """Let a run fail in an environment that keeps its sandbox; return the lease."""
    live.call("env", "create", name, "--provider", "local", "--policy", "retain_on_failure")
    said = live.call(
        *("run", "--env", name, "--json", "--", "sh", "-c", "echo evidence >note; exit 9")
    )
    assert said.code == 9, said.err
    lease: dict[str, Any] = live.call(
        "leases", "show", said.json()["lease_id"], "--json"
    ).json()
    assert lease["status"] == "retained"
    return lease


def test_a_person_looks_into_a_retained_sandbox_and_it_stays(live: Live) -> None:
    lease = retained(live, "kept")
    short = lease["id"][-10:]
    assert live.call("exec", short, "--", "cat", "note").out == "evidence\n"
    said = live.call("exec", short, "-e", "WHO=me", "--", "sh", "-c", "echo $WHO >&2; exit 5")
    assert (said.code, said.out, said.err) == (5, "", "me\n")
    assert live.call("exec", short, "-i", "--", "wc", "-c", stdin=b"abc").out.strip() == "3"
    after = live.call("leases", "show", lease["id"], "--json").json()
    assert (after["status"], after["expires_at"]) == ("retained", lease["expires_at"])
    assert Path(lease["sandbox_id"]).exists()
    assert live.call("leases", "destroy", lease["id"], "--json").json()["status"] == "released"
    gone = live.call("exec", lease["id"], "--", "true")
    assert gone.code == 4
    assert "its sandbox is gone" in gone.err


def test_a_visit_is_interrupted_and_the_sandbox_stays(live: Live) -> None:
    lease = retained(live, "stays")
    process = live.start("exec", lease["id"], "--", "sh", "-c", "echo in; sleep 60")
    assert process.stdout is not None
    assert process.stdout.readline() == "in\n"
    beside = live.call("exec", lease["id"], "--", "true")
    assert beside.code == 4
    assert "is at work in lease" in beside.err
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 255, err
    after = live.call("leases", "show", lease["id"], "--json").json()
    assert (after["status"], after["expires_at"]) == ("retained", lease["expires_at"])
    live.call("leases", "destroy", lease["id"])


def test_each_of_several_commands_has_its_output_and_its_end(live: Live) -> None:
    said = live.call(
        *("run", "--json", "--cmd", "sh -c 'echo one >note; echo first'"),
        *("--cmd", "cat note", "--cmd", "sh -c 'echo third >&2; exit 3'", "--cmd", "true"),
    )
    assert said.code == 3
    run = said.json()
    assert run["stdout"] == "first\none\n"
    ends = [(x["command"], x["attempt"], x["exit_code"]) for x in run["executions"]]
    assert ends == [(0, 1, 0), (1, 1, 0), (2, 1, 3)]
    assert live.call("runs", "logs", "--command", "1", run["id"]).out == "one\n"
    third = live.call("runs", "logs", "--command", "2", run["id"])
    assert (third.out, third.err) == ("", "third\n")
    assert live.call("runs", "logs", "--command", "3", run["id"]).out == ""
    pieces = live.call("runs", "logs", "--json", run["id"]).json()
    assert [piece["command"] for piece in pieces] == [0, 1, 2]
    shown = live.call("runs", "show", run["id"]).out
    assert "command 1, attempt 1: exited, exit code 0, from " in shown
    assert "command 2, attempt 1: exited, exit code 3, from " in shown


def test_a_stack_says_its_labels_and_a_second_one_cannot(tmp_path: Path) -> None:
    home = Live(tmp_path / "home")
    up = home.start("up", "--json", "--label", "gpu=1", "--label", "zone=b")
    assert up.stdout is not None
    assert up.stdout.readline()

    def labels() -> Any:
        return [row["labels"] for row in home.call("hosts", "list", "--json").json()]

    until("the host is there", lambda: labels() == [{"gpu": "1", "zone": "b"}])
    second = home.start("up", "--json", "--label", "gpu=2")
    assert second.stdout is not None
    assert second.stdout.readline()
    for process, word in ((second, "--label: has no effect on a stack that runs"), (up, "")):
        process.send_signal(signal.SIGTERM)
        _, err = process.communicate(timeout=60)
        assert process.returncode == 0
        assert word in err
    assert labels() == [{"gpu": "1", "zone": "b"}]


def test_a_worker_joins_with_a_label_and_takes_what_requires_it(
    live: Live, tmp_path: Path
) -> None:
    (host,) = live.call("hosts", "list", "--json").json()
    assert host["labels"] == {"zone": "a"}
    run = live.call("run", "-d", "--json", "--require", "gpu=1", "--", "echo", "there").json()
    assert run["status"] == "queued"
    live_there = Live(live.home, LEASEHOLD_HOST_ROOT=str(tmp_path / "other"))
    worker = live_there.start("worker", "--label", "gpu=1")
    assert live.call("runs", "wait", run["id"]).code == 0
    shown = live.call("runs", "show", run["id"], "--json").json()
    labels = {h["id"]: h["labels"] for h in live.call("hosts", "list", "--json").json()}
    assert labels[shown["host_id"]] == {"gpu": "1"}
    worker.send_signal(signal.SIGTERM)
    worker.communicate(timeout=60)
    assert worker.returncode == 0
    until(
        "its sandbox is gone",
        lambda: live.call("leases", "list", "--live", "--json").json() == [],
    )
