"""A run finds its tree in the sandbox, and what prepares it goes first."""

from pathlib import Path
from typing import Any

import pytest

from leasehold.blobs import Blobs
from story.conftest import House
from workspaces import trees


def sandbox(lab: House, lease_id: str) -> Path:
    return lab.world.box(lease_id) / "work"


def started(lab: House, run_id: str) -> list[int]:
    return [row["command_index"] for row in lab.executions(run_id)]


def test_the_tree_lies_in_the_sandbox_and_the_lease_says_which(
    lab: House, blobs: Blobs, tmp_path: Path
) -> None:
    files = {"a.txt": "one", "deep/er/b.txt": "two", "link": "->a.txt"}
    packed = trees.store(blobs, trees.write(tmp_path / "w", files))
    lab.environment(policy="reuse_by_workspace")
    row = lab.over(lab.submit("true", workspace="/w", tree=trees.spec(packed)))
    assert row["status"] == "succeeded"
    lab.quiet()
    lease = lab.leases()[0]
    assert trees.read(sandbox(lab, lease["id"])) == files
    tree = lease["facts"]["tree"]
    assert (tree["digest"], tree["name"]) == (packed.digest, "/w")
    events = lab.events(row["id"])
    assert events.index("workspace.realized") < events.index("execution.started")


def test_an_unchanged_tree_is_not_put_again_and_keeps_what_a_run_did(
    lab: House, blobs: Blobs, tmp_path: Path
) -> None:
    packed = trees.store(blobs, trees.write(tmp_path / "w", {"a.txt": "one"}))
    lab.environment(policy="reuse_by_workspace")
    spec: dict[str, Any] = {"workspace": "/w", "tree": trees.spec(packed)}
    lab.over(lab.submit(*["write", "a.txt", "changed"], **spec))
    lab.quiet()
    second = lab.over(lab.submit("true", **spec))
    assert "workspace.realized" not in lab.events(second["id"])
    assert trees.read(sandbox(lab, second["lease_id"])) == {"a.txt": "changed\n"}


def test_a_changed_tree_replaces_files_and_leaves_what_it_does_not_know(
    lab: House, blobs: Blobs, tmp_path: Path
) -> None:
    first = trees.store(blobs, trees.write(tmp_path / "1", {"a": "1", "b": "1"}))
    second = trees.store(blobs, trees.write(tmp_path / "2", {"a": "2"}))
    lab.environment(policy="reuse_by_workspace")
    leases = []
    for packed in (first, second):
        row = lab.over(lab.submit("true", workspace="/w", tree=trees.spec(packed)))
        leases.append(row["lease_id"])
        lab.quiet()
    assert leases[0] == leases[1]
    assert trees.read(sandbox(lab, leases[1])) == {"a": "2", "b": "1"}


def test_a_used_sandbox_that_cannot_take_the_tree_is_given_up_for_a_new_one(
    lab: House, blobs: Blobs, tmp_path: Path
) -> None:
    file = trees.store(blobs, trees.write(tmp_path / "1", {"a": "a file"}))
    folder = trees.store(blobs, trees.write(tmp_path / "2", {"a/b": "below"}))
    lab.environment(policy="reuse_by_workspace")
    first = lab.over(lab.submit("true", workspace="/w", tree=trees.spec(file)))
    lab.quiet()
    second = lab.over(lab.submit("true", workspace="/w", tree=trees.spec(folder)))
    assert second["status"] == "succeeded"
    assert second["lease_id"] != first["lease_id"]
    assert trees.read(sandbox(lab, second["lease_id"])) == {"a/b": "below"}


def test_a_tree_that_is_not_in_the_store_fails_before_a_sandbox_is_made(lab: House) -> None:
    lab.environment()
    row = lab.over(lab.submit("true", tree={"digest": "0" * 64}))
    assert (row["code"], row["lease_id"]) == ("workspace_unavailable", None)


def test_a_damaged_tree_is_never_put(lab: House, blobs: Blobs, tmp_path: Path) -> None:
    packed = trees.store(blobs, trees.write(tmp_path / "w", {"a": "1"}))
    path = next(p for p in (tmp_path / "store").rglob(packed.digest))
    data = path.read_bytes()
    path.write_bytes(data.replace(b"1", b"2"))
    lab.environment()
    row = lab.over(lab.submit("true", tree=trees.spec(packed)))
    assert row["code"] == "workspace_unavailable"
    assert "damaged" in row["message"]


@pytest.mark.parametrize("code", [0, 3])
def test_the_setup_command_goes_first_and_decides(lab: House, code: int) -> None:
    lab.environment()
    setup = {"argv": f"echo preparing then exit {code}".split()}
    row = lab.over(lab.submit("echo", "working", setup=setup))
    if code:
        assert (row["status"], row["code"], row["exit_code"]) == ("failed", "setup_failed", 3)
        assert started(lab, row["id"]) == [-1]
    else:
        assert row["status"] == "succeeded"
        assert started(lab, row["id"]) == [-1, 0]
        assert lab.output(row["id"]) == b"preparing\nworking\n"


def test_the_setup_is_not_repeated_on_an_unchanged_tree_unless_it_failed(
    lab: House, blobs: Blobs, tmp_path: Path
) -> None:
    one = trees.spec(trees.store(blobs, trees.write(tmp_path / "1", {"a": "1"})))
    two = trees.spec(trees.store(blobs, trees.write(tmp_path / "2", {"a": "2"})))
    lab.environment(policy="reuse_by_workspace")
    good, bad = {"argv": ["true"]}, {"argv": ["false"]}
    expected = [
        (one, good, [-1, 0]),
        (one, good, [0]),
        (two, good, [-1, 0]),
        (one, good, [-1, 0]),
        (one, bad, [-1]),
        (one, good, [-1, 0]),
    ]
    leases = set()
    for tree, setup, commands in expected:
        row = lab.over(lab.submit("true", workspace="/w", tree=tree, setup=setup))
        lab.quiet()
        leases.add(row["lease_id"])
        assert started(lab, row["id"]) == commands
    assert len(leases) == 1


def test_the_setup_has_a_timeout_of_its_own(lab: House) -> None:
    lab.environment()
    setup = {"argv": ["sleep", "1000"]}
    row = lab.over(lab.submit("true", setup=setup, setup_timeout_s=0.1, grace_s=0.1))
    assert (row["status"], row["code"]) == ("timed_out", "setup_timeout")


def test_a_retry_in_a_new_sandbox_gets_tree_and_setup_again_and_goes_on_where_it_was(
    lab: House, blobs: Blobs, tmp_path: Path
) -> None:
    packed = trees.store(blobs, trees.write(tmp_path / "w", {"a": "1"}))
    lab.environment()
    row = lab.over(
        lab.submit(
            "true",
            commands=[{"argv": ["true"]}, {"argv": ["false"]}],
            tree=trees.spec(packed),
            setup={"argv": ["true"]},
            retries=1,
        )
    )
    assert row["code"] == "command_failed"
    assert started(lab, row["id"]) == [-1, 0, 1, -1, 1]
    assert lab.events(row["id"]).count("workspace.realized") == 2


def test_runs_of_one_workspace_take_turns_and_block_nobody_else(lab: House) -> None:
    lab.environment()
    first = lab.submit("sleep", "0.2", workspace="/w")
    second = lab.submit("true", workspace="/w")
    other = lab.submit("true", workspace="/other")
    lab.over(other)
    assert (lab.run(first)["status"], lab.run(second)["status"]) == ("running", "queued")
    one, two = lab.over(first), lab.over(second)
    assert two["status"] == "succeeded"
    assert one["finished_at"] <= two["admitted_at"]
