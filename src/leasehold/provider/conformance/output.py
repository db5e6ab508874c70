"""Checks: output is bytes, whole up to the cap, and there once the end is seen."""

from contextlib import suppress
from typing import Final

from leasehold.errors import ProviderError
from leasehold.provider.conformance.catalogue import check, posix
from leasehold.provider.conformance.harness import Case, must
from leasehold.provider.contract import Chunk, Command, ExecutionState, Stream

_MIB: Final = 1024 * 1024


def _read(case: Case, offset: int, limit_bytes: int, stream: Stream = Stream.STDOUT) -> Chunk:
    return case.provider.read(
        case.target,
        execution_id="one",
        handle={},
        stream=stream,
        offset=offset,
        limit_bytes=limit_bytes,
        budget=case.budget(),
    )


@check()
def output_is_read_from_any_offset_and_again(case: Case) -> None:
    case.acquire()
    text = "0123456789"
    case.start("one", case.counted("one", text=text))
    done = case.wait("one")
    must(done.stdout == text.encode(), f"all of it: {done}")
    for offset in (0, 3, 9):
        for _ in range(2):
            chunk = _read(case, offset, 4)
            must(chunk.data == text[offset : offset + 4].encode(), f"from {offset}: {chunk}")
            must(chunk.next_offset == offset + len(chunk.data), "the next offset")
            must(chunk.eof == (chunk.next_offset == len(text)), f"the end is told: {chunk}")
    must(_read(case, 10, 4) == Chunk(data=b"", next_offset=10, eof=True), "at the end: nothing")
    must(_read(case, 0, 4, Stream.STDERR).eof, "an empty stream is at its end")
    must(case.poll("one", offset=4, limit_bytes=3).stdout == b"456", "a poll reads as well")
    must(case.poll("one", offset=10).stdout == b"", "and finds no more than there is")


@check()
def a_poll_is_pure(case: Case) -> None:
    case.acquire()
    case.start("one", case.counted("one"))
    case.wait("one")
    first = case.poll("one")
    must(all(case.poll("one") == first for _ in range(3)), "asked again, the same answer")


@check()
def forgotten_output_frees_no_claim(case: Case) -> None:
    case.acquire()
    case.start("one", case.counted("one"))
    case.wait("one")
    for _ in range(2):
        case.provider.forget(
            case.target, fence=case.fence, execution_id="one", handle={}, budget=case.budget()
        )
    case.start("one", case.counted("one"))
    must(case.starts("one") == 1, "what was forgotten is not started again")


@check()
def what_runs_is_not_forgotten(case: Case) -> None:
    case.acquire()
    case.start("one", case.counted("one", seconds=0.3))
    case.running("one")
    with suppress(ProviderError):
        case.provider.forget(
            case.target, fence=case.fence, execution_id="one", handle={}, budget=case.budget()
        )
    must(case.wait("one").stdout == b"out", "what it said before is still there")


@check(posix)
def output_may_be_any_bytes(case: Case) -> None:
    case.acquire()
    every = bytes(range(256)) * 300
    must(case.run("cat", stdin=every).stdout == every, "binary")
    half = "→".encode()[:2]
    done = case.run_command(case.shell("cat; cat >&2 <none; printf err >&2", stdin=half))
    must(done.stdout == half, "half a character")
    must(done.stderr.endswith(b"err"), "each stream for itself")
    text = "grün → 木\n".encode()
    must(case.run("cat", stdin=text).stdout == text, "utf-8")


@check(posix)
def when_the_exit_is_seen_all_output_is_there(case: Case) -> None:
    case.acquire()
    for number in range(6):
        name = f"burst{number}"
        script = 'i=0; while [ $i -lt 300 ]; do echo "line $i"; i=$((i+1)); done; printf end'
        case.start(name, case.shell(script))
        while (polled := case.poll(name)).state is not ExecutionState.EXITED:
            must(polled.error is None, f"{polled.error}")
        out = case.ended(name).stdout
        must(out.endswith(b"line 299\nend"), f"{name} ends with {out[-20:]!r}")
        must(len(out.splitlines()) == 301, f"{name} has all its lines")  # noqa: PLR2004  300 and the end


@check(posix)
def output_can_be_followed_while_it_comes(case: Case) -> None:
    case.acquire()
    script = "echo one; until [ -e go ]; do sleep 0.01; done; echo two"
    case.start("one", case.shell(script))
    case.running("one", b"one\n")
    must(case.look("one").state is ExecutionState.RUNNING, "it runs")
    case.run("touch", "go")
    case.wait("one")
    must(case.poll("one", offset=4).stdout == b"two\n", "only what is new")


@check(posix)
def a_hundred_mebibytes_are_cut_at_the_cap(case: Case) -> None:
    case.acquire()
    total, cap = 100 * _MIB, _MIB
    done = case.run_command(
        Command(argv=("head", "-c", str(total), "/dev/zero"), output_cap_bytes=cap)
    )
    must(done.exit.code == 0, f"the command is not disturbed: {done.exit}")
    must(len(done.stdout) == cap, f"{len(done.stdout)} bytes are stored, the cap is {cap}")
    must(
        done.exit.stdout_dropped == total - cap,
        f"{done.exit.stdout_dropped} of {total - cap} bytes are told as dropped",
    )


@check(posix)
def each_stream_has_a_cap_of_its_own(case: Case) -> None:
    case.acquire()
    script = "head -c 5000 /dev/zero; head -c 300 /dev/zero >&2"
    done = case.run_command(case.shell(script, output_cap_bytes=1000))
    sizes = len(done.stdout), len(done.stderr)
    must(sizes == (1000, 300), f"stored: {sizes}")
    dropped = done.exit.stdout_dropped, done.exit.stderr_dropped
    must(dropped == (4000, 0), f"dropped: {dropped}")
