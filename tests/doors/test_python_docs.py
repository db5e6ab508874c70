"""docs/python.md is true: its blocks are run, one after the other, beside a real stack."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from command_line import Live

pytestmark = pytest.mark.slow
PAGE = Path(__file__).parents[2] / "docs" / "python.md"
BLOCK = re.compile(r"^```python\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def test_the_page_works_as_it_stands(tmp_path: Path) -> None:
    live = Live(tmp_path / "home")
    where = live.up("--port", "0")
    try:
        token = live.call("keys", "create", "docs", "--role", "admin").out.strip()
        blocks = BLOCK.findall(PAGE.read_text())
        done = subprocess.run(
            [sys.executable, "-W", "error", "-c", "\n".join(blocks)],
            env={
                **live.environ(),
                "LEASEHOLD_API_URL": where["api"],
                "LEASEHOLD_API_TOKEN": token,
                "DATABASE_URL": f"sqlite:///{live.home / 'leasehold.db'}",
            },
            capture_output=True,
            text=True,
            timeout=100,
            check=False,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        assert done.stderr == ""
        for words in (
            "failed 3 command_failed\nhello\n",
            "1 stdout b'one\\n'",
            "1 stderr b'two\\n'",
            "run.queued",
            "\ncancelled\nTrue True\n",
            "\nfirst\n\nfirst\nsecond\n",
            "there are: local, scratch",
            "made together",
        ):
            assert words in done.stdout, done.stdout
        assert done.stdout.endswith("True\n")
        runs = live.call("runs", "list", "--json").json()
        assert not [run for run in runs if "never" in run["commands"][0]["argv"]]
    finally:
        live.down()
