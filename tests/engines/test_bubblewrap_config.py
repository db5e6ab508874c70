"""What bubblewrap's config may say, and what is said where the host cannot keep it."""

import os
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from bubblewrap_world import Fenced, bare, provider, require_bubblewrap
from leasehold.provider import Enforcement, ExitCause, HealthState, Isolation, Network
from leasehold_bubblewrap.provider import BubblewrapProvider
from local_world import budget


@pytest.fixture
def plugin(tmp_path: Path) -> Iterator[BubblewrapProvider]:
    found = provider(tmp_path / "home/sandboxes/bubblewrap")
    yield found
    found.close()


def problems(plugin: BubblewrapProvider, config: dict[str, Any]) -> list[tuple[str, str]]:
    answer = plugin.validate(config, budget=budget())
    return [(one.path, one.code) for one in answer.problems]


def test_defaults_are_filled_in(plugin: BubblewrapProvider) -> None:
    require_bubblewrap()
    assert plugin.validate({}, budget=budget()).config == {
        "tmp_mb": 256,
        "network": "none",
        "ro_binds": [],
        "seccomp": True,
        "reuse_lease": True,
        "env": {},
    }


def test_a_sandbox_without_a_filter_is_warned_of(plugin: BubblewrapProvider) -> None:
    answer = plugin.validate({"seccomp": False}, budget=budget())
    assert answer.ok
    assert len(answer.warnings) == 1


@pytest.mark.parametrize(
    ("config", "path"),
    [
        ({"memory_mb": 0}, "memory_mb"),
        ({"cpus": "many"}, "cpus"),
        ({"network": "allow_list"}, "allow"),
        ({"network": "allow_list", "allow": ["a.test"]}, "allow.0"),
        ({"network": "full", "allow": ["a.test:443"]}, "allow"),
        ({"network": "some"}, "network"),
        ({"disk_mb": 100}, "disk_mb"),
        ({"env": {"A=B": "x"}}, "env"),
        ({"env": {"A": "x\0y"}}, "env.A"),
        ({"ro_binds": ["relative"]}, "ro_binds.0"),
    ],
)
def test_what_cannot_be_meant_is_named(
    plugin: BubblewrapProvider, config: dict[str, Any], path: str
) -> None:
    assert path in [where for where, _ in problems(plugin, config)]


@pytest.mark.parametrize(
    "path",
    [
        "/",
        "/etc",
        "/root",
        "/home",
        "/proc/1",
        "/sys",
        "/dev/sda",
        "/run",
        "/usr/../etc",
        "/opt/",
    ],
)
def test_what_would_open_the_host_is_never_shown(plugin: BubblewrapProvider, path: str) -> None:
    assert problems(plugin, {"ro_binds": [path]}) == [("ro_binds.0", "forbidden")]


def test_leaseholds_own_files_are_never_shown(
    plugin: BubblewrapProvider, tmp_path: Path
) -> None:
    home = tmp_path / "home"
    home.mkdir()
    (tmp_path / "link").symlink_to(home)
    for path in (home, home / "leasehold.db", home / "sandboxes/local", tmp_path / "link"):
        assert problems(plugin, {"ro_binds": [str(path)]}) == [("ro_binds.0", "forbidden")]
    assert problems(plugin, {"ro_binds": [str(tmp_path / "other")]}) == []


def test_limits_that_no_cgroup_keeps_are_said_and_refused(tmp_path: Path) -> None:
    plugin = provider(tmp_path / "root", ground=bare(tmp_path / "root"))
    labels = plugin.describe().capabilities
    assert {labels.memory, labels.pids, labels.cpu, labels.disk} == {Enforcement.NO}
    assert labels.network == {Network.NONE, Network.FULL, Network.ALLOW_LIST}
    assert labels.isolation is Isolation.PROCESS
    for name, value in (("memory_mb", 64), ("pids", 32), ("cpus", 1)):
        assert problems(plugin, {name: value}) == [(name, "unsupported")]
    plugin.close()


def test_a_list_is_not_declared_where_no_namespace_would_keep_it(tmp_path: Path) -> None:
    ground = replace(bare(tmp_path / "root"), shut_in="no user namespaces here")
    plugin = provider(tmp_path / "root", ground=ground)
    assert plugin.describe().capabilities.network == {Network.NONE, Network.FULL}
    config = {"network": "allow_list", "allow": ["a.test:443"]}
    answer = plugin.validate(config, budget=budget())
    assert [(one.path, one.code) for one in answer.problems] == [("network", "unsupported")]
    assert "no user namespaces here" in answer.problems[0].message
    plugin.close()


def test_a_host_without_bwrap_is_undetected(tmp_path: Path) -> None:
    plugin = provider(tmp_path / "root", search=str(tmp_path))
    health = plugin.probe({}, budget=budget())
    assert health.state is HealthState.UNDETECTED
    assert "not installed" in health.summary
    plugin.close()


@pytest.mark.parametrize(
    ("script", "why"),
    [
        ('[ "$1" != --version ] || { echo "bubblewrap 0.6.1"; exit; }', "too old"),
        (
            (
                '[ "$1" != --version ] || { echo "bubblewrap 0.8.0"; exit; };'
                " echo No permissions >&2; exit 1"
            ),
            "No permissions",
        ),
    ],
)
def test_a_bwrap_that_does_not_work_is_unhealthy_with_its_reason(
    tmp_path: Path, script: str, why: str
) -> None:
    program = tmp_path / "bwrap"
    program.write_text(f"#!/bin/sh\n{script}\n")
    program.chmod(0o755)
    tmp_path.chmod(0o755)
    plugin = provider(tmp_path / "root", search=str(tmp_path))
    health = plugin.probe({}, budget=budget())
    assert health.state is HealthState.UNHEALTHY
    assert why in health.summary
    plugin.close()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become somebody else")
def test_an_ordinary_users_worker_can_do_it_too() -> None:
    require_bubblewrap()
    folder = Path(tempfile.mkdtemp(prefix="leasehold-user-"))
    os.chown(folder, 65534, 65534)
    read_end, write_end = os.pipe()
    pid = os.fork()
    if pid == 0:
        said = b"nothing"
        try:
            said = _as_a_user(folder)
        except BaseException as error:
            said = f"{type(error).__name__}: {error}".encode()
        finally:
            os.write(write_end, said)
            os._exit(0)
    os.close(write_end)
    with os.fdopen(read_end) as text:
        heard = text.read()
    os.waitpid(pid, 0)
    folder.rmdir()
    if heard.startswith("UnavailableError: cannot start a"):
        pytest.skip(f"another user may not run this interpreter: {heard}")
    assert heard == "1000 exited 7"


def _as_a_user(folder: Path) -> bytes:
    os.setgroups([])
    os.setresgid(65534, 65534, 65534)
    os.setresuid(65534, 65534, 65534)
    from leasehold_bubblewrap import engine

    engine.known.cache_clear()
    # A virtual environment below root's home is out of our reach now.
    found = (sys.executable, "/usr/local/bin/python3", "/usr/bin/python3")
    sys.executable = next((one for one in found if os.access(one, os.X_OK)), sys.executable)
    root = folder / "root"
    world = Fenced(root, provider(root))
    try:
        done = world.shell("id -u; : >file; unshare -U true 2>/dev/null || exit 7")
        assert done.exit is not None
        cause = done.exit.cause
        assert cause is ExitCause.EXITED
        return done.stdout.strip() + f" {cause} {done.exit.code}".encode()
    finally:
        world.destroy()
        world.provider.close()
        root.rmdir()
