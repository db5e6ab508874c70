"""docs/api.md is true: each of its blocks is run, with curl, against a server and a stack."""

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from command_line import Live, until
from leasehold.api.answers import STATUSES

pytestmark = pytest.mark.slow
PAGE = Path(__file__).parents[2] / "docs" / "api.md"


@pytest.fixture
def live(tmp_path: Path) -> Iterator[Live]:
    live = Live(tmp_path / "home")
    try:
        yield live
    finally:
        live.down()


@pytest.fixture
def url(live: Live) -> str:
    where = live.up("--api-port", "0")
    until("sandboxes may know the API", (live.home / "api-url").exists)
    return str(where["api"])


def test_a_stranger_with_curl_and_the_page_comes_to_its_end(live: Live, url: str) -> None:
    blocks = re.findall(r"^```sh\n(.*?)^```$", PAGE.read_text(), re.MULTILINE | re.DOTALL)
    script = "\n".join(f"echo; echo '--- {n}'\n{block}" for n, block in enumerate(blocks))
    programs = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    done = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", script],
        env=live.environ() | {"LEASEHOLD_API_URL": url, "PATH": programs},
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    said = done.stdout.partition("--- ")[2]
    for words in (
        "\n3\nhello\noops\n",
        "hell",
        '"name":"run.',
        "retained",
        "releasing",
        "first\nsecond\n",
        "{'rows': 12}",
        "out/report.html",
    ):
        assert words in said, said
    (shown,) = re.findall(r"^```json\n(.*?)^```$", PAGE.read_text(), re.MULTILINE | re.DOTALL)
    answers = [json.loads(line) for line in said.splitlines() if "docs-1" in line]
    assert answers == [json.loads(shown)]


def test_the_page_names_every_status_of_an_error() -> None:
    text = PAGE.read_text()
    for kind, status in STATUSES:
        assert f"| {status} |" in text, kind
