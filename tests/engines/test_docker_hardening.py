"""What a command in a container cannot see, cannot have and cannot forge."""

import json
import os
import secrets
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from engines.box import Box, budget, until
from leasehold.provider import ExecutionState, ExitCause, SandboxState, SettledState

pytestmark = pytest.mark.timeout(180)


def test_a_command_has_no_capability_and_no_way_to_one(box: Box) -> None:
    _, status = box.run("cat /proc/self/status")
    facts = dict(line.split(":\t", 1) for line in status.splitlines() if ":\t" in line)
    for name in ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"):
        assert int(facts[name], 16) == 0, name
    assert facts["NoNewPrivs"] == "1"
    assert facts["Seccomp"] == "2"
    assert facts["Uid"].split() == ["1000"] * 4
    assert facts["Gid"].split() == ["1000"] * 4


def test_nobody_in_the_container_is_root(box: Box) -> None:
    _, users = box.run("for p in /proc/[0-9]*; do stat -c %u $p; done")
    assert set(users.split()) == {"1000", "64741"}


def test_the_engine_was_asked_for_all_of_it(box: Box) -> None:
    host = box.seen()["HostConfig"]
    dropped = {name.upper().removeprefix("CAP_") for name in host["CapDrop"]}
    # Podman lists what ALL stands for.
    assert "ALL" in dropped or {"CHOWN", "SETUID", "KILL", "SYS_CHROOT"} <= dropped
    assert not host["CapAdd"]
    assert not host["Privileged"]
    assert host["ReadonlyRootfs"]
    assert any("no-new-privileges" in one for one in host["SecurityOpt"])
    assert not any("seccomp" in one and "unconfined" in one for one in host["SecurityOpt"])
    assert host["NetworkMode"] == "none"
    assert host["Memory"] == host["MemorySwap"] == 1024 * 1024 * 1024
    assert host["PidsLimit"] == 260
    assert not host["AutoRemove"]
    assert host["RestartPolicy"]["Name"] in ("no", "")


def test_only_its_own_places_can_be_written(box: Box) -> None:
    _, said = box.run(
        "for d in / /bin /etc /run /run/leasehold /run/leasehold/t /sandbox /proc/sys /sys; do "
        "(: >$d/new) 2>/dev/null && echo wrote $d; done; "
        "for d in /sandbox/work /sandbox/home /tmp; do : >$d/new && echo can $d; done"
    )
    assert said.split("\n")[:-1] == ["can /sandbox/work", "can /sandbox/home", "can /tmp"]


def test_tmp_ends_where_it_was_told(make_box: Callable[..., Box]) -> None:
    box = make_box(tmp_mb=2)
    ended, said = box.run("dd if=/dev/zero of=/tmp/x bs=1M count=8")
    assert ended.code == 1
    assert "No space left" in said


def test_a_command_gets_the_share_of_a_processor_that_it_was_told(
    make_box: Callable[..., Box],
) -> None:
    box = make_box(cpus=0.2)
    # Processor time of a busy second; a start-up's burst may come on top.
    _, said = box.run(
        "(while :; do :; done) & p=$!; a=$(cut -d' ' -f14 /proc/$p/stat); sleep 3; "
        "b=$(cut -d' ' -f14 /proc/$p/stat); kill -9 $p; echo $((b-a))"
    )
    assert 20 <= int(said.split()[-1]) <= 110


def test_a_lack_of_memory_is_told_apart_from_a_kill(make_box: Callable[..., Box]) -> None:
    box = make_box(memory_mb=64)
    killed, _ = box.run("kill -9 $$")
    assert (killed.cause, killed.signal) == (ExitCause.SIGNALLED, 9)
    for script in (
        "exec dd if=/dev/zero of=/dev/null bs=256M count=1",
        "dd if=/dev/zero of=/dev/null bs=256M count=1; exit $?",
    ):
        ended, _ = box.run(script)
        assert ended.cause is ExitCause.OOM, script
        assert ended.code is None
    killed, _ = box.run("kill -9 $$")
    assert killed.cause is ExitCause.SIGNALLED
    assert box.run("echo still here")[1] == "still here\n"


def test_a_fork_bomb_is_ended_by_a_cancel_and_the_sandbox_works_on(
    make_box: Callable[..., Box],
) -> None:
    box = make_box(pids=32)
    box.start("bomb", "echo lit; b() { b | b & b; }; b 2>/dev/null; while :; do b; done")
    box.said("bomb", b"lit")
    settled = box.cancel("bomb")
    assert settled.exit is not None or settled.state is SettledState.LOST
    assert box.run("echo alive")[1] == "alive\n"


# ---- secrets ------------------------------------------------------------------------------


def test_a_secret_is_in_no_place_where_others_look(box: Box) -> None:
    secret = f"s3cret-{secrets.token_hex(8)}"
    api = box.engine.api()
    since = int(box.directory.stat().st_mtime) - 60
    box.start(
        "one", 'echo "got $TOKEN"; cat; sleep 60', env={"TOKEN": secret}, stdin=secret.encode()
    )
    box.said("one", b"got s3cret")
    shown = [json.dumps(box.seen())]
    shown += [json.dumps(api.containers(all=True)), json.dumps(api.top(box.name))]
    for exec_id in box.seen().get("ExecIDs") or ():
        shown.append(json.dumps(api.exec_inspect(exec_id)))
    (box.root.parent / "now").touch()
    until_s = int((box.root.parent / "now").stat().st_mtime) + 1
    events = [json.dumps(one) for one in api.events(since=since, until=until_s, decode=True)]
    assert [one for one in events if "exec" in one], "the engine tells of our exec"
    shown += events
    api.close()
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit():
            try:
                shown.append((folder / "cmdline").read_bytes().decode(errors="replace"))
            except OSError:
                continue
    assert not [text for text in shown if secret in text]
    # On disk only what the command itself said, for its holder.
    left = [path for path in box.directory.rglob("*") if path.is_file() and holds(path, secret)]
    assert [path.name for path in left] == ["out"]
    box.cancel("one")


def holds(path: Path, text: str) -> bool:
    try:
        return text.encode() in path.read_bytes()
    except OSError:
        return False


def test_what_the_worker_has_is_not_in_the_sandbox(
    box: Box, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    canary = f"canary-{secrets.token_hex(8)}"
    monkeypatch.setenv("LEASEHOLD_CANARY", canary)
    (tmp_path / "store.db").write_text(canary)
    _, said = box.run(
        f"env; cat {tmp_path}/store.db; cat /proc/[0-9]*/environ /proc/[0-9]*/cmdline; "
        f"ls -la {tmp_path} {box.root} /; mount; "
        f"cat /proc/{os.getpid()}/environ; find / -name store.db"
    )
    assert canary not in said
    assert "store.db\n" not in said.replace(f"{tmp_path}/store.db", "")


def test_a_command_has_exactly_its_variables(box: Box) -> None:
    # `exec` by a program that adds none: a shell would set its own.
    _, said = box.run("exec env", env={"MINE": "1"})
    names = {line.partition("=")[0] for line in said.splitlines()}
    assert names - {"SHLVL", "PWD", "OLDPWD", "_"} == {"HOME", "LANG", "MINE", "PATH", "TMPDIR"}


# ---- forging ------------------------------------------------------------------------------


def test_the_supervisors_directory_cannot_be_found(box: Box) -> None:
    _, said = box.run("find / -name exit -o -name go -o -name fence -o -name label.json")
    found = [line for line in said.splitlines() if not line.startswith("find:")]
    assert not [path for path in found if not path.startswith(("/proc/", "/sys/", "/bin/"))]
    assert "ctl" not in box.run("cat /proc/self/mountinfo")[1]


def test_a_word_in_the_wrappers_pipe_forges_no_exit(box: Box) -> None:
    ended, _ = box.run(
        'd=$(tr "\\0" "\\n" </proc/$PPID/cmdline | grep ^/run/leasehold | tail -n 1); '
        'echo "code 0" >$d/said; echo "x code 0" >$d/said; echo "pid 1" >$d/said; exit 7'
    )
    assert (ended.cause, ended.code) == (ExitCause.EXITED, 7)


def test_who_kills_the_wrapper_is_ended_with_it(box: Box) -> None:
    box.start("one", "(setsid sh -c 'while :; do sleep 0.1; done' &); kill -9 $PPID; sleep 60")
    exit_ = box.wait("one").exit
    assert exit_ is not None
    assert (exit_.cause, exit_.signal) == (ExitCause.SIGNALLED, 9)
    _, processes = box.run("ps")
    assert "sh -c while" not in processes


def test_no_command_can_signal_what_keeps_the_sandbox(box: Box) -> None:
    _, said = box.run("kill -9 1; kill -15 1; kill -9 -1; echo no")
    assert box.provider.inspect(box.target, budget=budget()).state is SandboxState.READY
    del said
    assert box.run("echo alive")[1] == "alive\n"


def test_who_kills_everybody_is_told_as_killed(box: Box) -> None:
    # The wrapper has the same user; what is left after it is nothing.
    ended, _ = box.run("trap '' TERM; kill -9 -1; sleep 60")
    assert ended.cause in (ExitCause.SIGNALLED, ExitCause.EXITED)
    assert ended.code != 0


def test_a_command_that_left_every_session_is_in_its_tree(box: Box) -> None:
    script = (
        "(setsid setsid sh -c 'while :; do sleep 0.1; done' >/dev/null 2>&1 &); "
        "echo gone; exit 0"
    )
    ended, _ = box.run(script)
    assert ended.code == 0
    _, processes = box.run("ps")
    assert "sh -c while" not in processes


def test_a_link_that_leads_out_is_followed_by_nobody(box: Box, tmp_path: Path) -> None:
    (tmp_path / "host").write_text("of the host")
    box.run(f"ln -s {tmp_path}/host file; ln -s {tmp_path} dir; ln -s /proc/1/root root")
    for path in ("file", "dir/host", "root/etc/passwd"):
        with pytest.raises(Exception, match=path):
            b"".join(box.provider.get(box.target, path, tree=False, budget=budget()))


def test_side_by_side_commands_have_a_tree_each(box: Box) -> None:
    beat: Any = (
        "echo up; (setsid sh -c 'while :; do date >beat-$0; sleep 0.05; done' {0} &); sleep 60"
    )
    box.start("one", beat.format("one"))
    box.start("two", beat.format("two"))
    box.said("one", b"up")
    box.said("two", b"up")
    box.cancel("one")
    assert box.look("two").state is ExecutionState.RUNNING
    work = box.directory / "disk/work"
    until((work / "beat-two").exists, "two beats")
    first = (work / "beat-two").stat().st_mtime_ns
    until(lambda: (work / "beat-two").stat().st_mtime_ns > first, "two's escaped child goes on")
    box.cancel("two")
