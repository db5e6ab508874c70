"""Files and trees go into a sandbox of a `ShellProvider`, and come back."""

import io
import os
import stat
import tarfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from leasehold.provider import (
    ConfigRejectedError,
    ReleaseMode,
    StaleFenceError,
    UnavailableError,
    supervisor,
)
from leasehold_fake_plugin.provider import FakePlugin
from supervised import Bench, budget


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    bench = Bench(tmp_path)
    yield bench
    bench.whole.release(bench.target, fence=10**18, mode=ReleaseMode.DESTROY, budget=budget())
    bench.assert_quiet()


def _put(
    bench: Bench, path: str, data: bytes, *, tree: bool = False, mode: int = 0o644
) -> None:
    source = io.BytesIO(data)
    bench.whole.put(bench.target, path, source, fence=1, tree=tree, mode=mode, budget=budget())


def _get(bench: Bench, path: str, *, tree: bool = False) -> bytes:
    return b"".join(bench.whole.get(bench.target, path, tree=tree, budget=budget()))


@pytest.mark.parametrize("name", ["plain", "a b/c'd/\n$x", "ü/☃", "-rf", "deep/er/and/deeper"])
def test_a_file_comes_back_as_it_went(bench: Bench, name: str) -> None:
    data = os.urandom(5_000_000)
    _put(bench, name, data, mode=0o750)
    assert _get(bench, name) == data
    assert stat.S_IMODE((bench.path / "work" / name).stat().st_mode) == 0o750
    assert not list(bench.control.glob("spool-*"))


@pytest.mark.parametrize("path", ["../x", "/etc/x", "a/../../x", "out/x", "link", ""])
def test_no_path_leaves_the_root(bench: Bench, path: str) -> None:
    work = bench.path / "work"
    (work / "out").symlink_to(bench.root)
    (work / "link").symlink_to("/etc/hostname")
    if path != "link":
        with pytest.raises(ConfigRejectedError):
            _put(bench, path, b"x")
    with pytest.raises(ConfigRejectedError):
        _get(bench, path)
    assert not (bench.root / "x").exists()
    assert not list(bench.control.glob("spool-*"))


def _tree(*members: tuple[tarfile.TarInfo, bytes]) -> bytes:
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w") as tar:
        for member, data in members:
            member.size = len(data)
            tar.addfile(member, io.BytesIO(data))
    return stream.getvalue()


def _member(name: str, *, kind: bytes = tarfile.REGTYPE, link: str = "") -> tarfile.TarInfo:
    member = tarfile.TarInfo(name)
    member.type, member.linkname, member.mode = kind, link, 0o755
    return member


def test_a_tree_comes_back_with_modes_and_links(bench: Bench) -> None:
    sent = _tree(
        (_member("bin/run"), b"#!/bin/sh\n"),
        (_member("python", kind=tarfile.SYMTYPE, link="/usr/bin/python3"), b""),
        (_member("odd \n'name"), b"x"),
    )
    _put(bench, "tree", sent, tree=True)
    with tarfile.open(fileobj=io.BytesIO(_get(bench, "tree", tree=True))) as tar:
        names = {member.name.removeprefix("./"): member for member in tar}
    assert names["bin/run"].mode == 0o755
    assert names["python"].linkname == "/usr/bin/python3"
    assert "odd \n'name" in names


@pytest.mark.parametrize(
    "members",
    [
        [(_member("../x"), b"x")],
        [(_member("/x"), b"x")],
        [(_member("out", kind=tarfile.SYMTYPE, link="/tmp"), b""), (_member("out/x"), b"x")],
        [(_member("hard", kind=tarfile.LNKTYPE, link="../../x"), b"")],
        [(_member("pipe", kind=tarfile.FIFOTYPE), b"")],
    ],
)
def test_a_tree_that_leads_outside_is_refused(
    bench: Bench, members: list[tuple[tarfile.TarInfo, bytes]]
) -> None:
    with pytest.raises(ConfigRejectedError):
        _put(bench, "", _tree(*members), tree=True)
    with pytest.raises(ConfigRejectedError, match="not a tar"):
        _put(bench, "", b"no tar at all", tree=True)
    assert list((bench.path / "work").iterdir()) == []


def _with(bench: Bench, words: str) -> FakePlugin:
    """Return the plugin on the same sandbox, with `words` before its script."""
    return bench.through(f"{words}\n{supervisor.script()}")


def test_a_file_that_is_replaced_while_it_is_measured_is_read_as_one(bench: Bench) -> None:
    work = bench.path / "work"
    _put(bench, "file", b"old" * 100)
    (work / "next").write_bytes(b"new" * 1000)
    swaps = f"wc() {{ command wc \"$@\"; mv '{work}/next' '{work}/file' 2>/dev/null; }}"
    parts = _with(bench, swaps).get(bench.target, "file", tree=False, budget=budget())
    assert b"".join(parts) == b"old" * 100
    assert _get(bench, "file") == b"new" * 1000


def test_a_file_that_is_replaced_between_two_parts_is_not_read_as_one(bench: Bench) -> None:
    _put(bench, "file", b"o" * 5_000_000)
    parts = iter(bench.whole.get(bench.target, "file", tree=False, budget=budget()))
    assert set(next(iter(parts))) == set(b"o")
    _put(bench, "file", b"n" * 5_000_000)
    with pytest.raises(UnavailableError, match="replaced"):
        list(parts)
    assert _get(bench, "file") == b"n" * 5_000_000


def test_a_put_that_is_overtaken_while_it_copies_shows_nothing(bench: Bench) -> None:
    _put(bench, "file", b"old")
    later = supervisor.fence_name(7)
    overtaken = f"cp() {{ command cp \"$@\"; : >'{bench.control}/fence/{later}'; }}"
    with pytest.raises(StaleFenceError):
        _with(bench, overtaken).put(
            bench.target,
            "file",
            io.BytesIO(b"new"),
            fence=1,
            tree=False,
            mode=0o644,
            budget=budget(),
        )
    assert _get(bench, "file") == b"old"
    assert [path.name for path in (bench.path / "work").iterdir()] == ["file"]
    assert not list(bench.control.glob("spool-*"))


def test_a_tree_that_does_not_fit_what_is_there_is_refused_for_good(bench: Bench) -> None:
    (bench.path / "work/a/b").mkdir(parents=True)
    (bench.path / "work/a/b/mine").write_text("mine")
    with pytest.raises(ConfigRejectedError, match="does not fit what is there"):
        _put(bench, ".", _tree((_member("a/b"), b"a file")), tree=True)
    assert (bench.path / "work/a/b/mine").read_text() == "mine"
    assert not list(bench.control.glob("spool-*"))
