"""What a run leaves is kept, listed and proven, and never costs the run its own end."""

from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any, Final

import pytest

from leasehold.blobs import Blobs
from leasehold.maintenance import hosts_lost
from leasehold.orchestrator import holding
from leasehold.orchestrator.jobs import FileLimits, lease_ref
from leasehold.provider.budget import Budget
from leasehold.provider.contract import Info, Target
from leasehold.provider.fake import FakeProvider
from leasehold.provider.registry import Registry
from leasehold.store import artifacts
from leasehold.store.database import Row
from leasehold.trees.reading import Limits
from story.conftest import House
from workspaces import trees

FOR_EVER: Final = ("write", "a", "1", "then", "sleep", "1000")


def left(lab: House, run_id: str, kind: str = "artifact") -> dict[str, Row]:
    with lab.database.read() as tx:
        return {row["path"]: row for row in artifacts.of_run(tx, run_id, kinds=[kind])}


def content(blobs: Blobs, row: Row, tmp_path: Path) -> bytes:
    target = tmp_path / "fetched"
    with target.open("w+b") as file:
        blobs.fetch("default", row["sha256"], file)
    return target.read_bytes()


@pytest.mark.parametrize("code", [0, 3])
def test_artifacts_are_kept_whether_the_command_worked_or_not(
    lab: House, blobs: Blobs, tmp_path: Path, code: int
) -> None:
    lab.environment()
    words = f"write out/report.xml all good then write out/x.log noise then exit {code}"
    row = lab.over(lab.submit(*words.split(), artifacts=["out/*.xml", "none/**"]))
    assert row["exit_code"] == code
    kept = left(lab, row["id"])
    assert set(kept) == {"out/report.xml"}
    assert content(blobs, kept["out/report.xml"], tmp_path) == b"all good\n"
    assert row["artifacts_error"] is None
    assert left(lab, row["id"], "skipped")["none/**"]["reason"] == "matches nothing"
    assert lab.leases()[0]["status"] in {"releasing", "released"}


def test_a_pattern_means_what_it_means_to_git_from_the_root_on(lab: House) -> None:
    lab.environment()
    words = "write a.xml 1 then write b/a.xml 2 then write dist/x/y 3 then write [odd] 4"
    for globs, expected in (
        (["*.xml"], {"a.xml"}),
        (["**/*.xml"], {"a.xml", "b/a.xml"}),
        (["dist"], {"dist/x/y"}),
        (["dist/"], {"dist/x/y"}),
        (["b/a.xml", "a.xml"], {"a.xml", "b/a.xml"}),
    ):
        row = lab.over(lab.submit(*words.split(), artifacts=globs))
        assert set(left(lab, row["id"])) == expected, globs


def test_what_is_beyond_a_cap_is_named_with_its_reason(lab: House) -> None:
    lab.environment()
    lab.worker.limits = FileLimits(artifacts=Limits(files=10, bytes=12), artifact_bytes=8)
    words = "write a 12345 then write b 123456789 then write c 12345 then write d 123456"
    row = lab.over(lab.submit(*words.split(), artifacts=["*"]))
    assert set(left(lab, row["id"])) == {"a", "c"}
    reasons = {path: line["reason"] for path, line in left(lab, row["id"], "skipped").items()}
    assert reasons == {"b": "10 bytes; at most 8", "d": "more than 12 bytes in all"}


def test_a_store_that_fails_costs_the_files_and_not_the_result(
    lab: House, tmp_path: Path
) -> None:
    lab.environment()
    (tmp_path / "store").write_text("no directory")
    row = lab.over(lab.submit(*["write", "a", "1", "then", "exit", "7"], artifacts=["a"]))
    assert (row["status"], row["code"], row["exit_code"]) == ("failed", "command_failed", 7)
    assert row["artifacts_error"].startswith("blobs_unavailable: ")
    assert lab.events(row["id"]).count("artifacts.failed") == 5


def test_a_store_that_comes_back_has_them(lab: House, tmp_path: Path) -> None:
    lab.environment()
    broken = tmp_path / "store"
    broken.write_text("no directory")
    run_id = lab.submit(*["write", "a", "1"], artifacts=["a"])
    lab.until(lambda: "artifacts.failed" in lab.events(run_id))
    broken.unlink()
    row = lab.over(run_id)
    assert row["artifacts_error"] is None
    assert set(left(lab, run_id)) == {"a"}


def test_a_cancel_that_comes_while_they_are_collected_changes_no_end(
    lab: House, tmp_path: Path
) -> None:
    lab.environment()
    (tmp_path / "store").write_text("no directory")
    run_id = lab.submit(*["write", "a", "1", "then", "exit", "7"], artifacts=["a"])
    lab.until(lambda: "artifacts.failed" in lab.events(run_id))
    lab.cancel(run_id)
    row = lab.over(run_id)
    assert (row["code"], row["exit_code"]) == ("command_failed", 7)
    assert row["artifacts_error"]


def test_a_sandbox_that_is_lost_meanwhile_changes_no_end(lab: House, tmp_path: Path) -> None:
    lab.environment()
    (tmp_path / "store").write_text("no directory")
    run_id = lab.submit(*["write", "a", "1"], artifacts=["a"])
    lab.until(lambda: "artifacts.failed" in lab.events(run_id))
    for lease_id in lab.world.sandboxes():
        lab.world.lose(lease_id)
    row = lab.over(run_id)
    assert (row["status"], row["exit_code"]) == ("succeeded", 0)
    assert row["artifacts_error"].startswith("sandbox_lost")
    lab.quiet()
    assert lab.leases()[0]["status"] == "failed"


def test_a_host_that_is_lost_meanwhile_changes_no_end(lab: House, tmp_path: Path) -> None:
    lab.environment()
    (tmp_path / "store").write_text("no directory")
    run_id = lab.submit(*["write", "a", "1", "then", "exit", "7"], artifacts=["a"])
    lab.until(lambda: "artifacts.failed" in lab.events(run_id))
    with lab.database.write("test") as tx:
        tx.run(
            "INSERT INTO hosts (id, name, capacity, draining, created_at, alive_at)"
            " VALUES ('gone', 'gone', 1, false, 1, 1)"
        )
        tx.run("UPDATE runs SET host_id = 'gone'")
    assert hosts_lost.run_once(lab.worker, batch=10).moved == 1
    row = lab.over(run_id)
    assert (row["status"], row["exit_code"]) == ("failed", 7)
    assert row["artifacts_error"]


def test_collecting_does_not_shorten_the_life_of_a_sandbox_that_is_held(lab: House) -> None:
    environment = lab.environment()
    with lab.database.write("test") as tx:
        lease = holding.create(
            tx,
            lab.worker,
            environment,
            hold_for=timedelta(hours=8),
            version="1",
            key="held",
        )
    lab.until(lambda: lab.leases()[0]["status"] == "idle")
    lab.over(lab.submit(*["write", "a", "1"], lease_id=lease["id"], artifacts=["a"]))
    held = lab.leases()[0]
    target = Target(lease=lease_ref(held, deployment="story"), handle=held["handle"], config={})
    seen = lab.registry.require("fake").inspect(target, budget=Budget(1.0))
    assert seen.expires_in_s is not None
    assert seen.expires_in_s > timedelta(hours=7).total_seconds()
    with lab.database.write("test") as tx:
        holding.give_back(tx, lab.worker, lease["id"], actor="test")


def test_a_cancelled_run_keeps_nothing(lab: House) -> None:
    lab.environment()
    run_id = lab.submit(*FOR_EVER, artifacts=["a"], grace_s=0.1)
    lab.until(lambda: bool(lab.executions(run_id)))
    lab.cancel(run_id)
    assert lab.over(run_id)["status"] == "cancelled"
    assert not left(lab, run_id)


def test_a_run_that_timed_out_keeps_its_artifacts(lab: House) -> None:
    lab.environment()
    row = lab.over(lab.submit(*FOR_EVER, artifacts=["a"], timeout_s=0.2, grace_s=0.1))
    assert (row["status"], row["code"]) == ("timed_out", "timeout")
    assert set(left(lab, row["id"])) == {"a"}


def test_what_changed_in_the_tree_is_told_and_nothing_else(
    lab: House, blobs: Blobs, tmp_path: Path
) -> None:
    files = {"same": "1", "changed": "1", "gone": "1", ".gitignore": "build/\n*.o\n"}
    root = trees.write(tmp_path / "w", files)
    packed = trees.store(blobs, root)
    lab.environment()

    def deletes(_phase: str, job: Any, _error: str | None) -> None:
        if job.lease and (box := lab.world.box(job.lease["id"]) / "work").exists():
            (box / "gone").unlink(missing_ok=True)

    lab.worker.on_step = deletes
    words = "write changed 2 then write new/file 3 then write build/x 4 then write y.o 5"
    row = lab.over(
        lab.submit(*words.split(), tree=trees.spec(packed), sync_back=True, workspace="/w")
    )
    changed = left(lab, row["id"], "changed")
    assert set(changed) == {"changed", "new/file"}
    assert set(left(lab, row["id"], "deleted")) == {"gone"}
    assert content(blobs, changed["new/file"], tmp_path) == b"3\n"
    assert changed["new/file"]["base"] is None
    assert len(changed["changed"]["base"]) == 64


class Bare(FakeProvider):
    """A provider that carries no files."""

    def describe(self) -> Info:
        info = super().describe()
        return replace(info, capabilities=replace(info.capabilities, files=False))


def test_a_provider_without_files_refuses_before_a_sandbox_is_made(lab: House) -> None:
    lab.worker.providers = Registry({"fake": Bare(lab.world)})
    lab.environment()
    row = lab.over(lab.submit("true", artifacts=["a"]))
    assert (row["code"], row["lease_id"]) == ("unsupported", None)
