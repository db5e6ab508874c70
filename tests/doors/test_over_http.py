"""What is special about commands over HTTP: signals, keys, and what does not go that way."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from command_line import call, submitted
from leasehold.cli.local_only import WHY
from two_doors import Doors, both

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def doors(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Doors]:
    with both(tmp_path_factory.mktemp("doors")) as doors:
        yield doors


@pytest.mark.parametrize("door", ["sql", "rest"])
def test_ctrl_c_cancels_or_leaves_the_run(doors: Doors, door: str) -> None:
    environ = doors.live.environ() | (doors.http if door == "rest" else {})
    for how, code, status in (("ask", 255, "cancelled"), ("detach", 130, "running")):
        process = subprocess.Popen(
            [
                *(sys.executable, "-m", "leasehold", "run", "--on-interrupt", how),
                *("--", "sh", "-c", "echo first; read x < /dev/null; exec sleep 600"),
            ],
            env=environ,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        assert process.stdout is not None
        assert process.stdout.readline() == "first\n"
        assert process.poll() is None
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=60)
        assert process.returncode == code, err
        newest = doors.sql("runs", "list", "-n", "1", "--json").json()[0]
        assert newest["status"] == status
        assert how == "ask" or newest["id"] in err
        doors.sql("runs", "cancel", newest["id"])


def test_a_closed_pipe_cancels_the_run_over_http(doors: Doors) -> None:
    process = subprocess.Popen(
        [
            *(sys.executable, "-m", "leasehold", "run", "--", "sh", "-c"),
            "while :; do echo line; sleep .01; done",
        ],
        env=doors.live.environ() | doors.http,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    assert process.stderr is not None
    assert process.stdout.readline() == "line\n"
    process.stdout.close()
    assert process.wait(60) == 141
    process.stderr.close()


@pytest.mark.parametrize("path", WHY, ids=" ".join)
def test_what_cannot_go_over_http_says_so_in_a_line(
    doors: Doors, path: tuple[str, ...], tmp_path: Path
) -> None:
    said = doors.rest(*path)
    assert (said.code, said.out) == (2, "")
    assert said.err.startswith(f"leasehold: {' '.join(path)} does not go over HTTP: ")
    assert said.err.count("\n") == 1
    assert "unset LEASEHOLD_API_URL" in said.err


def test_files_come_out_of_the_store(doors: Doors, tmp_path: Path) -> None:
    assert doors.rest("runs", "artifacts", doors.run, "--get", "a.txt").out == "first\n"
    said = doors.rest("runs", "artifacts", doors.run, "--all", "-o", str(tmp_path / "kept"))
    assert said.code == 0, said.err
    assert (tmp_path / "kept" / "a.txt").read_text() == "first\n"
    said = doors.rest("runs", "artifacts", doors.run, "--get", "no.txt")
    assert (said.code, said.err) == (
        3,
        "leasehold: the run left no 'no.txt'; there are: a.txt\n",
    )


def test_a_directory_goes_there_and_what_changed_comes_home(
    doors: Doors, tmp_path: Path
) -> None:
    root = tmp_path / "work"
    (root / "d").mkdir(parents=True)
    (root / "d" / "same").write_text("same\n")
    (root / "d" / "old").write_text("old\n")
    (root / "gone").write_text("gone\n")
    (root / "big").write_bytes(bytes(range(256)) * 4000)
    script = "cat d/same; wc -c <big; echo new > d/old; echo more > d/more; rm gone"
    typed = ("--workspace", str(root), "--sync-back", "--json", "--", "sh", "-c", script)
    said = doors.rest("run", *typed)
    assert said.code == 0, said.err
    assert said.json()["stdout"].split() == ["same", "1024000"]
    assert (root / "d" / "old").read_text() == "new\n"
    assert (root / "d" / "more").read_text() == "more\n"
    assert not (root / "gone").exists()
    # Once more, into a directory in which somebody has worked meanwhile.
    other = tmp_path / "other"
    (other / "d").mkdir(parents=True)
    (other / "d" / "old").write_text("mine\n")
    again = doors.rest("runs", "artifacts", said.json()["id"], "--sync-back", str(other))
    assert again.code == 4, again.err
    assert (other / "d" / "old").read_text() == "mine\n"


def test_files_are_copied_into_a_sandbox_and_out_of_it(doors: Doors, tmp_path: Path) -> None:
    tree = tmp_path / "tree"
    (tree / "deep").mkdir(parents=True)
    (tree / "deep" / "one").write_text("1\n")
    (tree / "run").write_text("#!/bin/sh\n")
    (tree / "run").chmod(0o755)
    said = doors.rest("cp", "--json", str(tree), f"{doors.lease[-12:]}:by-rest")
    assert said.code == 0, said.err
    assert said.json()["files"] == 2
    assert doors.rest("exec", doors.lease, "--", "by-rest/run").code == 0
    back = tmp_path / "back"
    assert doors.rest("cp", f"{doors.lease}:by-rest/.", str(back)).code == 0
    assert (back / "deep" / "one").read_text() == "1\n"
    assert os.access(back / "run", os.X_OK)
    assert doors.rest("cp", "-", f"{doors.lease}:stream", stdin=b"streamed\n").code == 0
    assert doors.rest("cp", f"{doors.lease}:stream", "-").out == "streamed\n"
    for typed, code in (
        ((f"{doors.lease}:nothing", str(tmp_path / "x")), 3),
        ((str(tree), "nothing:x"), 3),
        ((str(tmp_path / "nothing"), f"{doors.lease}:x"), 2),
        ((f"{doors.lease}:by-rest", str(tree / "run")), 4),
    ):
        sql, rest = doors.sql("cp", *typed), doors.rest("cp", *typed)
        assert (rest.code, rest.err) == (sql.code, sql.err)
        assert rest.code == code, rest.err


def test_keys_that_are_refused_have_a_code_of_their_own(doors: Doors) -> None:
    nobody = doors.http | {"LEASEHOLD_API_TOKEN": f"lh_{'0' * 16}_{'A' * 43}"}
    said = call("runs", "list", env=nobody)
    assert (said.code, said.out, said.err) == (7, "", "leasehold: the API key is not valid\n")
    viewer = doors.sql("keys", "create", "looker", "--role", "viewer").out.strip()
    looks = doors.http | {"LEASEHOLD_API_TOKEN": viewer}
    assert call("runs", "list", env=looks).code == 0
    said = call("run", "--", "true", env=looks)
    assert (said.code, said.err) == (
        7,
        "leasehold: this key has the role viewer; this needs at least operator\n",
    )
    assert call("hosts", "list", env=looks).code == 0
    assert viewer not in said.err
    other = call("runs", "list", "--tenant", "other", env=looks)
    assert other.code == 7
    assert "of tenant default, not of other" in other.err


def test_an_api_that_is_away_is_named_and_tried_for_a_while(doors: Doors) -> None:
    away = doors.http | {"LEASEHOLD_API_URL": "http://127.0.0.1:1"}
    said = call("--patience", "0.4s", "runs", "list", env=away)
    assert said.code == 5
    first, last = said.err.splitlines()
    assert first.startswith("leasehold: http://127.0.0.1:1 does not answer: ")
    assert first.endswith("; trying for 0 s")
    assert last.startswith("leasehold: http://127.0.0.1:1 does not answer: ")
    token = doors.http["LEASEHOLD_API_TOKEN"]
    assert token not in said.err


def test_a_key_in_clear_text_to_elsewhere_is_warned_of(doors: Doors) -> None:
    elsewhere = doors.http | {"LEASEHOLD_API_URL": "http://192.0.2.1:1"}
    said = call("--patience", "0", "runs", "list", env=elsewhere)
    assert said.err.startswith("leasehold: http://192.0.2.1:1: the API key goes there in clear")


def test_without_a_key_the_address_means_nothing_to_commands(doors: Doors) -> None:
    half = {"LEASEHOLD_HOME": str(doors.live.home), "LEASEHOLD_API_URL": "http://127.0.0.1:1"}
    assert call("runs", "list", env=half).code == 0


def test_the_own_tenant_may_be_named(doors: Doors) -> None:
    assert doors.rest("runs", "list", "--tenant", "default").code == 0


def test_a_submit_over_http_needs_no_database(doors: Doors, tmp_path: Path) -> None:
    with pytest.MonkeyPatch.context() as patch:
        for name, value in doors.http.items():
            patch.setenv(name, value)
        assert submitted("--", "true")["status"] in {"queued", "running"}
