"""Checks: files go in and out as they are, and no path leaves the sandbox."""

import io
import tarfile
from typing import Final

from leasehold.errors import ConfigRejectedError
from leasehold.provider.conformance.catalogue import check, posix
from leasehold.provider.conformance.catalogue import files as has_files
from leasehold.provider.conformance.harness import Case, must, refused

_NAMES: Final = (
    "plain", "with blank", "deep/er/still", "ünï→", "-rf", "--help", "$HOME", "`id`", "a;b",
    "quote'\"s", "new\nline", "*", "...", "~", "%s", "back\\slash", "x" * 200,
)  # fmt: skip


def _put(case: Case, path: str, data: bytes, *, tree: bool = False, mode: int = 0o644) -> None:
    case.provider.put(
        case.target,
        path,
        io.BytesIO(data),
        fence=case.fence,
        tree=tree,
        mode=mode,
        budget=case.budget(),
    )


def _get(case: Case, path: str, *, tree: bool = False) -> bytes:
    return b"".join(case.provider.get(case.target, path, tree=tree, budget=case.budget()))


def _member(name: str, data: bytes = b"", mode: int = 0o644, link: str = "") -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.mode, info.size = mode, len(data)
    if link:
        info.type, info.linkname = tarfile.SYMTYPE, link
    elif name.endswith("/"):
        info.type = tarfile.DIRTYPE
    return info


def _archive(*members: tuple[tarfile.TarInfo, bytes]) -> bytes:
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w") as tar:
        for info, data in members:
            tar.addfile(info, io.BytesIO(data))
    return file.getvalue()


def _listing(data: bytes) -> dict[str, tuple[str, int, bytes]]:
    """Return name → (link, mode, content) of an archive's files and links."""
    found = {}
    with tarfile.open(fileobj=io.BytesIO(data)) as tar:
        for info in tar:
            content = tar.extractfile(info) if info.isreg() else None
            mode = 0 if info.issym() else info.mode & 0o777
            name = info.name.removeprefix("./").rstrip("/")
            if name not in {"", "."}:
                body = content.read() if content else b""
                found[name] = (info.linkname if info.issym() else "", mode, body)
    return found


@check(has_files)
def a_file_comes_back_as_it_went_whatever_its_name(case: Case) -> None:
    case.acquire()
    for name in _NAMES:
        data = f"content of {name}".encode() + bytes(range(256))
        _put(case, name, data)
        must(_get(case, name) == data, f"{name!r} came back changed")


@check(has_files)
def a_big_file_and_an_empty_one_come_back(case: Case) -> None:
    case.acquire()
    big = bytes(range(256)) * 4096 * 9
    for data in (big, b""):
        _put(case, "file", data)
        must(_get(case, "file") == data, f"{len(data)} bytes")


@check(has_files, posix)
def a_command_sees_what_was_put_with_its_mode(case: Case) -> None:
    case.acquire()
    _put(case, "bin/tool", b"#!/bin/sh\necho from the tool\n", mode=0o755)
    must(case.run("bin/tool").stdout == b"from the tool\n", "it can be executed")
    _put(case, "bin/tool", b"text", mode=0o640)
    done = case.run_command(case.shell("ls -l bin; cat bin/tool"))
    must(b"rw-r-----" in done.stdout and done.stdout.endswith(b"text"), f"replaced: {done}")
    case.run_command(case.shell("printf made >inside"))
    must(_get(case, "inside") == b"made", "what a command made comes out")


@check(has_files)
def a_tree_keeps_modes_and_links(case: Case) -> None:
    case.acquire()
    members = [
        (_member("dir/", mode=0o755), b""),
        (_member("dir/plain", b"text", 0o640), b"text"),
        (_member("dir/tool", b"#!/bin/sh\n", 0o755), b"#!/bin/sh\n"),
        (_member("dir/near", link="plain"), b""),
        (_member("dir/sub/", mode=0o700), b""),
        (_member("dir/sub/ünï name", b"", 0o600), b""),
        (_member("dir/sub/up", link="../plain"), b""),
    ]
    _put(case, "tree", _archive(*members), tree=True)
    expected = {
        info.name.rstrip("/"): (info.linkname, 0 if info.issym() else info.mode, data)
        for info, data in members
    }
    found = _listing(_get(case, "tree", tree=True))
    must(found == expected, f"differ: {set(found.items()) ^ set(expected.items())}")
    must(_get(case, "tree/dir/plain") == b"text", "each file is there")


@check(has_files)
def no_path_leads_out(case: Case) -> None:
    case.acquire()
    tar = _archive((_member("a", b"x"), b"x"))
    for path in (
        "../x",
        "a/../../x",
        "/etc/conformance",
        "..",
        "a\0b",
        "../" * 20 + "tmp/x",
    ):
        for tree in (False, True):
            with refused(ConfigRejectedError, f"put to {path!r}"):
                _put(case, path, tar, tree=tree)
            with refused(ConfigRejectedError, f"get of {path!r}"):
                _get(case, path, tree=tree)


@check(has_files)
def no_member_of_a_tree_leads_out(case: Case) -> None:
    case.acquire()
    evil = (
        ((_member("../evil", b"x"), b"x"),),
        ((_member("/evil", b"x"), b"x"),),
        ((_member("a/../../evil", b"x"), b"x"),),
        ((_member("out", link="/tmp"), b""), (_member("out/evil", b"x"), b"x")),  # noqa: S108  a place outside
        ((_member("up", link="../../.."), b""), (_member("up/evil", b"x"), b"x")),
    )
    for members in evil:
        with refused(ConfigRejectedError, f"a tree with {members[-1][0].name!r}"):
            _put(case, "tree", _archive(*members), tree=True)
    with refused(ConfigRejectedError, "a tree that is no tar"):
        _put(case, "tree", b"no tar at all" * 100, tree=True)


@check(has_files, posix)
def a_link_of_the_command_leads_nobody_out(case: Case) -> None:
    case.acquire()
    case.run_command(
        case.shell("ln -s /etc out; ln -s /etc/passwd file; mkdir d; ln -s .. d/up")
    )
    for path in ("out/conformance", "d/up/../../x"):
        with refused(ConfigRejectedError, f"put to {path!r}"):
            _put(case, path, b"x")
    for path in ("out/passwd", "file"):
        with refused(ConfigRejectedError, f"get of {path!r}"):
            _get(case, path)


@check(has_files)
def what_is_not_there_is_refused(case: Case) -> None:
    case.acquire()
    for tree in (False, True):
        with refused(ConfigRejectedError, "get of what is not there"):
            _get(case, "no-such-thing", tree=tree)
    _put(case, "dir/file", b"x")
    with refused(ConfigRejectedError, "a directory as a file"):
        _get(case, "dir")
    with refused(ConfigRejectedError, "a file over a directory"):
        _put(case, "dir", b"x")
