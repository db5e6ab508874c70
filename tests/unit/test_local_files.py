"""Files into and out of the local provider's sandboxes."""

import io
import tarfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from leasehold.provider import ConfigRejectedError, StaleFenceError
from local_world import World, budget, provider


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    found = World(tmp_path / "root", provider(tmp_path / "root"))
    found.acquire()
    yield found
    found.end()


def put(world: World, path: str, data: bytes, *, tree: bool = False, mode: int = 0o644) -> None:
    world.provider.put(
        world.meant(),
        path,
        io.BytesIO(data),
        fence=world.fence,
        tree=tree,
        mode=mode,
        budget=budget(),
    )


def get(world: World, path: str, *, tree: bool = False) -> bytes:
    return b"".join(world.provider.get(world.meant(), path, tree=tree, budget=budget()))


def archive(*members: tuple[tarfile.TarInfo, bytes]) -> bytes:
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w") as tar:
        for info, data in members:
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    return file.getvalue()


@pytest.mark.parametrize("name", ["a", "deep/er/a", "a b", "é\n*", "-rf", "...", "x" * 200])
def test_a_file_comes_back_as_it_went(world: World, name: str) -> None:
    data = bytes(range(256)) * 5000
    put(world, name, data, mode=0o750)
    path = world.path / "work" / name
    assert (path.read_bytes(), path.stat().st_mode & 0o777) == (data, 0o750)
    assert get(world, name) == data
    assert list((world.path / "ctl/spool").iterdir()) == []


@pytest.mark.parametrize("path", ["../x", "a/../../x", "/etc/passwd", "out/x", "", "a\0b", "."])
@pytest.mark.parametrize("tree", [False, True])
def test_no_path_leaves_the_root(world: World, path: str, tree: bool) -> None:
    (world.path / "work/out").symlink_to("/etc")
    if path == "." and tree:
        return
    with pytest.raises(ConfigRejectedError):
        put(world, path, archive(), tree=tree)
    with pytest.raises(ConfigRejectedError):
        get(world, path, tree=tree)


def test_a_link_that_leads_out_is_not_read_and_not_written_through(world: World) -> None:
    outside = world.root.parent / "outside"
    outside.write_text("secret")
    (world.path / "work/link").symlink_to(outside)
    with pytest.raises(ConfigRejectedError):
        get(world, "link")
    put(world, "link", b"mine")
    assert outside.read_text() == "secret"
    assert get(world, "link") == b"mine"


def test_a_link_that_stays_inside_is_followed(world: World) -> None:
    put(world, "real/a", b"x")
    (world.path / "work/link").symlink_to("real")
    (world.path / "work/leaf").symlink_to("real/a")
    assert get(world, "link/a") == b"x"
    assert get(world, "leaf") == b"x"


def test_a_tree_comes_back_with_modes_and_links(world: World) -> None:
    folder = world.path / "work/tree"
    (folder / "empty").mkdir(parents=True)
    (folder / "script").write_text("#!/bin/sh\n")
    (folder / "script").chmod(0o755)
    (folder / "link").symlink_to("script")
    (folder / "big").write_bytes(b"x" * 700_000)
    put(world, "copy", get(world, "tree", tree=True), tree=True)
    copy = world.path / "work/copy"
    assert (copy / "script").stat().st_mode & 0o777 == 0o755
    assert (copy / "link").readlink() == Path("script")
    assert (copy / "empty").is_dir()
    assert (copy / "big").read_bytes() == b"x" * 700_000


def member(name: str, **more: object) -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    for key, value in more.items():
        setattr(info, key, value)
    return info


@pytest.mark.parametrize(
    "info",
    [
        member("../evil"),
        member("/evil"),
        member("link", type=tarfile.SYMTYPE, linkname="/etc"),
        member("link", type=tarfile.SYMTYPE, linkname="../../.."),
        member("device", type=tarfile.CHRTYPE),
    ],
)
def test_a_tar_member_that_would_leave_is_refused(world: World, info: tarfile.TarInfo) -> None:
    before = sorted(world.path.parent.rglob("*"))
    with pytest.raises(ConfigRejectedError):
        put(world, "in", archive((info, b"")), tree=True)
    after = [path for path in sorted(world.path.parent.rglob("*")) if path.name != "in"]
    assert after == [path for path in before if path.name != "in"]


def test_what_is_no_tar_is_refused(world: World) -> None:
    with pytest.raises(ConfigRejectedError, match="tar"):
        put(world, "in", b"garbage" * 200, tree=True)


@pytest.mark.parametrize(("path", "tree"), [("none", False), ("none", True), ("d", False)])
def test_what_is_not_there_is_said(world: World, path: str, tree: bool) -> None:
    (world.path / "work/d").mkdir()
    with pytest.raises(ConfigRejectedError):
        get(world, path, tree=tree)


def test_a_stale_holder_puts_nothing(world: World) -> None:
    world.provider.seize(world.meant(), fence=5, budget=budget())
    with pytest.raises(StaleFenceError):
        put(world, "a", b"x")
    assert not (world.path / "work/a").exists()
