"""A container's life: adopted, reused, left alone, ended by itself; engines that die."""

import io
import os
import signal
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

import docker.errors
import pytest

from engines.box import DEPLOYMENT, TTL, Box, budget, until
from engines.daemons import IMAGE, Running, run_docker
from leasehold.provider import (
    Acquired,
    Budget,
    ConfigRejectedError,
    ExecutionState,
    ExitCause,
    HealthState,
    ProviderError,
    ReleaseMode,
    SandboxState,
    SettledState,
    UnavailableError,
)
from services import MissingServiceError, missing

pytestmark = pytest.mark.timeout(180)


def test_the_container_says_whose_it_is(box: Box) -> None:
    labels = box.seen()["Config"]["Labels"]
    assert labels["leasehold.deployment"] == DEPLOYMENT
    assert labels["leasehold.lease"] == "lease-1"
    assert labels["leasehold.number"] == "7"
    assert box.sandbox is not None
    assert labels["leasehold.incarnation"] == box.sandbox.handle["incarnation"]


def test_reuse_stops_and_starts_the_same_container(box: Box) -> None:
    before = box.seen()["Id"]
    box.run("echo kept >file; echo kept >~/file; echo lost >/tmp/file")
    box.release(ReleaseMode.SUSPEND)
    assert not box.seen()["State"]["Running"]
    assert box.provider.inspect(box.target, budget=budget()).state is SandboxState.STOPPED
    box.fence += 1
    assert box.acquire(resume=True).outcome is Acquired.RESUMED
    assert box.seen()["Id"] == before
    assert box.run("cat file ~/file; ls /tmp")[1] == "kept\nkept\n"


def test_a_suspension_does_not_wait_for_anybody(box: Box) -> None:
    box.start("one", "trap '' TERM; echo up; while :; do sleep 1; done")
    box.said("one", b"up")
    box.release(ReleaseMode.SUSPEND)
    exit_code = box.seen()["State"]["ExitCode"]
    assert exit_code == 0, "process 1 heeded TERM; it was not killed after a grace"


def test_a_foreign_container_with_our_name_is_never_touched(
    engine: Running, tmp_path: Path
) -> None:
    box = Box(engine, tmp_path / "root")
    box.acquire()
    name, api = box.name, engine.api()
    box.release()
    theirs = api.create_container(
        image=IMAGE, name=name, entrypoint=["sleep", "1000"],
        labels={"leasehold.deployment": "another", "leasehold.lease": "lease-1"},
    )["Id"]  # fmt: skip
    try:
        api.start(theirs)
        with pytest.raises(UnavailableError, match="not ours"):
            box.acquire()
        box.end()
        assert api.inspect_container(theirs)["State"]["Running"]
        assert list(box.another().list_owned("another-one", config={}, budget=budget())) == []
    finally:
        api.remove_container(theirs, force=True)
        api.close()


def test_a_root_that_was_wiped_leaves_nothing_behind(box: Box, tmp_path: Path) -> None:
    name = box.name
    box.directory.rename(tmp_path / "elsewhere")
    owned = list(box.provider.list_owned(DEPLOYMENT, config={}, budget=budget()))
    assert [(one.lease_id, one.lease_number) for one in owned] == [("lease-1", 7)]
    assert owned[0].age_s < 300
    box.release()
    api = box.engine.api()
    with pytest.raises(docker.errors.NotFound):
        api.inspect_container(name)
    api.close()


def test_a_container_that_somebody_removed_is_gone(box: Box) -> None:
    api = box.engine.api()
    box.start("one", "echo up; sleep 60")
    box.said("one", b"up")
    api.remove_container(box.name, force=True)
    api.close()
    exit_ = box.wait("one").exit
    assert exit_ is not None
    assert (exit_.cause, exit_.signal) == (ExitCause.SIGNALLED, 9)
    assert box.provider.inspect(box.target, budget=budget()).state is SandboxState.GONE
    with pytest.raises(ProviderError, match="lease-1"):
        box.start("two", "true")


def test_process_1_keeps_the_time_to_live_with_everyone_gone(box: Box) -> None:
    box.start("one", "echo up; sleep 600")
    box.said("one", b"up")
    # Nobody is left outside: supervisor, its watchdog and the stand-in.
    place = str(box.directory / "ctl/x/one").encode()
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit() and int(folder.name) != os.getpid():
            try:
                line = (folder / "cmdline").read_bytes()
            except OSError:
                continue
            if place in line:
                os.kill(int(folder.name), signal.SIGKILL)
    box.provider.renew(box.target, fence=1, ttl=timedelta(seconds=1), budget=budget())
    # Process 1 sleeps until the deadline that it knew; a start shows it the new one.
    api = box.engine.api()
    api.kill(box.name, signal="USR1")
    api.close()
    until(lambda: not box.seen()["State"]["Running"], "the container ended by itself")
    assert box.seen()["State"]["ExitCode"] == 75
    assert box.settle("one").state is SettledState.LOST


def test_a_renewed_container_outlives_its_first_time(engine: Running, tmp_path: Path) -> None:
    box = Box(engine, tmp_path / "root")
    box.acquire(ttl=timedelta(seconds=2))
    box.provider.renew(box.target, fence=1, ttl=TTL, budget=budget())
    # Longer than the first time and process 1's three seconds.
    assert box.run("sleep 6; echo there")[1] == "there\n"
    assert box.seen()["State"]["Running"]
    box.end()


def test_an_image_that_is_not_there_is_named(make_box: Callable[..., Box]) -> None:
    with pytest.raises(ConfigRejectedError, match=r"localhost/nothing:1 is not on this host"):
        make_box(image="localhost/nothing:1", pull="never")


def test_a_registry_that_does_not_answer_is_told_with_the_image(
    make_box: Callable[..., Box],
) -> None:
    with pytest.raises(UnavailableError, match=r"127\.0\.0\.1:9/nothing:1 cannot be fetched"):
        make_box(image="127.0.0.1:9/nothing:1")


def test_the_probe_tells_what_is_there(box: Box, tmp_path: Path) -> None:
    health = box.provider.probe({}, budget=budget())
    assert health.state is HealthState.HEALTHY
    assert box.engine.socket in health.summary
    nowhere = Box(
        Running("none", str(tmp_path / "no.sock"), [], tmp_path), tmp_path / "none"
    ).provider
    assert nowhere.probe({}, budget=budget()).state is HealthState.UNDETECTED
    with pytest.raises(UnavailableError, match=r"no\.sock"):
        list(nowhere.list_owned(DEPLOYMENT, config={}, budget=budget()))


def test_a_beat_asks_the_engine_nothing(box: Box) -> None:
    box.start("one", "echo up; sleep 60")
    box.said("one", b"up")
    assert box.engine.child is not None
    os.kill(box.engine.child.pid, signal.SIGSTOP)
    try:
        # An engine that does not answer: whoever asked it would wait.
        quick = Budget(5)
        assert box.look("one").state is ExecutionState.RUNNING
        box.provider.renew(box.target, fence=1, ttl=TTL, budget=quick)
        put = io.BytesIO(b"data")
        box.provider.put(box.target, "f", put, fence=1, tree=False, mode=0o644, budget=quick)
        assert box.cancel("one").exit is not None
        assert quick.left_s() > 0
    finally:
        os.kill(box.engine.child.pid, signal.SIGCONT)


# ---- engines that die ---------------------------------------------------------------------


def test_a_podman_service_that_is_killed_disturbs_no_command(
    podman_engine: Running, tmp_path: Path
) -> None:
    box = Box(podman_engine, tmp_path / "root")
    survives(box)
    box.end()


def test_a_docker_engine_with_live_restore_disturbs_no_command(tmp_path: Path) -> None:
    try:
        with run_docker(arguments=("--live-restore",)) as engine:
            box = Box(engine, tmp_path / "root")
            survives(box)
            box.end()
    except MissingServiceError as error:
        missing(error)


def survives(box: Box) -> None:
    box.acquire()
    box.start("one", "echo before; until [ -e go ]; do sleep 0.05; done; echo after; exit 9")
    box.said("one", b"before")
    box.engine.kill()
    with pytest.raises(UnavailableError):
        box.provider.inspect(box.target, budget=budget())
    assert box.look("one").state is ExecutionState.RUNNING
    box.provider.renew(box.target, fence=1, ttl=TTL, budget=budget())
    box.engine.start()
    go = io.BytesIO()
    box.provider.put(box.target, "go", go, fence=1, tree=False, mode=0o644, budget=budget())
    polled = box.wait("one")
    assert polled.exit is not None
    assert (polled.exit.code, polled.stdout) == (9, b"before\nafter\n")
    assert box.provider.inspect(box.target, budget=budget()).state is SandboxState.READY
    assert box.run("echo next")[1] == "next\n"


def test_without_live_restore_a_command_that_was_killed_is_told_as_killed(
    tmp_path: Path,
) -> None:
    try:
        with run_docker() as engine:
            box = Box(engine, tmp_path / "root")
            box.acquire()
            box.start("one", "echo before; sleep 600")
            box.said("one", b"before")
            engine.restart()
            polled = box.wait("one")
            assert polled.exit is not None
            assert (polled.exit.cause, polled.exit.signal) == (ExitCause.SIGNALLED, 9)
            assert polled.stdout == b"before\n"
            assert box.provider.inspect(box.target, budget=budget()).state is (
                SandboxState.STOPPED
            )
            box.fence += 1
            assert box.acquire(resume=True).outcome is Acquired.RESUMED
            assert box.run("echo again")[1] == "again\n"
            box.end()
    except MissingServiceError as error:
        missing(error)
