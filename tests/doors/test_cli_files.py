"""Files in and out through the command line, with a real stack and real commands."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from command_line import Live, until
from workspaces import trees

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def live(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Live]:
    """A home in which a stack runs; afterwards every promise held."""
    with Live(tmp_path_factory.mktemp("live") / "home") as live:
        yield live
        assert live.call("verify", "--json").code == 0


def newest(live: Live) -> str:
    return str(live.call("runs", "list", "--json").json()[0]["id"])


def test_a_workspace_goes_in_and_what_changed_comes_home(live: Live, tmp_path: Path) -> None:
    files = {"a": "1\n", "gone": "1\n", ".gitignore": "*.o\n", "x.o": "mine\n", "out": "->/etc"}
    root = trees.write(tmp_path / "w", files)
    script = "cat a ready; ls *.o; echo 2 >a; rm gone; mkdir d; echo 3 >d/new; echo 4 >y.o"
    done = live.call(
        *("run", "--workspace", str(root), "--setup", "echo preparing; echo yes >ready"),
        *("--artifacts", "d/*", "--sync-back", "--", "sh", "-c", script),
    )
    assert done.out == "1\nyes\n"
    assert "left out 'out'" in done.err
    assert "preparing" in done.err
    assert "3 files changed and 1 deleted" in done.err
    assert trees.read(root) == {
        "a": "2\n",
        "ready": "yes\n",
        "d/new": "3\n",
        ".gitignore": "*.o\n",
        "x.o": "mine\n",
        "out": "->/etc",
    }
    run_id = newest(live)
    listed = live.call("runs", "artifacts", run_id, "--json").json()
    assert [item["path"] for item in listed if item["kind"] == "artifact"] == ["d/new"]
    assert live.call("runs", "artifacts", run_id, "--get", "d/new").out == "3\n"
    live.call("runs", "artifacts", run_id, "--all", "-o", str(tmp_path / "kept"))
    assert trees.read(tmp_path / "kept") == {"d/new": "3\n"}
    assert live.call("runs", "artifacts", run_id, "--get", "no").code == 3


def test_a_change_of_ones_own_stays_when_a_detached_run_comes_home(
    live: Live, tmp_path: Path
) -> None:
    root = trees.write(tmp_path / "w", {"a": "1\n"})
    submitted = live.call(
        *("run", "--detach", "--workspace", str(root), "--sync-back"),
        *("--", "sh", "-c", "echo theirs >a"),
    )
    run_id = submitted.out.strip()
    (root / "a").write_text("mine\n")
    assert live.call("runs", "wait", run_id).code == 0
    assert live.call("runs", "artifacts", run_id, "--sync-back", str(root)).code == 4
    assert trees.read(root) == {"a": "mine\n", "a.leasehold-theirs": "theirs\n"}


def test_the_next_run_of_a_workspace_waits_and_explain_says_for_whom(
    live: Live, tmp_path: Path
) -> None:
    root, go = trees.write(tmp_path / "w", {"a": "1\n"}), tmp_path / "go"
    os.mkfifo(go)
    words = ("run", "--detach", "--workspace", str(root), "--")
    first = live.call(*words, "cat", str(go)).out.strip()
    second = live.call(*words, "true").out.strip()
    why = live.call("explain", second).out
    assert f"workspace {root} is in use by run {first}" in why
    until("the first has begun", lambda: live.call("runs", "show", first, "--json").json()
          ["started_at"])  # fmt: skip
    go.write_text("go")
    assert live.call("runs", "wait", second).code == 0


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--workspace", "/no/such"), "--workspace: there is no directory /no/such"),
        (("--sync-back",), "--sync-back: needs --workspace"),
        (("--artifacts", "../x"), "--artifacts"),
        (("--workspace", "https://u:p@host/r"), "carries credentials"),
        (("--workspace", "https://host/r", "--workspace-name", "https://t@h/"), "credentials"),
        (("--workspace-secret", "x"), "go with --workspace URL"),
        (("--workspace", "/", "--workspace-secret", "x"), "go with a git URL"),
        (
            ("--workspace", "ssh://h/r", "--workspace-known-hosts", "/no/such"),
            "--workspace-known-hosts: /no/such cannot be read",
        ),
        (("--workspace", "ftp://host/r"), "a git URL begins with"),
    ],
)
def test_what_cannot_be_is_refused_at_once(
    live: Live, arguments: tuple[str, ...], words: str
) -> None:
    said = live.call("run", *arguments, "--", "true")
    assert said.code == 2
    assert words in said.err
