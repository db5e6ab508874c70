"""The command line with a real stack below it: real processes, real commands."""

import json
import os
import pty
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from command_line import Live, until

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def live(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Live]:
    """A home in which a stack runs; afterwards nothing is left and every promise held."""
    with Live(tmp_path_factory.mktemp("live") / "home") as live:
        yield live
        verified = live.call("verify", "--json")
        assert verified.code == 0, verified.out
        left = live.call("leases", "list", "--live", "--json").json()
        assert left == []


def started(live: Live, run_id: str) -> dict[str, Any]:
    """Wait until a run's command has said something; return the run."""

    def look() -> Any:
        shown = live.call("runs", "show", run_id, "--json").json()
        ready = any(item["stdout_bytes"] for item in shown["executions"])
        return shown if ready else None

    found: dict[str, Any] = until(f"run {run_id} runs", look)
    return found


def test_a_run_is_as_if_the_command_ran_here(live: Live) -> None:
    done = live.call_bytes("run", "--", "sh", "-c", "printf 'a\\377'; echo no >&2; exit 7")
    assert done.returncode == 7
    assert done.stdout == b"a\xff"
    assert done.stderr == b"no\n"


def test_json_of_a_run_has_its_output_and_its_end(live: Live) -> None:
    said = live.call("run", "--json", "-e", "WHO=me", "--", "sh", "-c", "echo $WHO; exit 3")
    shape = said.json()
    assert said.code == 3
    assert (shape["status"], shape["exit_code"], shape["stdout"]) == ("failed", 3, "me\n")
    assert said.err == ""


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (("--", "no-such-command"), 127, "does not exist"),
        (("--", "sh", "-c", "kill -9 $$"), 137, "signal 9"),
        (("--timeout", "0.5s", "--grace", "0", "--", "sleep", "60"), 255, "timed_out"),
        (("--cwd", "../..", "--", "pwd"), 255, "outside of the sandbox"),
    ],
)
def test_every_end_has_its_exit_code_and_its_words(
    live: Live, arguments: tuple[str, ...], code: int, words: str
) -> None:
    said = live.call("run", *arguments)
    assert said.code == code
    assert words in said.err
    assert said.out == ""


def test_two_megabytes_of_stdin_arrive_and_output_above_the_cap_is_said(live: Live) -> None:
    said = live.call("run", "-i", "--", "wc", "-c", stdin=b"\0" * 2_000_000)
    assert (said.code, said.out.strip()) == (0, "2000000")
    capped = live.call("run", "--output-cap", "10", "--", "echo", "a" * 100)
    assert capped.out == "a" * 10
    assert "91 bytes of stdout above the run's cap were not kept" in capped.err


def test_output_comes_while_the_command_runs(live: Live) -> None:
    process = live.start("run", "--", "sh", "-c", "echo first; read x < /dev/null; sleep 60")
    assert process.stdout is not None
    assert process.stdout.readline() == "first\n"
    assert process.poll() is None
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 255
    assert "cancelling" in err


def test_left_on_ctrl_c_a_run_goes_on_and_can_be_followed_again(live: Live) -> None:
    script = (
        "echo one; while ! test -e /proc/$PPID/nowhere && ! test -e $STOP; do sleep .1; done"
    )
    stop = live.home.parent / "stop"
    process = live.start(
        "run", "--on-interrupt", "detach", "-e", f"STOP={stop}", "--", "sh", "-c", script
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "one\n"
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 130
    run_id = live.call("runs", "list", "--status", "running", "--json").json()[0]["id"]
    assert run_id in err
    explained = live.call("explain", run_id, "--json").json()
    assert explained["status"] == "running"
    stop.write_text("")
    assert live.call("runs", "logs", "-f", run_id).out == "one\n"
    assert live.call("runs", "wait", run_id).code == 0


def test_a_closed_pipe_ends_the_run_as_it_would_end_the_command(live: Live) -> None:
    process = live.start("run", "--", "sh", "-c", "while :; do echo line; sleep .01; done")
    assert process.stdout is not None
    assert process.stdout.readline() == "line\n"
    process.stdout.close()
    assert process.wait(60) == 141
    assert process.stderr is not None
    process.stderr.close()
    newest = live.call("runs", "list", "--limit", "1", "--json").json()[0]
    assert newest["status"] == "cancelled"


def test_on_a_terminal_ctrl_c_asks_and_the_state_is_one_line(live: Live) -> None:
    ours, theirs = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "-m", "leasehold", "run", "--", "sh", "-c", "echo go; sleep 60"],
        env=live.environ(),
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        start_new_session=True,
    )
    os.close(theirs)
    seen = b""

    def read_until(word: bytes) -> None:
        nonlocal seen
        while word not in seen:
            seen += os.read(ours, 4096)

    read_until(b"go\r\n")
    process.send_signal(signal.SIGINT)
    read_until(b"[c]ancel the run, [l]eave it running")
    os.write(ours, b"c\n")
    read_until(b"cancelled")
    assert process.wait(60) == 255
    os.close(ours)
    assert b"\x1b[K" in seen


def test_detached_runs_are_listed_waited_for_cancelled_and_retried(live: Live) -> None:
    said = live.call("run", "--detach", "--json", "--label", "x=y", "--", "sh", "-c", "exit 4")
    run = said.json()["id"]
    assert live.call("runs", "wait", run).code == 4
    listed = live.call("runs", "list", "--label", "x=y", "--json").json()
    assert [row["id"] for row in listed] == [run]
    again = live.call("runs", "retry", run).out.strip()
    assert live.call("runs", "wait", again, "--json").json()["retry_of"] == run
    slow = live.call("run", "-d", "--", "sh", "-c", "echo there; sleep 60").out.strip()
    started(live, slow)
    assert live.call("runs", "cancel", slow).code == 0
    waited = live.call("runs", "wait", slow)
    assert waited.code == 255
    assert "cancelled" in waited.err


def test_logs_as_json_are_text_or_base64(live: Live) -> None:
    run = live.call("run", "--json", "--", "sh", "-c", "printf '\\377'; echo ok >&2").json()
    pieces = live.call("runs", "logs", "--json", run["id"]).json()
    assert [(p["stream"], p["offset"]) for p in pieces] == [("stdout", 0), ("stderr", 0)]
    assert pieces[0]["base64"] == "/w=="
    assert pieces[1]["text"] == "ok\n"
    empty = live.call("run", "--json", "--", "true").json()
    assert live.call("runs", "logs", "--json", empty["id"]).out == "[]\n"


def test_a_lease_of_ones_own_serves_several_runs_until_it_is_released(live: Live) -> None:
    live.call("run", "--", "true")
    lease = live.call("leases", "create", "--env", "local", "--json").json()
    assert lease["status"] == "idle"
    short = lease["id"][-10:]
    assert live.call("run", "--lease", short, "--", "sh", "-c", "echo kept > note").code == 0
    assert live.call("run", "--lease", short, "--", "cat", "note").out == "kept\n"
    assert Path(lease["sandbox_id"]).exists()
    released = live.call("leases", "release", lease["id"], "--json").json()
    assert released["status"] == "released"
    assert not Path(lease["sandbox_id"]).exists()
    refused = live.call("run", "--lease", lease["id"], "--", "true")
    assert refused.code == 4


def test_a_probe_makes_a_sandbox_and_leaves_none(live: Live) -> None:
    live.call("run", "--", "true")
    said = live.call("env", "probe", "local", "--json")
    assert said.code == 0, said.out
    assert said.json()["ok"] is True
    live.call("env", "create", "shut", "--provider", "local")
    live.call("env", "archive", "shut")
    refused = live.call("env", "probe", "shut", "--json")
    assert refused.code == 1
    assert refused.json()["summary"] == "environment shut is archived"
    until(
        "the probe's sandbox is gone",
        lambda: live.call("leases", "list", "--live", "--json").json() == [],
    )


def test_a_second_up_joins_the_first(live: Live) -> None:
    second = live.start("up", "--json")
    assert second.stdout is not None
    where = json.loads(second.stdout.readline())
    assert live.stack is not None
    assert (where["joined"], where["pid"]) == (True, live.stack.pid)
    second.send_signal(signal.SIGTERM)
    _, err = second.communicate(timeout=60)
    assert second.returncode == 0
    assert "following it" in err
    assert live.call("run", "--", "echo", "still").out == "still\n"


def test_the_doctor_finds_a_running_stack_in_order(live: Live) -> None:
    said = live.call("doctor", "--json")
    assert said.code == 0, said.out
    states = {check["name"]: check["state"] for check in said.json()["checks"]}
    assert {states[name] for name in ("stack", "database", "workers", "broker")} == {"ok"}


def test_a_worker_joins_the_home_and_drains(live: Live) -> None:
    worker = live.start("worker")
    before = len(live.call("workers", "list", "--json").json())

    def joined() -> bool:
        rows = live.call("workers", "list", "--json").json()
        return len([row for row in rows if row["status"] == "ready"]) >= before + 2

    until("two more processes are ready", joined)
    worker.send_signal(signal.SIGTERM)
    worker.communicate(timeout=60)
    assert worker.returncode == 0
    assert live.call("run", "--", "echo", "still").out == "still\n"


def test_a_run_brings_a_stack_of_its_own_and_takes_it_down(tmp_path: Path) -> None:
    home = Live(tmp_path / "home")
    said = home.call("run", "--", "sh", "-c", "echo alone; exit 5")
    assert (said.code, said.out) == (5, "alone\n"), said.err
    assert not (tmp_path / "home" / "stack.json").exists()
    assert home.call("leases", "list", "--live", "--json").json() == []
    assert home.call("workers", "list", "--json").json() == []
    assert home.call("verify").code == 0


def test_a_run_goes_on_when_the_stack_of_another_ends(tmp_path: Path) -> None:
    home = Live(tmp_path / "home")
    first = home.start(
        "run", "--", "sh", "-c", f"echo 1; until test -e {tmp_path}/a; do sleep .1; done"
    )
    assert first.stdout is not None
    assert first.stdout.readline() == "1\n"
    second = home.start(
        "run",
        "--",
        "sh",
        "-c",
        f"echo 2; until test -e {tmp_path}/b; do sleep .1; done; echo 3",
    )
    assert second.stdout is not None
    assert second.stdout.readline() == "2\n"
    (tmp_path / "a").write_text("")
    first.communicate(timeout=60)
    assert first.returncode == 0
    (tmp_path / "b").write_text("")
    out, _ = second.communicate(timeout=60)
    assert (second.returncode, out) == (0, "3\n")
    shown = home.call("runs", "list", "--json").json()
    assert [row["attempt"] for row in shown] == [1, 1]


def test_left_by_its_own_stack_a_command_goes_on_and_the_next_up_takes_it_up(
    tmp_path: Path,
) -> None:
    home = Live(tmp_path / "home")
    script = f"echo 1; until test -e {tmp_path}/go; do sleep .1; done; echo 2"
    first = home.start("run", "--on-interrupt", "detach", "--", "sh", "-c", script)
    assert first.stdout is not None
    assert first.stdout.readline() == "1\n"
    os.killpg(first.pid, signal.SIGINT)  # as a terminal does it
    _, err = first.communicate(timeout=60)
    assert first.returncode == 130
    assert "`leasehold up` here takes it up again" in err
    run = home.call("runs", "list", "--json").json()[0]
    assert run["status"] == "running"
    assert "no live worker reads the queue" in home.call("explain", run["id"]).out
    with home:
        (tmp_path / "go").write_text("")
        assert home.call("runs", "wait", run["id"]).code == 0
        assert home.call("runs", "logs", run["id"]).out == "1\n2\n"
        shown = home.call("runs", "show", run["id"], "--json").json()
        assert len(shown["executions"]) == 1
        assert home.call("leases", "list", "--live", "--json").json() == []
