"""Sandboxes of the local provider: made once, fenced, listed from labels, gone when gone."""

import os
import signal
import threading
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

import leasehold_local
from leasehold.provider import (
    HANDLE_MAX_BYTES,
    Acquired,
    ConfigRejectedError,
    Containment,
    Enforcement,
    ExecutionState,
    HealthState,
    LeaseRef,
    ReleaseMode,
    SandboxGoneError,
    SandboxState,
    SettledState,
    StaleFenceError,
    Target,
    UnavailableError,
)
from leasehold_local import layout, processes
from leasehold_local.provider import look_around
from local_world import (
    BARE,
    DEPLOYMENT,
    TTL,
    World,
    budget,
    lease,
    processes_of,
    provider,
    until,
)


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    found = World(tmp_path / "root", provider(tmp_path / "root"))
    yield found
    found.end()


def release(world: World, target: Target, mode: ReleaseMode, fence: int = 1) -> None:
    world.provider.release(target, fence=fence, mode=mode, budget=budget())


def test_a_sandbox_is_private_and_carries_its_label(world: World) -> None:
    target = world.acquire()
    assert world.path.stat().st_mode & 0o777 == 0o700
    label = layout.read_label(str(world.path))
    assert label is not None
    assert (label.lease, label.number, label.deployment) == ("lease-1", 1, DEPLOYMENT)
    assert len(str(target.handle)) < HANDLE_MAX_BYTES
    assert target.handle["v"] == 1


def test_eight_acquires_of_one_lease_make_one_sandbox(world: World) -> None:
    outcomes: list[Acquired] = []
    handles: list[Any] = []

    def acquire() -> None:
        sandbox = world.provider.acquire(
            lease(), {}, known=None, ttl=TTL, fence=1, budget=budget()
        )
        outcomes.append(sandbox.outcome)
        handles.append(sandbox.handle)

    threads = [threading.Thread(target=acquire) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(outcomes) == [Acquired.ADOPTED] * 7 + [Acquired.CREATED]
    assert all(handle == handles[0] for handle in handles)


def test_a_known_sandbox_is_resumed_with_its_files(world: World) -> None:
    target = world.acquire()
    (world.path / "work/kept").write_text("x")
    release(world, target, ReleaseMode.SUSPEND)
    again = world.provider.acquire(
        lease(), {}, known=target.handle, ttl=TTL, fence=2, budget=budget()
    )
    assert again.outcome is Acquired.RESUMED
    assert again.handle == target.handle
    assert (Path(again.remote_cwd) / "kept").read_text() == "x"


def test_a_known_sandbox_that_is_gone_is_not_made_anew(world: World) -> None:
    target = world.acquire()
    world.destroy()
    with pytest.raises(SandboxGoneError):
        world.provider.acquire(
            lease(), {}, known=target.handle, ttl=TTL, fence=2, budget=budget()
        )
    assert world.provider.inspect(target, budget=budget()).state is SandboxState.GONE
    for mode in (ReleaseMode.SUSPEND, ReleaseMode.KEEP):
        with pytest.raises(SandboxGoneError):
            release(world, target, mode)
    release(world, target, ReleaseMode.DESTROY)


def test_destroying_an_old_incarnation_leaves_the_new_one(world: World) -> None:
    old = world.acquire()
    world.destroy()
    new = world.acquire()
    assert old.handle != new.handle
    release(world, old, ReleaseMode.DESTROY, fence=9)
    assert world.provider.inspect(new, budget=budget()).state is SandboxState.READY
    assert world.provider.inspect(old, budget=budget()).state is SandboxState.GONE


def test_an_old_fence_changes_nothing(world: World) -> None:
    target = world.acquire()
    world.provider.seize(target, fence=5, budget=budget())
    late: list[Any] = [
        lambda: world.provider.seize(target, fence=4, budget=budget()),
        lambda: world.provider.renew(target, fence=4, ttl=TTL, budget=budget()),
        lambda: release(world, target, ReleaseMode.SUSPEND, fence=4),
        lambda: release(world, target, ReleaseMode.KEEP, fence=4),
    ]
    for call in late:
        with pytest.raises(StaleFenceError):
            call()
    assert layout.current_fence(str(world.path)) == 5


def test_a_stale_destroy_ends_nothing(world: World) -> None:
    world.start("e1", "sleep", "1000")
    world.wait_running("e1")
    world.provider.seize(world.meant(), fence=5, budget=budget())
    with pytest.raises(StaleFenceError):
        release(world, world.meant(), ReleaseMode.DESTROY, fence=4)
    assert world.look("e1").state is ExecutionState.RUNNING


def test_of_forty_racing_fences_the_highest_stands(world: World) -> None:
    target = world.acquire()
    refused: list[int] = []

    def seize(fence: int) -> None:
        try:
            world.provider.seize(target, fence=fence, budget=budget())
        except StaleFenceError:
            refused.append(fence)

    threads = [threading.Thread(target=seize, args=(fence,)) for fence in range(2, 42)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert layout.current_fence(str(world.path)) == 41
    assert 41 not in refused
    # Lower names may be left by a racer that came between; the highest is what counts.
    assert max(os.listdir(world.path / "ctl/fence")) == layout.fence_name(41)


def test_renewing_pushes_the_end_and_never_resurrects(world: World) -> None:
    target = world.acquire(ttl=timedelta(seconds=0.05))
    until(
        lambda: world.provider.inspect(target, budget=budget()).state is SandboxState.STOPPED,
        "its time is over",
    )
    with pytest.raises(SandboxGoneError, match="time to live"):
        world.provider.renew(target, fence=1, ttl=TTL, budget=budget())
    with pytest.raises(SandboxGoneError, match="time to live"):
        world.start("e1", "true")
    world.acquire()
    seen = world.provider.renew(target, fence=1, ttl=timedelta(hours=1), budget=budget())
    left = world.provider.inspect(target, budget=budget()).expires_in_s
    assert seen.expires_in_s == 3600
    assert left is not None
    assert 3500 < left <= 3600


def test_a_supervisor_that_was_stopped_waits_for_one_more_renewal(world: World) -> None:
    world.acquire(ttl=timedelta(seconds=0.4))
    world.start("e1", "sleep", "1000", grace=timedelta(0))
    world.wait_running("e1")
    supervisor = int(world.go("e1")[1])
    os.kill(supervisor, signal.SIGSTOP)
    place = world.path / "ctl/deadline"
    boot, at, _ = place.read_text().split()
    # The supervisor's own alarm was for `at`; by now it has slept far beyond it.
    late = int(at) + 320
    until(lambda: processes.now_cs() > late, "it is late")
    place.write_text(f"{boot} {at} 30000")
    os.kill(supervisor, signal.SIGCONT)
    until(lambda: (processes.stat(supervisor) or (None,))[0] == "S", "it looked and sleeps")
    assert world.look("e1").state is ExecutionState.RUNNING


def test_a_deadline_of_an_earlier_boot_means_nothing(world: World) -> None:
    target = world.acquire()
    (world.path / "ctl/deadline").write_text("another-boot 1 1")
    seen = world.provider.inspect(target, budget=budget())
    assert (seen.state, seen.expires_in_s) == (SandboxState.READY, None)


def test_owned_sandboxes_are_listed_from_labels_alone(world: World) -> None:
    world.acquire()
    other = provider(world.root)
    found = list(other.list_owned(DEPLOYMENT, config={}, budget=budget()))
    assert [(one.lease_id, one.lease_number, one.fence) for one in found] == [("lease-1", 1, 1)]
    assert 0 <= found[0].age_s < 60
    assert list(other.list_owned("another", config={}, budget=budget())) == []
    (world.root / "lease-foreign").mkdir()
    assert len(list(other.list_owned(DEPLOYMENT, config={}, budget=budget()))) == 1
    (world.root / "lease-foreign").rmdir()
    other.close()


def test_what_is_not_ours_is_not_destroyed(world: World) -> None:
    world.root.mkdir()
    world.path.mkdir()
    (world.path / "precious").write_text("x")
    for call in (world.destroy, world.acquire):
        with pytest.raises(UnavailableError):
            call()
    assert (world.path / "precious").read_text() == "x"
    (world.path / "precious").unlink()


def test_a_lease_with_an_odd_id_gets_a_plain_name(world: World) -> None:
    odd = LeaseRef(id="../a b/\n", number=1, deployment=DEPLOYMENT)
    sandbox = world.provider.acquire(odd, {}, known=None, ttl=TTL, fence=1, budget=budget())
    assert Path(sandbox.sandbox_id).parent == world.root
    target = Target(lease=odd, handle=sandbox.handle, config={})
    release(world, target, ReleaseMode.DESTROY)


def test_destroy_ends_every_command_and_removes_odd_files(world: World) -> None:
    world.start("e1", "sh", "-c", "mkdir -p d/e; touch d/e/f; chmod 0 d/e d; echo; sleep 1000")
    world.start("e2", "sh", "-c", "trap '' TERM; echo; while :; do sleep 1; done")
    for name in ("e1", "e2"):
        world.wait_output(name, b"\n")
    world.destroy()
    assert processes_of(world.root) == []
    assert not world.path.exists()
    world.destroy()


def test_an_execution_of_an_earlier_boot_without_go_is_lost_and_never_started_again(
    world: World,
) -> None:
    world.acquire()
    place = world.path / "ctl/x/e1"
    place.mkdir()
    (place / "boot").symlink_to("another-boot")
    assert world.look("e1").state is ExecutionState.UNCLEAR
    world.start("e1", "true")
    assert world.settle("e1").state is SettledState.LOST
    assert world.settle("e1").state is SettledState.LOST


def test_a_command_of_an_earlier_boot_is_lost_without_killing_anybody(world: World) -> None:
    world.acquire()
    place = world.path / "ctl/x/e1"
    place.mkdir()
    (place / "boot").symlink_to("another-boot")
    ours = processes.stat(os.getpid())
    assert ours is not None
    who = f"{os.getpid()} {ours.began}"
    (place / "go").symlink_to(f"run {who} {who} another-boot {processes.pid_namespace()} -")
    assert world.look("e1").state is ExecutionState.UNCLEAR
    assert world.settle("e1").state is SettledState.LOST


def test_a_pid_that_was_given_away_is_not_taken_for_the_supervisor(world: World) -> None:
    world.start("e1", "sleep", "1000")
    world.wait_running("e1")
    go = world.go("e1")
    os.kill(int(go[1]), signal.SIGKILL)
    until(lambda: world.look("e1").state is ExecutionState.UNCLEAR, "it is dead")
    place = world.path / "ctl/x/e1"
    (place / "go").unlink()
    go[1], go[3] = str(os.getpid()), str(os.getpid())
    (place / "go").symlink_to(" ".join(go))
    assert world.look("e1").state is ExecutionState.UNCLEAR
    assert world.settle("e1").state is SettledState.LOST


@pytest.mark.parametrize(
    ("config", "path"),
    [
        ({"memory": 1}, "memory"),
        ({"memory_mb": 0}, "memory_mb"),
        ({"nofile": "many"}, "nofile"),
        ({"nofile": True}, "nofile"),
        ({"env": {"a b": "x"}}, "env"),
        ({"env": {"A": 1}}, "env.A"),
        ({"env": []}, "env"),
        ({"reuse_lease": "yes"}, "reuse_lease"),
    ],
)
def test_a_wrong_config_is_refused_with_its_place(
    world: World, config: dict[str, Any], path: str
) -> None:
    result = world.provider.validate(config, budget=budget())
    assert [problem.path for problem in result.problems] == [path]
    with pytest.raises(ConfigRejectedError, match=path):
        world.provider.acquire(lease(), config, known=None, ttl=TTL, fence=1, budget=budget())
    assert not world.path.exists()


def test_a_config_is_completed_with_its_defaults(world: World) -> None:
    result = world.provider.validate({"nofile": 10}, budget=budget())
    assert result.ok
    assert result.config == {"reuse_lease": True, "env": {}, "nofile": 10}


def test_what_this_host_cannot_hold_is_said_and_refused(tmp_path: Path) -> None:
    bare = provider(tmp_path / "root", ground=BARE)
    able = bare.describe().capabilities
    assert able.containment is Containment.SESSION
    assert (able.pids, able.memory) == (Enforcement.NO, Enforcement.BEST_EFFORT)
    assert bare.validate({"pids": 10}, budget=budget()).problems[0].code == "unsupported"
    assert bare.validate({"memory_mb": 10}, budget=budget()).warnings


def test_eight_that_look_around_at_once_see_the_same_host() -> None:
    seen: list[Any] = []
    threads = [
        threading.Thread(target=lambda: seen.append(look_around("leasehold-test")))
        for _ in range(8)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert seen == [seen[0]] * 8


def test_a_pids_limit_holds_where_it_is_offered(world: World) -> None:
    if world.provider.describe().capabilities.pids is not Enforcement.ENFORCED:
        pytest.skip("no writable pids cgroup on this machine")
    world.config = {"pids": 5}
    script = "for i in 1 2 3 4 5 6 7 8; do sleep 30 & done; echo all"
    seen = world.run("e1", "sh", "-c", script)
    assert b"fork" in seen.stderr
    assert b"all" not in seen.stdout


def test_probe_says_what_is_wrong_with_the_root(tmp_path: Path) -> None:
    good = provider(tmp_path / "root")
    assert good.probe({}, budget=budget()).state is HealthState.HEALTHY
    assert not (tmp_path / "root").exists()
    (tmp_path / "file").write_text("x")
    bad = provider(tmp_path / "file" / "root")
    assert bad.probe({}, budget=budget()).state is HealthState.UNHEALTHY


@pytest.mark.parametrize("missing", ["root", "deployment", "host_id"])
def test_a_missing_setting_is_named(tmp_path: Path, missing: str) -> None:
    settings = {"root": str(tmp_path), "deployment": "d", "host_id": "h"}
    del settings[missing]
    with pytest.raises(ConfigRejectedError, match=missing):
        leasehold_local.make(settings)


def test_a_full_disk_is_said_and_retryable(world: World, tmp_path: Path) -> None:
    full = World(tmp_path / "root", provider(Path("/proc/no-such-place/root")))
    with pytest.raises(UnavailableError, match="making the sandbox") as caught:
        full.acquire()
    assert caught.value.retryable
