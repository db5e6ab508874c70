"""The files around the code: compose, unit, Makefile, lock and CI, as far as reading shows."""

import os
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any, Final

import pytest
import yaml

ROOT: Final = Path(__file__).parents[2]
TARGETS: Final = ("help", "setup", "demo", "up", "test", "lint", "types", "fmt", "ci", "lock")
SECRET: Final = re.compile(r"PASSWORD|SECRET|TOKEN|AUTH|_URL$")
ONE_SHOT: Final = {"migrate"}


def compose() -> dict[str, Any]:
    loaded: dict[str, Any] = yaml.safe_load((ROOT / "compose.yaml").read_text())
    return loaded


SERVICES: Final[dict[str, dict[str, Any]]] = compose()["services"]


def unit() -> list[tuple[str, str]]:
    """Return the unit's assignments, in order; a name may stand more than once."""
    lines = (ROOT / "workers/host/leasehold-worker.service").read_text().splitlines()
    pairs = [line.partition("=") for line in lines if line and line[0] not in "#["]
    return [(name, value) for name, _, value in pairs]


def test_compose_has_the_whole_of_production() -> None:
    assert {"postgres", "redis", "migrate", "worker"} <= SERVICES.keys()


@pytest.mark.parametrize("name", SERVICES)
def test_every_service_has_a_restart_policy(name: str) -> None:
    expected = "on-failure" if name in ONE_SHOT else "unless-stopped"
    assert SERVICES[name]["restart"] == expected


@pytest.mark.parametrize("name", SERVICES)
def test_every_service_that_stays_has_a_health_check(name: str) -> None:
    check = SERVICES[name]["healthcheck"]
    if name in ONE_SHOT:
        assert check == {"disable": True}
        return
    assert check["test"]
    assert {"interval", "timeout", "retries"} <= check.keys()


@pytest.mark.parametrize("name", SERVICES)
def test_compose_bakes_no_password_in(name: str) -> None:
    for key, value in SERVICES[name].get("environment", {}).items():
        if not SECRET.search(key):
            continue
        # Either asked for with a message, or handed through and empty by default.
        assert "${" in value, f"{name}: {key} is a literal"
        for mark in re.findall(r"\$\{[^}]*\}", value):
            assert re.fullmatch(r"\$\{\w+:(\?.+|-)\}", mark), f"{name}: {key} has a default"


@pytest.mark.parametrize("name", SERVICES)
def test_no_password_stands_in_a_command_line_of_compose(name: str) -> None:
    words = [str(word) for word in SERVICES[name].get("command", [])]
    words += [str(word) for word in SERVICES[name]["healthcheck"].get("test", [])]
    # `$$` is expanded by the shell inside the container; a single `$` by compose, into argv.
    assert not [word for word in words if re.search(r"(?<!\$)\$(?!\$)", word)]


def test_who_needs_a_service_waits_until_it_is_healthy() -> None:
    waits = SERVICES["worker"]["depends_on"]
    assert waits["migrate"] == {"condition": "service_completed_successfully"}
    assert waits["redis"] == {"condition": "service_healthy"}
    assert SERVICES["migrate"]["depends_on"]["postgres"] == {"condition": "service_healthy"}


def test_the_image_of_a_worker_runs_as_nobody_special_and_has_a_reaper() -> None:
    worker = SERVICES["worker"]
    dockerfile = (ROOT / worker["build"]["dockerfile"]).read_text()
    assert re.search(r"^USER leasehold$", dockerfile, re.MULTILINE)
    assert worker["init"] is True
    copied = re.findall(r"^COPY (?!--)(.+) \S+$", dockerfile, re.MULTILINE)
    for path in " ".join(copied).split():
        assert (ROOT / path).exists(), f"the Dockerfile copies {path}"


def test_stopping_a_worker_host_leaves_its_commands_alone() -> None:
    said = dict(unit())
    assert said["Type"] == "exec"
    assert said["KillMode"] == "process"
    assert said["Restart"] == "always"
    assert said["EnvironmentFile"] == "/etc/leasehold/worker.env"
    # Longer than an agent's own drain (30 s), or its drain would be cut short.
    assert int(said["TimeoutStopSec"]) > 30
    assert not [line for line in unit() if line[0] == "Environment" and SECRET.search(line[1])]


def test_the_unit_keeps_no_sandbox_from_working() -> None:
    forbidden = {"RestrictNamespaces", "PrivateUsers", "ProtectControlGroups", "PrivateTmp"}
    assert not forbidden & {name for name, _ in unit()}


@pytest.mark.skipif(not shutil.which("systemd-analyze"), reason="no systemd here")
def test_systemd_understands_the_unit(tmp_path: Path) -> None:
    text = (ROOT / "workers/host/leasehold-worker.service").read_text()
    path = tmp_path / "leasehold-worker.service"
    # The program is installed on worker hosts only.
    path.write_text(text.replace("/opt/leasehold/bin/leasehold", "/bin/true"))
    done = subprocess.run(
        ["systemd-analyze", "verify", path], capture_output=True, text=True, check=False
    )
    # It loads all units that ours needs; what it says of others is not about us.
    assert not [line for line in done.stderr.splitlines() if path.name in line]


def test_make_help_lists_every_target() -> None:
    clean = {name: os.environ[name] for name in ("PATH", "HOME") if name in os.environ}
    done = subprocess.run(
        ["make", "-C", ROOT, "--no-print-directory", "help"],
        env=clean, capture_output=True, text=True, check=True,
    )  # fmt: skip
    listed = re.findall(r"^  make (\w+) +\S", done.stdout, re.MULTILINE)
    assert set(TARGETS) <= set(listed)
    makefile = (ROOT / "Makefile").read_text()
    phony = re.search(r"^\.PHONY: (.*)$", makefile, re.MULTILINE)
    assert phony
    assert set(phony[1].split()) == set(listed)


def test_the_lock_pins_everything_and_names_no_index_and_no_path() -> None:
    lines = (ROOT / "requirements.lock").read_text().splitlines()
    assert [line for line in lines if not re.fullmatch(r"[\w.-]+==[\w.+!]+", line)] == []
    names = [re.sub(r"[-_.]+", "-", line.partition("==")[0]).lower() for line in lines]
    assert len(names) == len(set(names))
    # The editable installs build without isolation.
    assert "setuptools" in names


def test_the_lock_holds_what_the_project_asks_for() -> None:
    lock = (ROOT / "requirements.lock").read_text().lower().splitlines()
    wanted = re.findall(
        r'^  ?"([\w-]+)(?:\[\w+\])?==([\w.]+)"',
        (ROOT / "pyproject.toml").read_text(),
        re.MULTILINE,
    )
    assert len(wanted) > 20
    assert [f"{name}=={version}" for name, version in wanted
            if f"{name}=={version}".lower() not in lock] == []  # fmt: skip


def test_ci_is_one_script_that_anyone_can_run() -> None:
    script = ROOT / ".ci/run"
    assert os.access(script, os.X_OK)
    assert "set -euo pipefail" in script.read_text()
    subprocess.run(["bash", "-n", script], check=True)
    steps = yaml.safe_load((ROOT / ".github/workflows/ci.yml").read_text())["jobs"]["ci"][
        "steps"
    ]
    assert [step["run"] for step in steps if "run" in step] == ["bash .ci/run"]


def test_hooks_before_a_commit_need_nothing_from_elsewhere() -> None:
    config = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text())
    assert [repo["repo"] for repo in config["repos"]] == ["local"]
