"""`leasehold cp` with a real stack and real sandboxes: in, out, and what is refused."""

import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from command_line import Live, until
from leasehold.provider.fake_world import World
from workspaces import trees

pytestmark = pytest.mark.slow
PROVIDERS = ("local", "fake_plugin")


@pytest.fixture(scope="module")
def live(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Live]:
    """A stack whose store takes little; afterwards every promise held."""
    path = tmp_path_factory.mktemp("copies")
    settings = {
        "LEASEHOLD_MAX_WORKSPACE_BYTES": "100000",
        "LEASEHOLD_MAX_ARTIFACT_BYTES": "50000",
        "LEASEHOLD_ALLOW_FAKE": "true",
        "LEASEHOLD_TIMERS": '{"retry_base": 0.05, "retry_max": 0.1}',
    }
    with Live(path / "home", **settings) as live:
        yield live
        assert live.call("verify", "--json").code == 0
        assert live.call("leases", "list", "--live", "--json").json() == []


@pytest.fixture(scope="module", params=PROVIDERS)
def kept(live: Live, request: pytest.FixtureRequest) -> Iterator[str]:
    """The lease of a run that failed in an environment which keeps its sandbox."""
    name = f"keeps-{request.param}"
    live.call(
        *("env", "create", name, "--provider", request.param, "--policy", "retain_on_failure")
    )
    script = "mkdir -p logs/deep; echo evidence >logs/deep/note; echo 1 >one; exit 9"
    said = live.call("run", "--env", name, "--json", "--", "sh", "-c", script)
    assert said.code == 9, said.err
    lease: dict[str, Any] = shown(live, said.json()["lease_id"])
    yield lease["id"]
    after = shown(live, lease["id"])
    assert (after["status"], after["expires_at"]) == ("retained", lease["expires_at"])
    assert live.call("leases", "destroy", lease["id"]).code == 0


def shown(live: Live, lease_id: str) -> dict[str, Any]:
    lease: dict[str, Any] = live.call("leases", "show", lease_id, "--json").json()
    return lease


def inside(live: Live, lease: str, script: str) -> str:
    said = live.call("exec", lease, "--", "sh", "-c", script)
    assert said.code == 0, said.err
    return said.out


def test_files_go_in_and_come_out_again(live: Live, kept: str, tmp_path: Path) -> None:
    files = {"a": "1\n", "b/c": "2\n", "b/l": "->c", ".gitignore": "*\n", ".git/HEAD": "ref\n"}
    tree = trees.write(tmp_path / "tree", files)
    (tree / "tool").write_text("#!/bin/sh\necho works\n")
    (tree / "tool").chmod(0o755)
    short = kept[-10:]
    said = live.call("cp", "--json", str(tree), f"{short}:fresh")
    assert said.code == 0, said.err
    assert {k: said.json()[k] for k in ("lease_id", "files", "bytes", "left_out")} == {
        "lease_id": kept,
        "files": 6,
        "bytes": 31,
        "left_out": [],
    }
    assert inside(live, kept, "fresh/tool; cat fresh/a fresh/b/l") == "works\n1\n2\n"
    assert live.call("cp", str(tree), f"{short}:fresh").code == 0
    assert inside(live, kept, "fresh/tree/tool") == "works\n"
    assert live.call("cp", f"{tree}/.", f"{short}:fresh").code == 0
    several = live.call("cp", str(tree / "a"), str(tree / "b"), f"{short}:logs/")
    assert several.code == 0, several.err
    assert inside(live, kept, "ls logs") == "a\nb\ndeep\n"
    out = live.call("cp", "--json", f"{short}:fresh/.", str(tmp_path / "back"))
    assert out.code == 0, out.err
    assert out.json()["files"] == 12
    back = trees.read(tmp_path / "back")
    assert {k: v for k, v in back.items() if not k.startswith("tree/")} == trees.read(tree)
    assert os.access(tmp_path / "back/tool", os.X_OK)
    (tmp_path / "into").mkdir()
    assert live.call("cp", f"{short}:logs/deep", str(tmp_path / "into")).code == 0
    assert trees.read(tmp_path / "into") == {"deep/note": "evidence\n"}


def test_one_file_in_and_out_by_streams_and_by_names(
    live: Live, kept: str, tmp_path: Path
) -> None:
    assert live.call("cp", "-", f"{kept}:by-stream", stdin=b"\0bytes\xff").code == 0
    out = live.call_bytes("cp", f"{kept}:by-stream", "-")
    assert (out.returncode, out.stdout) == (0, b"\0bytes\xff")
    odd = tmp_path / "a:b\nc"
    odd.write_text("odd")
    assert live.call("cp", str(odd), f"{kept}:logs").code == 0
    assert live.call("cp", f"{kept}:logs/a:b\nc", str(tmp_path / "there")).code == 0
    assert (tmp_path / "there").read_text() == "odd"
    (tmp_path / "link").symlink_to("there")
    assert live.call("cp", f"{kept}:one", str(tmp_path / "link")).code == 0
    assert ((tmp_path / "link").is_symlink(), (tmp_path / "there").read_text()) == (True, "1\n")
    assert live.call("cp", f"{kept}:one", str(tmp_path)).code == 0
    assert (tmp_path / "one").read_text() == "1\n"


def test_what_is_hostile_in_a_sandbox_harms_nothing_here(
    live: Live, kept: str, tmp_path: Path
) -> None:
    script = (
        "mkdir bad; cd bad; ln -s /etc out; ln -s ../one up; ln -s ok in; echo x >ok;"
        " mkfifo pipe; printf y >'new\nline'; mkdir sub; echo z >sub/f"
    )
    inside(live, kept, script)
    mine = trees.write(tmp_path / "mine", {"kept": "mine"})
    dest = tmp_path / "dest"
    (dest / "bad").mkdir(parents=True)
    # Somebody was there before: what is copied goes through no link of theirs.
    (dest / "bad/sub").symlink_to(mine)
    said = live.call("cp", "--json", f"{kept}:bad", str(dest))
    assert said.code == 1
    reasons = {item["path"]: item["reason"] for item in said.json()["left_out"]}
    assert {"out", "up", "sub/f"} <= set(reasons)
    assert set(reasons) <= {"out", "up", "sub/f", "pipe"}  # a pipe is not even listed by some
    assert reasons["out"] == "a link that leads outside"
    assert "left out 'out': a link that leads outside" in said.err
    assert trees.read(mine) == {"kept": "mine"}
    found = trees.read(dest / "bad")
    assert found == {"ok": "x\n", "in": "->ok", "new\nline": "y", "sub": f"->{mine}"}
    for path in ("bad/out/passwd", "bad/pipe", "bad/up/x"):
        assert live.call("cp", f"{kept}:{path}", str(tmp_path / "no")).code == 3
    assert not (tmp_path / "no").exists()


@pytest.mark.parametrize(
    ("source", "dest", "code", "words"),
    [
        ("L:no/such", "here", 3, "'no/such': no such file or directory"),
        ("L:one/", "here", 3, "no such file or directory"),
        ("L:/etc/passwd", "here", 3, "no such file or directory"),
        ("L:../x", "here", 2, "has no `..`"),
        ("L:one", "no/here", 2, "there is no directory"),
        ("L:one", "no/", 2, "there is no directory"),
        ("L:one", "has-one", 4, "is a directory, 'one' is a file"),
        ("L:logs", "file", 4, "is a directory, and 'file' is a file"),
        ("L:logs", "-", 4, "stdout takes a file"),
        ("L:one", "pipe", 2, "neither file nor directory"),
        ("L:one", "", 2, "has no name"),
        ("L:big", "here", 1, "left out 'big': more than 50000 bytes"),
        ("no-such", "L:x", 2, "'no-such': No such file or directory"),
        ("pipe", "L:x", 2, "neither file nor directory"),
        ("file/", "L:x", 2, "'file/'"),
        ("file/.", "L:x", 2, "'file/.'"),
        ("", "L:x", 2, "has no name"),
        ("large", "L:x", 2, "large: more than 100000 bytes"),
        ("larger", "L:x", 2, "more than 100000 bytes, at 'f'"),
        ("file", "L:no/such", 3, "there is no directory 'no' in the sandbox"),
        ("file", "L:no/", 3, "there is no directory 'no' in the sandbox"),
        ("file", "L:../x", 2, "has no `..`"),
        ("file", "L:/etc/x", 3, "there is no directory '/etc' in the sandbox"),
        ("-", "L:logs", 4, "'logs' is a directory: name a file in it"),
        ("has-one", "L:one", 4, "'one' is a file there"),
        ("deep", "L:.", 4, "it cannot be put there"),
        ("file", "here", 2, "both sides are local"),
        ("L:one", "L:two", 2, "are both in sandboxes"),
        ("nobody:one", "here", 3, "there is no lease nobody"),
    ],
)
def test_what_cannot_be_is_refused_in_plain_words(
    live: Live,
    kept: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    source: str,
    dest: str,
    code: int,
    words: str,
) -> None:
    trees.write(tmp_path, {"file": "new", "has-one/one/x": "1", "larger/f": "x" * 100_001})
    trees.write(tmp_path, {"large": "x" * 100_001})
    # A file where the sandbox has a directory.
    trees.write(tmp_path, {"deep/deep": "a file"})
    os.mkfifo(tmp_path / "pipe")
    if source == "L:big":
        inside(live, kept, "head -c 50001 /dev/zero >big")
    if source == "deep":
        (tmp_path / "deep").rename(tmp_path / "logs")
        source = "logs"
    monkeypatch.chdir(tmp_path)
    before = trees.read(tmp_path / "has-one")
    paths = [text.replace("L:", f"{kept}:", 1) for text in (source, dest)]
    said = live.call("cp", *paths, stdin=b"x")
    assert (said.code, words in said.err) == (code, True), said.err
    assert said.err.startswith("leasehold: ")
    assert said.out == ""
    assert not (tmp_path / "here").exists()
    assert trees.read(tmp_path / "has-one") == before
    assert inside(live, kept, "cat one logs/deep/note") == "1\nevidence\n"


def test_a_lease_that_is_busy_or_gone_is_refused(live: Live, tmp_path: Path) -> None:
    run = live.call("run", "-d", "--json", "--", "sleep", "600").json()

    def started() -> Any:
        row = live.call("runs", "show", run["id"], "--json").json()
        return row if row["started_at"] else None

    row = until("it has begun", started)
    busy = live.call("cp", "-", f"{row['lease_id']}:x", stdin=b"x")
    assert (busy.code, "is at work in lease" in busy.err) == (4, True)
    live.call("runs", "cancel", run["id"])
    live.call("runs", "wait", run["id"])
    gone = live.call("cp", f"{row['lease_id']}:x", str(tmp_path / "x"))
    assert (gone.code, "is gone" in gone.err or "destroyed" in gone.err) == (4, True)


def test_a_copy_that_is_interrupted_or_fails_too_often_leaves_the_sandbox(live: Live) -> None:
    live.call("env", "create", "fake", "--provider", "fake", "--policy", "retain_on_failure")
    lease = live.call("run", "--env", "fake", "--json", "--", "false").json()["lease_id"]
    world = World(live.home / "host/sandboxes/fake")
    world.script(method="put", fail="provider_unavailable", times=3)
    said = live.call("cp", "-", f"{lease}:x", stdin=b"x")
    assert said.code == 255
    assert "cp: given up after 3 tries" in said.err
    assert shown(live, lease)["status"] == "retained"
    world.script(method="put", delay_s=3)
    process = live.start("cp", str(Path(__file__)), f"{lease}:x")
    until("it is under way", lambda: shown(live, lease)["status"] == "active")
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 255, err
    assert "cancelled" in err
    assert shown(live, lease)["status"] == "retained"
    assert live.call("cp", "-", f"{lease}:x", stdin=b"x").code == 0
    assert live.call("cp", f"{lease}:x", "-").out == "x"
    live.call("leases", "destroy", lease)


def test_a_sandbox_that_is_held_is_copied_into_and_stays_held(
    live: Live, tmp_path: Path
) -> None:
    live.call("env", "create", "plain", "--provider", "local")
    lease = live.call("leases", "create", "--env", "plain", "--ttl", "1h").out.strip()
    assert live.call("cp", "-", f"{lease}:x", stdin=b"held").code == 0
    assert live.call("run", "--lease", lease, "--", "cat", "x").out == "held"
    assert live.call("cp", f"{lease}:", str(tmp_path / "all")).code == 0
    assert trees.read(tmp_path / "all") == {"x": "held"}
    assert shown(live, lease)["status"] == "idle"
    assert live.call("leases", "release", lease).code == 0


def test_names_that_are_not_utf8_are_refused(
    live: Live, kept: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    odd = os.fsdecode(b"odd\xff")
    for name in (odd, "plain"):
        (tmp_path / name).write_text("x")
    monkeypatch.chdir(tmp_path)
    for paths, words in (
        ((odd, f"{kept}:x"), "its name is not UTF-8"),
        ((odd, "plain", f"{kept}:x"), "its name is not UTF-8"),
        (("plain", f"{kept}:{odd}"), "PATH: must be a path in UTF-8"),
        ((f"{kept}:{odd}", "here"), "PATH: must be a path in UTF-8"),
        ((f"{kept}:{'x' * 5000}", "here"), "PATH: must be a path of 1 to 4000"),
    ):
        said = live.call("cp", *paths)
        assert (said.code, words in said.err) == (2, True), said.err


def test_usage_is_told(live: Live) -> None:
    assert live.call("cp", "one").code == 2
    assert "one path at a time" in live.call("cp", "a:1", "a:2", "here").err
    assert "Exit codes:" in live.call("cp", "--help").out
