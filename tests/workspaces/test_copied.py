"""What a person copies into a kept sandbox and out of it, as the engine does it."""

import hashlib
import io
import os
from pathlib import Path
from typing import Any

import pytest

from leasehold.blobs import Blobs
from leasehold.domain.specs import RunSpec, parse
from leasehold.errors import BadInputError
from leasehold.orchestrator import submit
from leasehold.orchestrator.jobs import FileLimits
from leasehold.store import artifacts, moves
from leasehold.store.database import Row
from leasehold.trees.reading import Limits
from story.conftest import House
from story.test_3_leases import status
from workspaces import trees


@pytest.fixture
def kept(lab: House) -> str:
    """A lease that is retained, since its run failed after it wrote two files."""
    lab.environment(policy="retain_on_failure", retained_ttl_s=3600)
    words = "write note evidence then write d/e/deep more then exit 3"
    failed = lab.over(lab.submit(*words.split()))
    lab.quiet()
    return str(failed["lease_id"])


def box(lab: House, lease_id: str) -> Path:
    return lab.world.box(lease_id) / "work"


def start(lab: House, lease_id: str, **spec: Any) -> str:
    body = {"commands": [{"argv": ["true"]}], **spec}
    request = submit.Request(spec=parse(RunSpec, body), lease_id=lease_id, visit=True)
    with lab.database.write("test") as tx:
        row, _ = submit.submit(tx, lab.worker, request)
    return str(row["id"])


def done(lab: House, lease_id: str, run_id: str) -> Row:
    row = lab.over(run_id)
    lab.until(lambda: status(lab, lease_id) == "retained")
    return row


def copy(lab: House, lease_id: str, **spec: Any) -> Row:
    return done(lab, lease_id, start(lab, lease_id, **spec))


def file_of(blobs: Blobs, data: bytes) -> dict[str, Any]:
    digest = hashlib.sha256(data).hexdigest()
    blobs.put("default", io.BytesIO(data), name=digest, size=len(data))
    return {"digest": digest, "bytes": len(data), "is_file": True}


def tree_of(blobs: Blobs, root: Path, files: dict[str, str]) -> dict[str, Any]:
    packed = trees.store(blobs, trees.write(root, files))
    return {"digest": packed.digest, "bytes": packed.bytes}


def left(lab: House, run_id: str, kind: str = "artifact") -> dict[str, Row]:
    with lab.database.read() as tx:
        return {row["path"]: row for row in artifacts.of_run(tx, run_id, kinds=[kind])}


def was(lab: House, run_id: str) -> str | None:
    """Return what was found at the path that was to be copied out."""
    with lab.database.read() as tx:
        events = moves.events_of(tx, run_id=run_id)
    (data,) = [row["data"] for row in events if row["name"] == "artifacts.collected"]
    found: str | None = data.get("copied")
    return found


@pytest.mark.parametrize(
    ("to", "where"),
    [
        ({"to": ".", "name": "f"}, "f"),
        ({"to": "d", "name": "f"}, "d/f"),
        ({"to": "d/e", "name": "f", "to_directory": True}, "d/e/f"),
        ({"to": "d/new", "name": "f"}, "d/new"),
        ({"to": "note", "name": "f"}, "note"),
        ({"to": "/work/d/e", "name": "f"}, "d/e/f"),
    ],
)
def test_a_file_goes_where_cp_would_put_it(
    lab: House, blobs: Blobs, kept: str, to: dict[str, Any], where: str
) -> None:
    row = copy(lab, kept, copy_in={**file_of(blobs, b"new"), **to, "executable": True})
    assert row["status"] == "succeeded", row["message"]
    path = box(lab, kept) / where
    assert path.read_bytes() == b"new"
    assert os.access(path, os.X_OK)


@pytest.mark.parametrize(
    ("to", "where"),
    [
        ({"to": ".", "name": "t"}, "t/"),
        ({"to": "d", "name": "t"}, "d/t/"),
        ({"to": "d", "name": "e"}, "d/e/"),
        ({"to": "d/new", "name": "t"}, "d/new/"),
        ({"to": "d"}, "d/"),
        ({"to": "fresh"}, "fresh/"),
    ],
)
def test_a_directory_goes_where_cp_would_put_it(
    lab: House, blobs: Blobs, kept: str, tmp_path: Path, to: dict[str, Any], where: str
) -> None:
    tree = tree_of(blobs, tmp_path / "t", {"a": "1", "b/c": "2", "l": "->a"})
    before = trees.read(box(lab, kept))
    row = copy(lab, kept, copy_in={**tree, **to})
    assert row["status"] == "succeeded", row["message"]
    new = {f"{where}a": "1", f"{where}b/c": "2", f"{where}l": "->a"}
    assert trees.read(box(lab, kept)) == {**before, **new}


@pytest.mark.parametrize(
    ("to", "is_file", "code", "words"),
    [
        ({"to": "no/such", "name": "x"}, True, "path_missing", "no directory 'no' in the"),
        (
            {"to": "no", "name": "x", "to_directory": True},
            True,
            "path_missing",
            "directory 'no'",
        ),
        ({"to": "note/x", "name": "x"}, True, "path_missing", "no directory 'note'"),
        ({"to": "/etc/x", "name": "x"}, True, "path_missing", "leads out of the sandbox"),
        ({"to": "d", "name": "e"}, True, "path_refused", "'d/e' is a directory"),
        ({"to": "d"}, True, "path_refused", "name a file in it"),
        ({"to": "note", "name": "x"}, False, "path_refused", "'note' is a file there"),
        ({"to": ".", "name": "note"}, False, "path_refused", "'note' is a file there"),
        ({"to": "d", "name": "f"}, False, "path_refused", "does not fit"),
    ],
)
def test_what_cannot_go_there_is_refused_and_the_sandbox_stays(
    lab: House,
    blobs: Blobs,
    kept: str,
    tmp_path: Path,
    to: dict[str, Any],
    is_file: bool,
    code: str,
    words: str,
) -> None:
    (box(lab, kept) / "d/f").mkdir()
    (box(lab, kept) / "d/f/x").write_text("a file")
    before = trees.read(box(lab, kept))
    tree = tree_of(blobs, tmp_path / "t", {"x/y": "a directory"})
    source = file_of(blobs, b"new") if is_file else tree
    row = copy(lab, kept, copy_in={**source, **to})
    assert (row["status"], row["code"]) == ("failed", code)
    assert words in row["message"]
    assert trees.read(box(lab, kept)) == before
    assert lab.executions(row["id"]) == []
    # And whoever comes next finds it as it was.
    again = copy(lab, kept, copy_in={**file_of(blobs, b"new"), "to": ".", "name": "after"})
    assert again["status"] == "succeeded"


def test_a_copy_leaves_the_marks_of_the_workspace_alone(
    lab: House, blobs: Blobs, tmp_path: Path
) -> None:
    tree = tree_of(blobs, tmp_path / "w", {"a": "1"})
    lab.environment(policy="reuse_by_workspace")
    spec: dict[str, Any] = {"workspace": "/w", "tree": tree, "setup": {"argv": ["true"]}}
    first = lab.over(lab.submit("true", **spec))
    lab.quiet()
    before = lab.leases()[0]["facts"]
    put = lab.over(start(lab, first["lease_id"], copy_in={**file_of(blobs, b"2"), "to": "a"}))
    lab.quiet()
    after = lab.leases()[0]
    assert (after["status"], put["status"]) == ("idle", "succeeded")
    for name in ("tree", "setup"):
        assert after["facts"][name] == before[name]
    mark = after["facts"]["copy"]
    assert mark == {"run_id": put["id"], "at": "a", "done": True}
    second = lab.over(lab.submit("true", **spec))
    assert [row["command_index"] for row in lab.executions(second["id"])] == [0]
    assert (box(lab, second["lease_id"]) / "a").read_text() == "2"


def test_what_lies_there_is_not_put_again_when_the_command_is_tried_again(
    lab: House, blobs: Blobs, kept: str
) -> None:
    words = ["write", "x", "changed", "then", "exit", "1"]
    spec: dict[str, Any] = {"commands": [{"argv": words}], "retries": 1}
    row = copy(lab, kept, copy_in={**file_of(blobs, b"new"), "to": "x"}, **spec)
    assert (row["code"], len(lab.executions(row["id"]))) == ("command_failed", 2)
    assert lab.events(row["id"]).count("files.copied") == 1
    assert (box(lab, kept) / "x").read_text() == "changed\n"


def test_a_store_or_provider_that_fails_is_asked_again_for_the_same_place(
    lab: House, blobs: Blobs, kept: str, tmp_path: Path
) -> None:
    tree = tree_of(blobs, tmp_path / "t", {"a": "1"})
    lab.world.script(method="put", fail="provider_unavailable", after_effect=True)
    row = copy(lab, kept, copy_in={**tree, "to": "fresh", "name": "t"})
    assert (row["status"], row["infra_attempts"]) == ("succeeded", 1)
    # The directory that the first try has made is not one to go into.
    assert trees.read(box(lab, kept) / "fresh") == {"a": "1"}


def test_what_is_not_in_the_store_or_is_beyond_the_caps_is_refused(
    lab: House, blobs: Blobs, kept: str, tmp_path: Path
) -> None:
    absent = copy(lab, kept, copy_in={"digest": "0" * 64, "bytes": 1, "to": "x"})
    assert absent["code"] == "workspace_unavailable"
    small = Limits(files=1, bytes=10)
    lab.worker.limits = FileLimits(workspace=small, artifacts=small, artifact_bytes=8)
    tree = tree_of(blobs, tmp_path / "t", {"a": "1", "b": "2"})
    for source, words in (
        (file_of(blobs, b"x" * 11), "a file of 11 bytes; at most 10"),
        (tree, "more than 1 files"),
    ):
        row = copy(lab, kept, copy_in={**source, "to": "x"})
        assert (row["code"], words in row["message"]) == ("workspace_rejected", True)
    out = copy(lab, kept, copy_out="note")
    skipped = left(lab, out["id"], "skipped")
    assert skipped["note"]["reason"] == "more than 8 bytes"
    assert left(lab, out["id"]) == {}


def test_a_file_and_a_directory_come_out(lab: House, blobs: Blobs, kept: str) -> None:
    trees.write(box(lab, kept), {"d/l": "->e/deep", "d/a\nb": "odd", "d/*": "star"})
    (box(lab, kept) / "d/tool").write_text("x")
    (box(lab, kept) / "d/tool").chmod(0o755)
    (box(lab, kept) / "empty").mkdir()
    for path in ("note", "/work/note"):
        row = copy(lab, kept, copy_out=path)
        assert was(lab, row["id"]) == "file"
        (line,) = left(lab, row["id"]).values()
        assert (line["path"], line["bytes"], line["mode"]) == ("note", 9, 0o644)
    for path in ("d", "d/.", "d/"):
        row = copy(lab, kept, copy_out=path)
        assert was(lab, row["id"]) == "directory"
        lines = left(lab, row["id"])
        assert set(lines) == {"e/deep", "l", "a\nb", "*", "tool"}
        assert (lines["l"]["link"], lines["tool"]["mode"]) == ("e/deep", 0o755)
    row = copy(lab, kept, copy_out="empty")
    assert (was(lab, row["id"]), left(lab, row["id"])) == ("directory", {})
    everything = copy(lab, kept, copy_out=".")
    assert "d/e/deep" in left(lab, everything["id"])


@pytest.mark.parametrize("path", ["no", "note/", "d/no", "/etc/passwd", "out/passwd", "pipe"])
def test_what_is_not_there_or_not_inside_does_not_come_out(
    lab: House, kept: str, path: str
) -> None:
    (box(lab, kept) / "out").symlink_to("/etc")
    os.mkfifo(box(lab, kept) / "pipe")
    row = copy(lab, kept, copy_out=path)
    assert was(lab, row["id"]) is None
    assert left(lab, row["id"]) == {}
    assert "no such file or directory" in left(lab, row["id"], "skipped")[path]["reason"]


def test_links_out_pipes_and_foreign_names_are_named_and_stay(lab: House, kept: str) -> None:
    here = box(lab, kept) / "d"
    trees.write(here, {"up": "->../note", "root": "->/etc/passwd"})
    os.mkfifo(here / "pipe")
    Path(os.fsdecode(bytes(here) + b"/\xff")).write_text("x")
    row = copy(lab, kept, copy_out="d")
    assert set(left(lab, row["id"])) == {"e/deep"}
    reasons = {path: line["reason"] for path, line in left(lab, row["id"], "skipped").items()}
    assert reasons == {
        "up": "a link that leads outside",
        "root": "a link that leads outside",
        "pipe": "neither file, directory nor link",
        "\ufffd": "its name is not UTF-8",
    }


@pytest.mark.parametrize("path", ["../x", "a/../../x", "", "a\0b", "\udcff"])
def test_a_path_that_leads_upwards_is_no_spec(path: str) -> None:
    with pytest.raises(BadInputError, match="copy_out"):
        parse(RunSpec, {"commands": [{"argv": ["true"]}], "copy_out": path})


def test_a_key_of_an_earlier_version_means_the_same_request() -> None:
    plain = {"commands": [{"argv": ["true"]}]}
    request = submit.Request(spec=parse(RunSpec, plain), environment="lab")
    # As the version before these fields had it.
    first = "9f9c071fdf84300e952812e288353d167dcd38605b42ef31340609753ee9b7da"
    assert request.body_hash() == first
    copies = parse(RunSpec, {**plain, "copy_out": "x"})
    assert submit.Request(spec=copies, environment="lab").body_hash() != first
    assert RunSpec.model_validate(copies.model_dump(mode="json")) == copies
