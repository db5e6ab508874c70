"""workers/README.md does what it says: who follows it has a provider that is green."""

import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Final

import pytest

ROOT: Final = Path(__file__).parents[2]
TEXT: Final = (ROOT / "workers/README.md").read_text(encoding="utf-8")
INSTALL: Final = "pip install -e ."


def blocks(kind: str) -> list[str]:
    """Return the blocks of code of one kind, without the indent of their step."""
    found = re.findall(rf"^( *)```{kind}\n(.*?)^ *```$", TEXT, re.MULTILINE | re.DOTALL)
    return ["".join(line.removeprefix(indent) for line in body.splitlines(keepends=True))
            for indent, body in found]  # fmt: skip


def run(*words: str | Path, cwd: Path, site: Path) -> str:
    """Run one command as the stranger would; its output, which says what went wrong."""
    env = {"PATH": os.environ["PATH"], "HOME": str(cwd), "PYTHONPATH": str(site)}
    done = subprocess.run(
        words, cwd=cwd, env=env, check=False, text=True,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout
    return done.stdout


@pytest.fixture(scope="module")
def stranger(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Follow step 1 to the letter; only the installation goes to a directory of its own."""
    home = tmp_path_factory.mktemp("stranger")
    (home / "workers").symlink_to(ROOT / "workers")
    site = home / "site"
    script = blocks("sh")[0]
    assert INSTALL in script
    elsewhere = (
        f"{sys.executable} -m pip install --quiet --disable-pip-version-check --no-deps"
        f" --no-build-isolation --target {site} ."
    )
    run("sh", "-e", "-c", script.replace(INSTALL, elsewhere), cwd=home, site=site)
    return home, site


def test_the_copy_holds_nothing_of_the_example_any_more(stranger: tuple[Path, Path]) -> None:
    mine = stranger[0] / "my_cloud"
    for path in [*mine.glob("*.*"), *mine.glob("src/**/*.py")]:
        assert not re.search("fake.?plugin", path.read_text(), re.IGNORECASE), path
    shown = blocks("toml")[0]
    assert shown in (mine / "pyproject.toml").read_text()


def test_the_command_finds_it_and_is_green(stranger: tuple[Path, Path]) -> None:
    home, site = stranger
    leasehold = Path(sys.executable).with_name("leasehold")
    areas = ("--area", "contract", "--area", "ownership", "--area", "isolation")
    said = run(leasehold, "providers", "check", "my_cloud", *areas, cwd=home, site=site)
    assert "my_cloud: " in said
    assert " failed" not in said


def test_the_test_that_is_printed_there_runs_as_it_stands(stranger: tuple[Path, Path]) -> None:
    home, site = stranger
    (home / "test_mine.py").write_text(blocks("python")[0])
    pytest_ = (sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "test_mine.py")
    said = run(*pytest_, "-k", "handle or exit_code or listed", cwd=home, site=site)
    assert re.search(r"\d+ passed", said)


@pytest.mark.parametrize(
    ("wrong", "right", "told"),
    [
        ('KEY: Final = "my_cloud"', 'KEY: Final = "other"', "calls itself 'other'"),
        ("class MyCloud(", "import no_such_sdk\n\n\nclass MyCloud(", "could not be loaded"),
    ],
)
def test_what_a_worker_would_not_take_is_told_by_the_check(
    stranger: tuple[Path, Path], wrong: str, right: str, told: str
) -> None:
    home, site = stranger
    path = site / "leasehold_my_cloud/provider.py"
    text = path.read_text()
    assert wrong in text
    leasehold = Path(sys.executable).with_name("leasehold")
    path.write_text(text.replace(wrong, right))
    try:
        with pytest.raises(AssertionError, match=told) as caught:
            run(leasehold, "providers", "check", "my_cloud", cwd=home, site=site)
        assert "fault of ours" not in str(caught.value)
    finally:
        path.write_text(text)
