"""What a command behind bubblewrap sees and reaches: its own world, nothing of the host's."""

import io
import os
import socket
import tarfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from bubblewrap_world import Fenced, provider, require_bubblewrap
from leasehold.provider import ConfigRejectedError, ExecutionState, ExitCause
from leasehold_bubblewrap import mounts
from leasehold_local import processes
from local_world import budget, until


@pytest.fixture
def world(tmp_path: Path) -> Iterator[Fenced]:
    require_bubblewrap()
    found = Fenced(tmp_path / "root", provider(tmp_path / "root"))
    yield found
    found.end()


def ended_with(world: Fenced, script: str) -> tuple[ExitCause, int | None, int | None]:
    record = world.shell(script).exit
    assert record is not None
    return record.cause, record.code, record.signal


def test_a_command_sees_only_the_processes_of_its_own_sandbox(world: Fenced) -> None:
    world.start("other", "sleep", "1000")
    world.wait_running("other")
    seen = world.said("cd /proc; for p in [0-9]*; do tr '\\0' ' ' <$p/cmdline; echo; done")
    words = [line.split()[0] for line in seen.splitlines() if line.strip()]
    assert set(words) <= {"bwrap", "cat", "sh", "tr", "/bin/sh"}, seen
    assert "1000" not in seen


def test_the_workers_variables_are_out_of_reach(
    world: Fenced, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LEASEHOLD_CANARY", "of the host")
    seen = world.said("env; cat /proc/*/environ | tr '\\0' '\\n'")
    assert "of the host" not in seen
    assert f"HOME={mounts.HOME}" in seen.splitlines()


def test_the_hosts_files_are_not_there(world: Fenced, tmp_path: Path) -> None:
    secret = tmp_path / "store.db"
    secret.write_text("the store")
    assert world.shell(f"cat {secret}").exit.code == 1  # type: ignore[union-attr]  # it has ended
    top = set(world.said("ls -A /").split())
    assert top <= {
        *("bin", "dev", "etc", "home", "lib", "lib32", "lib64", "libx32", "proc", "run"),
        *("sbin", "tmp", "usr", "var", "work"),
    }
    assert "root:" in Path("/etc/shadow").read_text(), "the host has one"
    assert world.shell("cat /etc/shadow").exit.code == 1  # type: ignore[union-attr]  # as above


def test_the_supervisors_directory_is_nowhere(world: Fenced) -> None:
    found = world.said(
        "find / -xdev \\( -name label.json -o -name ctl -o -name 'lease-*' \\) "
        "-not -path '/proc/*' 2>/dev/null; find /work /home -name go"
    )
    assert found == ""


def test_a_command_is_nobody_and_cannot_become_somebody(world: Fenced) -> None:
    seen = world.said("id -u; grep -E '^(Cap|NoNewPrivs|Seccomp:)' /proc/self/status")
    lines = dict(line.split(":\t") for line in seen.splitlines()[1:])
    assert seen.splitlines()[0] == "1000"
    assert {lines[f"Cap{kind}"] for kind in ("Inh", "Prm", "Eff", "Bnd", "Amb")} == {"0" * 16}
    assert (lines["NoNewPrivs"], lines["Seccomp"]) == ("1", "2")
    assert "ermitted" in world.said("unshare -U true")
    assert world.shell("mount -t tmpfs none /tmp").exit.code != 0  # type: ignore[union-attr]  # as above


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give commands another uid")
def test_roots_commands_are_not_root_on_the_host_either(world: Fenced) -> None:
    world.start("one", "sleep", "1000")
    world.wait_running("one")
    until(lambda: _uid_of(b"sleep\x001000\x00") is not None, "it runs")
    assert _uid_of(b"sleep\x001000\x00") == 65534
    assert world.said("touch made; stat -c %u made").strip() == "1000"


def _uid_of(line: bytes) -> int | None:
    for pid in processes.table():
        try:
            if Path(f"/proc/{pid}/cmdline").read_bytes() == line:
                return Path(f"/proc/{pid}").stat().st_uid
        except OSError:
            continue
    return None


def test_without_the_filter_only_if_it_is_asked_for(world: Fenced) -> None:
    world.config = {"seccomp": False}
    assert "Seccomp:\t0" in world.said("grep Seccomp: /proc/self/status")
    assert "ermitted" not in world.said("unshare -U true"), "the limit of namespaces refuses it"
    assert world.shell("unshare -U true").exit.code != 0  # type: ignore[union-attr]  # as above


def test_there_is_no_network_unless_it_is_asked_for(world: Fenced) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        script = f"exec 3<>/dev/tcp/127.0.0.1/{port}"
        done = world.run("closed", "bash", "-c", script)
        assert done.exit is not None
        assert done.exit.code == 1
        assert world.said("ls /sys 2>&1; sed -n 's/:.*//p' /proc/net/dev").split()[-1] == "lo"
        world.config = {"network": "full"}
        assert world.target is not None
        world.target = world.acquire()
        done = world.run("open", "bash", "-c", script)
        assert done.exit is not None
        assert done.exit.code == 0


def test_nothing_outside_of_its_own_directories_can_be_written(world: Fenced) -> None:
    for path in ("/x", "/usr/x", "/etc/x", "/dev/x", "/var/x", "/home/x", "/proc/sys/kernel/x"):
        assert world.shell(f": >{path}").exit.code != 0, path  # type: ignore[union-attr]  # as above
    for path in ("/work/x", "/tmp/x", "/home/sandbox/x", "/dev/shm/x", "/dev/null"):
        assert world.shell(f": >{path}").exit.code == 0, path  # type: ignore[union-attr]  # as above


def test_what_is_in_tmp_is_private_to_one_command_and_small(world: Fenced) -> None:
    world.config = {"tmp_mb": 4}
    seen = world.said("ls -A /tmp; head -c 8M /dev/zero >/tmp/big; stat -c %s /tmp/big")
    assert "No space" in seen
    assert seen.split()[0] == str(4 * 1024 * 1024)
    assert world.said("ls -A /tmp /var/tmp") == "/tmp:\n\n/var/tmp:\n"


def test_directories_stay_from_one_command_to_the_next(world: Fenced) -> None:
    world.shell("echo kept >file; echo too >~/file")
    assert world.said("cat file ~/file") == "kept\ntoo\n"


def test_a_command_that_kills_all_it_can_see_has_only_killed_itself(world: Fenced) -> None:
    assert ended_with(world, "kill -9 2; sleep 1000") == (ExitCause.SIGNALLED, None, 9)
    assert ended_with(world, "kill -9 -1; sleep 1000") == (ExitCause.SIGNALLED, None, 9)
    assert ended_with(world, "kill -9 $PPID; exit 3")[1:] in {(None, 9), (3, None)}
    assert ended_with(world, "exit 137") == (ExitCause.EXITED, 137, None)


def test_an_exit_cannot_be_forged(world: Fenced) -> None:
    script = (
        "for f in /proc/[12]/fd/* /proc/$$/fd/*; do echo forged >$f; done 2>/dev/null;"
        "mkdir -p ctl/x/one; ln -s 'exited 0 - 0 0 0 0 1' ctl/x/one/exit;"
        "ln -s 'exited 0 - 0 0 0 0 1' exit; echo ready; exec sleep 1000"
    )
    world.start("one", "sh", "-c", script)
    world.wait_output("one", b"ready")
    assert world.look("one").state is ExecutionState.RUNNING
    settled = world.cancel("one")
    assert settled.exit is not None
    assert settled.exit.cause is ExitCause.CANCELLED


def test_no_secret_is_in_a_process_that_is_not_the_commands(world: Fenced) -> None:
    world.start("one", "sh", "-c", "echo ready; sleep 1000", env={"TOKEN": "s3cret-of-one"})
    world.wait_output("one", b"ready")
    holders = []
    for pid in processes.table():
        try:
            folder = Path(f"/proc/{pid}")
            shown = (folder / "environ").read_bytes() + (folder / "cmdline").read_bytes()
        except OSError:
            continue
        if b"s3cret-of-one" in shown:
            holders.append((folder / "cmdline").read_bytes().split(b"\0")[0])
    assert set(holders) == {b"sh", b"sleep"}


def test_a_link_made_meanwhile_leads_no_put_out(world: Fenced, tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    outside.chmod(0o777)
    world.shell(f"mkdir tree; ln -s {outside} tree/dir")
    archive = io.BytesIO()
    with tarfile.open(fileobj=archive, mode="w") as tar:
        tar.addfile(tarfile.TarInfo("dir/evil"), io.BytesIO())
    archive.seek(0)
    with pytest.raises(ConfigRejectedError):
        world.provider.put(
            world.meant(), "tree", archive, fence=1, tree=True, mode=0, budget=budget()
        )
    assert list(outside.iterdir()) == []


def test_what_is_put_belongs_to_the_command(world: Fenced) -> None:
    world.provider.put(
        world.meant(), "a/b", io.BytesIO(b"x"), fence=1, tree=False, mode=0o600, budget=budget()
    )
    assert world.said("echo y >>a/b; cat a/b; touch a/c; stat -c %u a a/b").split() == [
        *("xy", "1000", "1000"),
    ]


def test_other_directories_are_shown_read_only_where_they_are_asked_for(
    world: Fenced, tmp_path: Path
) -> None:
    shown = Path("/opt") if Path("/opt").is_dir() else Path("/srv")
    world.config = {"ro_binds": [str(shown)]}
    assert world.shell(f"test -d {shown} && ! touch {shown}/x").exit.code == 0  # type: ignore[union-attr]  # as above
    world.target = None
    world.config = {"ro_binds": [str(tmp_path / "no-such")]}
    world.target = world.acquire()
    with pytest.raises(ConfigRejectedError, match="not there"):
        world.start("late", "true")
