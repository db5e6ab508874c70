"""What a provider made of `run` and the supervisor promises, on a host-process sandbox."""

import io
import os
import tarfile
from collections.abc import Iterator, Sequence
from datetime import timedelta
from pathlib import Path

import pytest

from leasehold.provider import (
    Budget,
    Command,
    ConfigRejectedError,
    DeadlineExceededError,
    ExecutionState,
    ExecutionUnknownError,
    ExitCause,
    InterruptedCallError,
    PollItem,
    ReleaseMode,
    RunResult,
    SettledState,
    StartOutcome,
    Stream,
    Target,
    UnavailableError,
    run_here,
)
from leasehold_fake_plugin.provider import FakePlugin
from supervised import Bench, budget, in_shell, until


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    bench = Bench(tmp_path)
    yield bench
    bench.whole.release(bench.target, fence=10**18, mode=ReleaseMode.DESTROY, budget=budget())
    bench.assert_quiet()


# ---- what a command gets and gives -----------------------------------------------------------


def test_arguments_reach_the_command_byte_for_byte(bench: Bench) -> None:
    odd = [
        "$HOME `id` $(id)",
        "a\nb\n",
        "'\"\\",
        "",
        "*",
        "ü☃",
        "\udcff\udc80",
        "-n",
        "\x01\x81",
    ]
    polled = bench.run("printf", "%s\\0", *odd)
    assert polled.stdout == b"".join(os.fsencode(part) + b"\0" for part in odd)


def test_a_megabyte_of_arguments_and_two_of_input_arrive(bench: Bench) -> None:
    data = os.urandom(2_000_000)
    arguments = ["x" * 100_000] * 10
    body = 'echo "$#" "${#1}"; cat /dev/stdin'
    bench.start(Command(argv=("sh", "-c", body, "sh", *arguments), stdin=data))
    assert bench.ended().stdout == b"10 100000\n" + data


def test_the_environment_is_what_was_given_and_a_safe_rest(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WORKERS_OWN", "secret")
    given = {"x": "ours", "ctl": "too", "MULTI": "a\nb'c", "LANG": "C"}
    lines = bench.run("env", "-0", env=given).stdout.decode().split("\0")
    found = dict(line.split("=", 1) for line in lines if line)
    assert found.items() >= given.items()
    assert set(found) - set(given) == {"PATH", "HOME", "TMPDIR"}
    assert "/usr/local/bin" in found["PATH"].split(":")
    assert not (bench.control / "x/x1/cmd").exists()


def test_a_secret_is_in_no_process_list(bench: Bench) -> None:
    command = bench.counting("sleep 60")
    secret = {"TOKEN": "hunter2-hunter2"}
    bench.start(Command(argv=command.argv, env=secret, stdin=b"hunter2-hunter2"))
    until(lambda: bench.starts() or None)
    for proc in Path("/proc").glob("[0-9]*"):
        try:
            assert b"hunter2" not in (proc / "cmdline").read_bytes()
        except OSError:
            continue
    files = [path for path in (bench.control / "x").rglob("*") if path.is_file()]
    assert files
    assert [path for path in files if path.stat().st_mode & 0o77] == []
    assert [path for path in files if b"hunter2" in path.read_bytes()] == []
    bench.cancel()


def test_a_command_starts_with_default_signals_and_no_stray_files(bench: Bench) -> None:
    polled = bench.run("sh", "-c", "grep SigIgn /proc/self/status; ls /proc/self/fd; umask")
    ignored, *files, mask = polled.stdout.decode().split("\n")[:-1]
    # Bit 31 is signal 32, the C library's own; who started the tests may have set it.
    assert int(ignored.split()[1], 16) & (2**31 - 1) == 0
    # The fourth is the directory that ls reads.
    assert files == ["0", "1", "2", "3"]
    assert mask == "0022"


@pytest.mark.parametrize(
    ("argv", "cause", "code", "signal"),
    [
        (("sh", "-c", "exit 3"), ExitCause.EXITED, 3, None),
        (("sh", "-c", "exit 127"), ExitCause.EXITED, 127, None),
        (("sh", "-c", "exit 137"), ExitCause.EXITED, 137, None),
        (("sh", "-c", "kill -9 $$"), ExitCause.SIGNALLED, None, 9),
        (("sh", "-c", "kill -TERM $$"), ExitCause.SIGNALLED, None, 15),
        (("sh", "-c", "kill -INT $$; sleep 9"), ExitCause.SIGNALLED, None, 2),
        (("no-such-command",), ExitCause.NOT_FOUND, 127, None),
        (("./no-such-command",), ExitCause.NOT_FOUND, 127, None),
        (("/etc/passwd",), ExitCause.NOT_EXECUTABLE, 126, None),
        (("/etc",), ExitCause.NOT_EXECUTABLE, 126, None),
    ],
)
def test_an_end_is_told_apart(
    bench: Bench, argv: Sequence[str], cause: ExitCause, code: int | None, signal: int | None
) -> None:
    end = bench.run(*argv).exit
    assert end
    assert (end.cause, end.code, end.signal) == (cause, code, signal)
    if cause in (ExitCause.EXITED, ExitCause.SIGNALLED):
        assert (end.stdout_bytes, end.stderr_bytes) == (0, 0)


def test_an_interpreter_that_is_missing_is_not_executable(bench: Bench) -> None:
    program = bench.path / "work" / "script"
    program.write_text("#!/no/such/interpreter\n")
    program.chmod(0o755)
    end = bench.run("./script").exit
    assert end
    assert (end.cause, end.code) == (ExitCause.NOT_EXECUTABLE, 126)


@pytest.mark.parametrize("cwd", ["missing", "..", "/etc", "link"])
def test_a_directory_that_is_missing_or_outside_is_an_end_of_its_own(
    bench: Bench, cwd: str
) -> None:
    (bench.path / "work" / "link").symlink_to("/etc")
    bench.start(Command(argv=("true",), cwd=cwd))
    end = bench.ended().exit
    assert end
    assert (end.cause, end.code) == (ExitCause.CWD, None)


def test_a_directory_inside_is_entered(bench: Bench) -> None:
    inside = bench.path / "work" / "a b'c"
    inside.mkdir()
    for number, cwd in enumerate(("a b'c", str(inside))):
        bench.start(Command(argv=("pwd",), cwd=cwd), id_=f"d{number}")
        assert bench.ended(id_=f"d{number}").stdout == os.fsencode(f"{inside}\n")


@pytest.mark.parametrize(
    "command",
    [
        Command(argv=()),
        Command(argv=("a\0b",)),
        Command(argv=("a",), env={"A-B": "x"}),
        Command(argv=("a",), env={"": "x"}),
        Command(argv=("a",), env={"A": "secret\0"}),
        Command(argv=("a",), cwd="\0"),
    ],
)
def test_what_no_kernel_takes_is_refused_without_a_claim(
    bench: Bench, command: Command
) -> None:
    with pytest.raises(ConfigRejectedError) as refused:
        bench.start(command)
    assert "secret" not in str(refused.value)
    assert list((bench.control / "x").iterdir()) == []


# ---- output ----------------------------------------------------------------------------------


def test_output_is_exact_up_to_the_cap_and_the_rest_is_counted(bench: Bench) -> None:
    body = "head -c 3000000 /dev/zero; printf e >&2"
    bench.start(Command(argv=("sh", "-c", body), output_cap_bytes=1_000_001))
    end = bench.ended().exit
    assert end
    assert (end.stdout_bytes, end.stdout_dropped) == (1_000_001, 1_999_999)
    assert (end.stderr_bytes, end.stderr_dropped) == (1, 0)


def test_a_line_can_be_read_while_the_command_goes_on(bench: Bench) -> None:
    bench.start(bench.counting("echo first", "sleep 60"))
    seen = until(lambda: p if (p := bench.poll()).stdout and bench.starts() else None)
    assert (bench.poll().state, seen.stdout) == (ExecutionState.RUNNING, b"first\n")
    assert bench.poll(out=3).stdout == b"st\n"
    assert bench.cancel().exit


def test_reads_are_repeatable_and_know_the_end(bench: Bench) -> None:
    bench.run("printf", "0123456789")

    def read(offset: int, limit: int) -> tuple[bytes, int, bool]:
        chunk = bench.whole.read(
            bench.target,
            execution_id="x1",
            handle={},
            stream=Stream.STDOUT,
            offset=offset,
            limit_bytes=limit,
            budget=budget(),
        )
        return chunk.data, chunk.next_offset, chunk.eof

    assert read(0, 4) == read(0, 4) == (b"0123", 4, False)
    assert read(4, 100) == (b"456789", 10, True)
    assert read(10, 100) == (b"", 10, True)
    bench.whole.forget(bench.target, fence=1, execution_id="x1", handle={}, budget=budget())
    assert bench.start(Command(argv=("true",))).outcome is StartOutcome.ADOPTED
    assert bench.settle().state is SettledState.EXITED


def test_a_process_that_keeps_the_pipe_delays_the_end_by_a_bounded_time(bench: Bench) -> None:
    body = "setsid sh -c 'echo $$; exec sleep 60' & sleep 0.2; echo done"
    polled = bench.run("sh", "-c", body)
    escaped = int(polled.stdout.split()[0])
    assert polled.stdout.endswith(b"done\n")
    os.kill(escaped, 9)


def test_one_poll_of_many_executions_is_one_call(bench: Bench) -> None:
    calls = []

    class Counting(FakePlugin):
        def run(
            self, target: Target, argv: Sequence[str], *, stdin: bytes, budget: Budget
        ) -> RunResult:
            calls.append(argv[5])
            return super().run(target, argv, stdin=stdin, budget=budget)

    for number in range(5):
        bench.start(Command(argv=("printf", f"{number}\nitem x")), id_=f"p{number}")
        bench.ended(id_=f"p{number}")
    items = [
        PollItem(target=bench.target, execution_id=id_, handle={})
        for id_ in ("p0", "p1", "none", "p2", "bad id", "p3", "p4")
    ]
    counting = Counting({"root": str(bench.root / "sandboxes")})
    answers = counting.poll(items, limit_bytes=100, budget=budget())
    assert calls == ["poll"]
    assert [answer.execution_id for answer in answers] == [item.execution_id for item in items]
    assert [a.stdout for a in answers if a.exit] == [b"%d\nitem x" % n for n in range(5)]
    assert isinstance(answers[2].error, ExecutionUnknownError)
    assert isinstance(answers[4].error, ConfigRejectedError)


# ---- the call itself -------------------------------------------------------------------------


def test_a_call_ends_with_its_budget_and_leaves_no_process(tmp_path: Path) -> None:
    with pytest.raises(DeadlineExceededError):
        run_here(["/bin/sh", "-c", "sleep 60"], stdin=b"", budget=Budget(0.2))
    asked = iter([None, "the run is to end"])
    with pytest.raises(InterruptedCallError):
        run_here(
            ["/bin/sh", "-c", "sleep 60"],
            stdin=b"",
            budget=Budget(30, cancelled=lambda: next(asked, "the run is to end")),
        )


def test_an_answer_that_is_cut_short_is_no_state(bench: Bench) -> None:
    class Cut(FakePlugin):
        def run(
            self, target: Target, argv: Sequence[str], *, stdin: bytes, budget: Budget
        ) -> RunResult:
            whole = super().run(target, argv, stdin=stdin, budget=budget)
            return RunResult(255, whole.out[: len(whole.out) // 2], b"connection reset")

    bench.run("printf", "0123456789")
    cut = Cut({"root": str(bench.root / "sandboxes")})
    item = PollItem(target=bench.target, execution_id="x1", handle={})
    answer = cut.poll([item], limit_bytes=100, budget=budget())[0]
    assert (answer.state, answer.exit) == (None, None)
    assert isinstance(answer.error, UnavailableError)
    with pytest.raises(UnavailableError):
        cut.settle(bench.target, fence=1, execution_id="x1", handle={}, budget=budget())


# ---- other shells ----------------------------------------------------------------------------


@pytest.mark.parametrize("shell", ["dash", "bash", "busybox"])
def test_the_supervisor_works_under_this_shell(tmp_path: Path, shell: str) -> None:
    bench = Bench(tmp_path)
    bench.whole = in_shell(tmp_path, shell)
    assert bench.run("sh", "-c", "kill -9 $$", id_="a").exit.signal == 9  # type: ignore[union-attr] # ended
    bench.start(Command(argv=("cat",), stdin=b"\x00\xff" * 1000, output_cap_bytes=999), id_="b")
    end = bench.ended(id_="b").exit
    assert end
    assert (end.code, end.stdout_bytes, end.stdout_dropped) == (0, 999, 1001)
    bench.start(Command(argv=("sleep", "60"), timeout=timedelta(seconds=0.1)), id_="c")
    assert bench.ended(id_="c").exit.cause is ExitCause.TIMEOUT  # type: ignore[union-attr] # ended
    bench.start(bench.counting("sleep 60"), id_="d")
    until(lambda: bench.starts() or None)
    assert bench.cancel(id_="d").state is SettledState.EXITED
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w") as tar:
        tar.add(__file__, "a b/f")
    stream.seek(0)
    bench.whole.put(bench.target, "t", stream, fence=1, tree=True, mode=0, budget=budget())
    back = b"".join(bench.whole.get(bench.target, "t/a b/f", tree=False, budget=budget()))
    assert back == Path(__file__).read_bytes()
    bench.whole.release(bench.target, fence=2, mode=ReleaseMode.DESTROY, budget=budget())
    bench.assert_quiet()
