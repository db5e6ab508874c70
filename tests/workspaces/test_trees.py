"""Packing, ignoring, and bringing home."""

import hashlib
import io
import os
import sys
from pathlib import Path
from typing import Any

import pytest
from fsspec.registry import _registry as registry

from leasehold.blobs import Blobs
from leasehold.errors import (
    BadInputError,
    BlobMissingError,
    BlobsUnavailableError,
    HostileTreeError,
)
from leasehold.trees import comparing, homing
from leasehold.trees.packing import pack, pack_these
from leasehold.trees.reading import Limits
from workspaces import trees


def packed_names(root: Path, **options: Any) -> set[str]:
    file = io.BytesIO()
    pack(root, file, trees.LIMITS, **options)
    file.seek(0)
    return set(comparing.base_of(file, trees.LIMITS).entries)


def test_an_unchanged_directory_has_an_unchanged_digest(tmp_path: Path) -> None:
    root = trees.write(tmp_path / "w", {"a": "1", "b/c": "2", "l": "->a"})
    first = pack(root, io.BytesIO(), trees.LIMITS)
    os.utime(root / "a", (1, 1))
    (root / "a").chmod(0o600)
    assert pack(root, io.BytesIO(), trees.LIMITS) == first
    (root / "a").chmod(0o700)
    assert pack(root, io.BytesIO(), trees.LIMITS).digest != first.digest


def test_ignore_files_mean_what_they_mean_to_git(tmp_path: Path) -> None:
    files = {
        ".gitignore": "*.log\n!keep.log\n/build/\n",
        ".leaseholdignore": "secret\n!build/\n",
        "a.log": "",
        "keep.log": "",
        "build/x": "",
        "deep/build/x": "",
        "deep/.gitignore": "!a.log\n",
        "deep/a.log": "",
        "deep/secret/x": "",
        ".git/config": "",
        ".leasehold/db": "",
    }
    root = trees.write(tmp_path / "w", files)
    expected = {".gitignore", ".leaseholdignore", "keep.log", "deep/.gitignore", "deep/a.log"}
    assert packed_names(root) == expected | {"build/x", "deep/build/x"}


def test_an_embedded_home_never_goes_along(tmp_path: Path) -> None:
    root = trees.write(tmp_path / "w", {"a": "1", "my-home/leasehold.db": "x"})
    assert packed_names(root, home=root / "my-home") == {"a"}


def test_what_is_no_part_of_a_tree_is_left_out_and_said(tmp_path: Path) -> None:
    root = trees.write(tmp_path / "w", {"a": "1", "out": "->/etc", "up": "->../x"})
    os.mkfifo(root / "pipe")
    (root / os.fsdecode(b"\xff")).write_text("x")
    packed = pack(root, io.BytesIO(), trees.LIMITS)
    assert {path for path, _ in packed.left_out} == {"out", "up", "pipe", os.fsdecode(b"\xff")}
    assert packed.files == 1


def test_a_tree_beyond_a_limit_is_refused(tmp_path: Path) -> None:
    root = trees.write(tmp_path / "w", {"a": "12345", "b": "12345"})
    for limits in (Limits(files=1, bytes=100), Limits(files=9, bytes=9)):
        with pytest.raises(BadInputError, match="ignore some"):
            pack(root, io.BytesIO(), limits)


def test_what_is_copied_has_everything_in_it_and_the_names_it_is_given(tmp_path: Path) -> None:
    files = {".gitignore": "*\n", ".git/HEAD": "1", "x": "1", "home/secret-keys": "1"}
    root = trees.write(tmp_path / "w", {**files, "in": "->x", "out": "->/etc", "up": "->../f"})
    single = trees.write(tmp_path, {"f": "22"}) / "f"
    file = io.BytesIO()
    packed = pack_these({"d": root, "g": single}, file, trees.LIMITS, home=root / "home")
    file.seek(0)
    expected = {"d/.gitignore", "d/.git/HEAD", "d/x", "d/in", "g"}
    assert set(comparing.base_of(file, trees.LIMITS).entries) >= expected
    assert dict(packed.left_out) == {
        "d/out": "a link that leads outside (/etc)",
        "d/home": "the home of an embedded stack",
    }
    # Of all that is copied; `d/up` is a link to a place in it that is not there.
    assert (packed.plain, packed.content_bytes) == (6, 6)
    bare = io.BytesIO()
    pack_these({"": root}, bare, trees.LIMITS)
    bare.seek(0)
    assert {"x", "home/secret-keys"} <= set(comparing.base_of(bare, trees.LIMITS).entries)
    with pytest.raises(BadInputError, match=r"^more than 3 bytes, at 'g'$"):
        pack_these({"f": single, "g": single}, io.BytesIO(), Limits(files=9, bytes=3))


def test_a_kept_link_that_leads_outside_is_not_written(tmp_path: Path) -> None:
    for target in ("/etc", "../x", "a/../.."):
        with pytest.raises(HostileTreeError, match="leads outside"):
            homing.write_out(tmp_path, "l", line("l", None, None, link=target), print)
    assert trees.read(tmp_path) == {}


def line(path: str, text: str | None, base: str | None, **more: Any) -> dict[str, Any]:
    return {
        "kind": "changed" if text is not None else "deleted",
        "path": path,
        "sha256": None if text is None else digest(text),
        "link": None,
        "base": None if base is None else digest(base),
        "mode": 0o644,
        **more,
    }


def digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def bring(root: Path, lines: list[dict[str, Any]], texts: list[str]) -> homing.Report:
    by = {digest(text): text.encode() for text in texts}
    return homing.bring(root, lines, lambda name, file: file.write(by[name]))


def test_changes_come_home_and_a_second_time_changes_nothing(tmp_path: Path) -> None:
    root = trees.write(tmp_path / "w", {"a": "1", "gone": "1", "stays": "1"})
    lines = [
        line("a", "2", "1", mode=0o755),
        line("new/file", "3", None),
        line("gone", None, "1"),
        line("never/there", None, "1"),
        line("l", None, None, kind="changed", link="a"),
    ]
    expected = {"a": "2", "new/file": "3", "stays": "1", "l": "->a"}
    for _ in range(2):
        report = bring(root, lines, ["2", "3"])
        assert not report.conflicts
        assert not report.refused
        assert trees.read(root) == expected
    assert os.access(root / "a", os.X_OK)


def test_a_persons_own_change_is_never_overwritten(tmp_path: Path) -> None:
    root = trees.write(tmp_path / "w", {"a": "mine", "b": "mine", "new": "mine"})
    lines = [line("a", "theirs", "1"), line("b", None, "1"), line("new", "theirs", None)]
    report = bring(root, lines, ["theirs"])
    assert sorted(report.conflicts) == ["a", "b", "new"]
    assert trees.read(root) == {
        "a": "mine",
        "a.leasehold-theirs": "theirs",
        "b": "mine",
        "new": "mine",
        "new.leasehold-theirs": "theirs",
    }


def put(blobs: Blobs, text: bytes) -> str:
    name = hashlib.sha256(text).hexdigest()
    blobs.put("default", io.BytesIO(text), name=name, size=len(text))
    return name


@pytest.mark.parametrize("kind", ["directory", "memory"])
def test_a_blob_comes_back_as_it_went(tmp_path: Path, kind: str) -> None:
    blobs = Blobs(str(tmp_path / "s") if kind == "directory" else f"memory://{tmp_path}")
    name = put(blobs, b"content")
    put(blobs, b"content")
    target = io.BytesIO()
    assert blobs.fetch("default", name, target) == 7
    assert target.getvalue() == b"content"
    assert blobs.size("default", name) == 7
    assert blobs.size("other", name) is None
    with pytest.raises(BlobMissingError):
        blobs.fetch("../default", name, target)


def test_a_store_that_is_no_directory_is_said(tmp_path: Path) -> None:
    (tmp_path / "s").write_text("a file")
    with pytest.raises(BlobsUnavailableError, match="does not do it"):
        put(Blobs(str(tmp_path / "s")), b"x")


@pytest.mark.parametrize(
    ("url", "why"), [("s3://bucket/x", r"pip install 'leasehold\[s3\]'"), ("nope://x", "nope")]
)
def test_a_store_whose_driver_is_missing_is_said_with_what_mends_it(
    url: str, why: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    # As Python does it where there is no such module.
    monkeypatch.setitem(sys.modules, "s3fs", None)
    monkeypatch.delitem(registry, "s3", raising=False)
    with pytest.raises(BadInputError, match=why):
        Blobs(url).check()
