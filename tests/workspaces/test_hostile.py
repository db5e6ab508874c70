"""Whatever a tar stream or a line says, nothing outside of the root is touched."""

import io
import itertools
import os
import tarfile
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from leasehold.errors import HostileTreeError
from leasehold.trees import gathering, homing, reading
from leasehold.trees.reading import Limits
from workspaces import trees

LIMITS = Limits(files=50, bytes=100_000)
PLAN = gathering.Plan(globs=("**",), kept=LIMITS, file_bytes=50_000, stream=LIMITS)

ODD = (
    ("a", "a/b", "../x", "/etc/x", "a/../../x", "..", ".", "", "a//b", "./a", "a\nb"),
    ("ü", "\udcff", "a/./b", "link/x", "inner/x", "d", "d/e", ".git/x"),
)
NAMES = st.one_of(
    *(st.sampled_from(names) for names in ODD),
    st.text(max_size=20).filter(lambda text: "\0" not in text),
)
KINDS = st.sampled_from(
    [b"0", b"1", b"2", b"3", b"4", b"5", b"6", b"7", tarfile.GNUTYPE_SPARSE]
)
MEMBERS = st.lists(
    st.tuples(NAMES, KINDS, NAMES, st.binary(max_size=50), st.integers(0, 0o7777)), max_size=8
)


def archive(members: list[Any], *, kind: int = tarfile.PAX_FORMAT) -> bytes:
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w", format=kind) as tar:
        for name, type_, link, data, mode in members:
            info = tarfile.TarInfo(name)
            info.type, info.mode, info.linkname = type_, mode, link
            info.size = len(data) if type_ == tarfile.REGTYPE else 0
            tar.addfile(info, io.BytesIO(data))
    return file.getvalue()


def gathered(data: bytes) -> gathering.Gathered:
    gatherer = gathering.Gatherer(PLAN, lambda _source, _digest, _size: None)
    gatherer.read(io.BytesIO(data))
    return gatherer.finish()


def snapshot(root: Path) -> dict[str, Any]:
    """Return everything below a directory, without following a link."""
    found: dict[str, Any] = {}
    for folder, folders, files in os.walk(root):
        for name in (*folders, *files):
            path = Path(folder) / name
            seen = path.lstat()
            text = path.read_bytes() if path.is_file() and not path.is_symlink() else None
            found[str(path)] = (seen.st_mode, seen.st_size if text is not None else 0, text)
    return found


@given(MEMBERS, st.sampled_from([tarfile.PAX_FORMAT, tarfile.GNU_FORMAT]))
@settings(max_examples=300)
def test_any_archive_is_read_or_refused_in_our_own_words(members: list[Any], kind: int) -> None:
    data = archive(members, kind=kind)
    for line in gathered(data).lines.values():
        assert not line.path.startswith("/")
        assert line.kind == "skipped" or ".." not in line.path.split("/")
    try:
        reading.check(io.BytesIO(data), LIMITS)
    except HostileTreeError:
        return
    for name, *_ in members:
        assert not name.startswith("/")
        assert ".." not in name.split("/")


@given(st.binary(max_size=2000), st.integers(0, 1500))
@settings(max_examples=300)
def test_noise_is_refused_and_nothing_else_happens(noise: bytes, at: int) -> None:
    whole = archive([("a", tarfile.REGTYPE, "", b"x" * 700, 0o644)] * 2)
    for data in (noise, whole[:at] + noise + whole[at:], whole[:at]):
        gathered(data)
        try:
            reading.check(io.BytesIO(data), LIMITS)
        except HostileTreeError:
            continue


@pytest.mark.parametrize(
    ("members", "why"),
    [
        ([("../x", tarfile.REGTYPE, "", b"", 0)], "leads outside"),
        ([("/x", tarfile.REGTYPE, "", b"", 0)], "leads outside"),
        ([("l", tarfile.SYMTYPE, "/etc", b"", 0)], "leads outside"),
        ([("l", tarfile.SYMTYPE, "../x", b"", 0)], "leads outside"),
        (
            [("a", tarfile.SYMTYPE, ".", b"", 0), ("b", tarfile.SYMTYPE, "a/..", b"", 0)],
            "outside",
        ),
        (
            [("l", tarfile.SYMTYPE, "d", b"", 0), ("l/x", tarfile.REGTYPE, "", b"", 0)],
            "below a",
        ),
        ([("h", tarfile.LNKTYPE, "a", b"", 0)], "neither"),
        ([("h", tarfile.LNKTYPE, "../a", b"", 0)], "leads outside"),
        ([("p", tarfile.FIFOTYPE, "", b"", 0)], "neither"),
        ([("c", tarfile.CHRTYPE, "", b"", 0)], "neither"),
        ([(f"{i}", tarfile.REGTYPE, "", b"", 0) for i in range(51)], "more than 50 files"),
        ([("big", tarfile.REGTYPE, "", b"x" * 100_001, 0)], "more than 100000 bytes"),
        ([("n" * 5000, tarfile.REGTYPE, "", b"", 0)], "too long"),
        ([("n" * 70_000, tarfile.REGTYPE, "", b"", 0)], "a header of"),
    ],
)
def test_a_hostile_tree_never_gets_into_a_sandbox(members: list[Any], why: str) -> None:
    with pytest.raises(HostileTreeError, match=why):
        reading.check(io.BytesIO(archive(members)), LIMITS)


def test_a_hard_link_is_the_file_that_it_names_also_below_a_directory() -> None:
    members = [("a", tarfile.REGTYPE, "", b"x", 0), ("b", tarfile.LNKTYPE, "a", b"", 0)]
    for below in ("", "deep/er"):
        gatherer = gathering.Gatherer(PLAN, lambda _source, _digest, _size: None)
        gatherer.read(io.BytesIO(archive(members)), below=below)
        found = gatherer.finish().lines.values()
        assert {(line.kind, line.path.removeprefix("deep/er/")) for line in found} == {
            ("artifact", "a"),
            ("artifact", "b"),
        }


def test_of_what_is_taken_whole_links_stay_inside_and_the_rest_is_named() -> None:
    members = [
        ("a", tarfile.REGTYPE, "", b"x", 0),
        ("in", tarfile.SYMTYPE, "a", b"", 0),
        ("out", tarfile.SYMTYPE, "../x", b"", 0),
        ("up", tarfile.SYMTYPE, "/etc", b"", 0),
        ("device", tarfile.CHRTYPE, "", b"", 0),
        ("new\nline", tarfile.REGTYPE, "", b"x", 0),
    ]
    plan = gathering.Plan(whole=True, kept=LIMITS, file_bytes=50_000, stream=LIMITS)
    gatherer = gathering.Gatherer(plan, lambda _source, _digest, _size: None)
    gatherer.read(io.BytesIO(archive(members)))
    found = {(line.kind, line.path): line for line in gatherer.finish().lines.values()}
    kept = {path for kind, path in found if kind == "artifact"}
    assert kept == {"a", "in", "new\nline"}
    assert {path for kind, path in found if kind == "skipped"} == {"out", "up", "device"}


def test_a_file_that_never_ends_is_given_up_at_the_cap() -> None:
    plan = gathering.Plan(whole=True, kept=LIMITS, file_bytes=50_000, stream=LIMITS)
    gatherer = gathering.Gatherer(plan, lambda _source, _digest, _size: None)
    gatherer.take("zero", itertools.repeat(bytes(1000)))
    (line,) = gatherer.finish().lines.values()
    assert (line.kind, line.reason) == ("skipped", "more than 50000 bytes")


def test_a_file_that_claims_terabytes_is_refused_by_its_header() -> None:
    info = tarfile.TarInfo("bomb")
    info.size = 10**13
    data = info.tobuf(tarfile.GNU_FORMAT) + bytes(1024)
    with pytest.raises(HostileTreeError, match="bytes"):
        reading.check(io.BytesIO(data), LIMITS)
    assert "more than" in (gathered(data).error or "")


def test_a_sparse_file_is_refused() -> None:
    info = tarfile.TarInfo("sparse")
    info.pax_headers = {"GNU.sparse.map": "0,1", "GNU.sparse.size": str(10**12)}
    data = info.tobuf(tarfile.PAX_FORMAT) + bytes(2048)
    with pytest.raises(HostileTreeError):
        reading.check(io.BytesIO(data), LIMITS)


def test_headers_upon_headers_are_refused() -> None:
    link = tarfile.TarInfo("././@LongLink")
    link.type, link.size = tarfile.GNUTYPE_LONGNAME, 1
    data = (link.tobuf(tarfile.GNU_FORMAT) + b"x" + bytes(511)) * 5000
    with pytest.raises(HostileTreeError):
        reading.check(io.BytesIO(data), LIMITS)


LINES = st.lists(
    st.fixed_dictionaries(
        {
            "kind": st.sampled_from(["changed", "deleted"]),
            "path": NAMES,
            "sha256": st.sampled_from([None, "0" * 64]),
            "link": st.sampled_from([None, "a", "../../outside", "/etc/passwd", "inner"]),
            "base": st.sampled_from([None, "0" * 64, "link:a"]),
            "mode": st.sampled_from([0o644, 0o755, 0o4777]),
        }
    ).filter(lambda line: line["kind"] == "deleted" or line["sha256"] or line["link"]),
    max_size=8,
)


@given(LINES)
@settings(max_examples=200, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_no_line_leads_outside_of_the_directory(
    tmp_path_factory: pytest.TempPathFactory, lines: list[Any]
) -> None:
    around = tmp_path_factory.mktemp("around")
    trees.write(around, {"outside/file": "mine", "home/a": "1", "home/d/x": "1"})
    home = around / "home"
    (home / "link").symlink_to("../outside")
    (home / "inner").symlink_to("d")
    before = {p: v for p, v in snapshot(around).items() if not p.startswith(f"{home}")}
    homing.bring(home, lines, lambda _digest, file: file.write(b"theirs"))
    after = {p: v for p, v in snapshot(around).items() if not p.startswith(f"{home}")}
    assert after == before
    for path in home.rglob("*"):
        if path.is_symlink() and path.name != "link":
            assert Path(os.path.realpath(path)).is_relative_to(around)
