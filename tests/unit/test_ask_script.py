"""What a sandbox is asked with works with whatever program there is that speaks HTTP."""

import shutil
import subprocess
import threading
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from leasehold.orchestrator.choosing import _SCRIPT, _lines

TOOLS = ("curl", "wget", "busybox", "python3", "bash")
DEAD = "http://127.0.0.1:9"


class Quiet(SimpleHTTPRequestHandler):
    def log_message(self, *_: object) -> None:
        """Say nothing."""


@pytest.fixture
def url(tmp_path: Path) -> Iterator[str]:
    (tmp_path / "served").mkdir()
    (tmp_path / "served" / "hello").write_text("wanted\n")
    handler = partial(Quiet, directory=str(tmp_path / "served"))
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


def ask(tmp_path: Path, tool: str | None, *urls: str) -> dict[int, str]:
    """Ask with this program alone."""
    programs = tmp_path / "programs"
    programs.mkdir()
    for name in ("head", "tr", "tail", tool):
        if name is not None:
            found = "/usr/bin/python3" if name == "python3" else shutil.which(name)
            if found is None or not Path(found).exists():
                pytest.skip(f"{name} is not there")
            (programs / ("wget" if name == "busybox" else name)).symlink_to(found)
    done = subprocess.run(
        ["/bin/sh", "-c", _SCRIPT, "sh", "/hello?x=1", "wanted", "2", *urls],
        env={"PATH": str(programs)},
        capture_output=True,
        timeout=60,
        check=False,
    )
    return _lines(done.stdout)


@pytest.mark.parametrize("tool", TOOLS)
def test_the_first_that_is_right_ends_the_asking(tmp_path: Path, url: str, tool: str) -> None:
    assert ask(tmp_path, tool, url, DEAD) == {0: "wanted"}


@pytest.mark.parametrize("tool", TOOLS)
def test_all_others_are_asked_if_the_first_is_not(tmp_path: Path, url: str, tool: str) -> None:
    said = ask(tmp_path, tool, DEAD, f"{url}/other", url)
    assert set(said) == {0, 1, 2}
    assert said[2] == "wanted"
    assert "wanted" not in {said[0], said[1]}


def test_a_sandbox_with_none_of_them_says_so(tmp_path: Path, url: str) -> None:
    said = ask(tmp_path, None, url)
    assert said == {0: "the sandbox has no curl, wget, python3 or bash"}


def test_lines_that_are_not_whole_or_not_ours_are_not_read() -> None:
    assert _lines(b"1 one\nx y\n-2 z\n1 again\n2 two") == {1: "one"}
    assert _lines(b"") == {}
    assert _lines(b"\xff\xfe 1\n99999 x\n") == {}
