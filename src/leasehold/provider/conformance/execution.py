"""Checks: a command gets exactly what it was given, and its end is told as it was."""

import os
from dataclasses import replace
from typing import Final

from leasehold.errors import ConfigRejectedError
from leasehold.provider.conformance.catalogue import check, no_network, posix
from leasehold.provider.conformance.harness import Case, ConformanceError, Done, must
from leasehold.provider.contract import Command, ExitCause

_OWN: Final = frozenset({"PATH", "HOME", "LANG", "TMPDIR"})
_SHELLS: Final = frozenset({"PWD", "OLDPWD", "SHLVL", "_"})
_MIB: Final = 1024 * 1024
_REFUSED: Final = (
    "LD_PRELOAD", "LD_LIBRARY_PATH", "LD_AUDIT", "GCONV_PATH", "LOCPATH", "MALLOC_TRACE",
    "BASH_ENV", "ENV", "BASH_FUNC_ls", "SHELLOPTS", "BASHOPTS", "IFS", "PS4",
)  # fmt: skip


def _is(done: Done, cause: ExitCause, code: int | None, signal: int | None = None) -> None:
    got = done.exit
    must(
        (got.cause, got.code, got.signal) == (cause, code, signal),
        f"expected {cause} {code} {signal}, got {got}, it said {done.stderr[-200:]!r}",
    )


@check(posix)
def an_exit_code_is_told_as_it_was(case: Case) -> None:
    case.acquire()
    for code in (0, 1, 3, 126, 127, 255):
        done = case.run_command(case.shell(f"exit {code}"))
        must(done.exit.code == code, f"exit {code} was told as {done.exit}")
        if code not in {126, 127}:
            _is(done, ExitCause.EXITED, code)


@check(posix)
def a_signal_is_told_as_a_signal(case: Case) -> None:
    case.acquire()
    for number in (9, 15, 10):
        done = case.run_command(case.shell(f"kill -{number} $$; sleep 5"))
        _is(done, ExitCause.SIGNALLED, None, number)


@check(posix)
def a_missing_command_is_127(case: Case) -> None:
    case.acquire()
    _is(case.run("no-such-command-anywhere"), ExitCause.NOT_FOUND, 127)
    _is(case.run("./no/such/file"), ExitCause.NOT_FOUND, 127)


@check(posix)
def a_command_that_is_not_executable_is_126(case: Case) -> None:
    case.acquire()
    case.run_command(case.shell("echo text >plain; chmod 644 plain"))
    _is(case.run("./plain"), ExitCause.NOT_EXECUTABLE, 126)


@check(posix)
def words_are_not_interpreted(case: Case) -> None:
    case.acquire()
    words = (
        "a b", "$HOME", "`id`", "$(id)", "*", "~", "'", '"', "\\", "a\nb", "ünï→", "",
        ";ls", "-e", "%s", "&&", "|", ">x", "!1", "{a,b}", "\t", "#c", "\x01\x7f",
    )  # fmt: skip
    done = case.run("printf", "[%s]\\n", *words)
    must(done.stdout.decode() == "".join(f"[{word}]\n" for word in words), f"got {done}")


@check(posix)
def long_words_and_many_words_arrive(case: Case) -> None:
    case.acquire()
    one = case.run("printf", "%s", "x" * 100_000)
    must(one.stdout == b"x" * 100_000, f"one long word: {one.exit} {one.stderr[:200]!r}")
    many = [f"word-{number}-{'y' * 80}" for number in range(1000)]
    done = case.run("printf", "%s\\n", *many)
    must(done.stdout.decode().split() == many, f"many words: {done.exit} {done.stderr[:200]!r}")


@check(posix)
def the_environment_is_exactly_what_was_given(case: Case) -> None:
    canary = "LEASEHOLD_CONFORMANCE_CANARY"
    os.environ[canary] = "of the host"
    try:
        stranger = case.again()
        stranger.acquire()
        case.acquire()
        env = {
            "PLAIN": "1", "EMPTY": "", "TEXT": "ünï→", "LINES": "a\nb\n",
            "SIGNS": "a=b 'c' \"$d", "lower_case": "x", "LONG": "v" * 50_000,
        }  # fmt: skip
        names = "PLAIN EMPTY TEXT LINES SIGNS lower_case LONG"
        script = f'for n in {names}; do eval "printf \'%s\\\\0\' \\"\\${{$n-unset}}\\""; done'
        done = stranger.run_command(stranger.shell(script, env=env))
        values = dict(zip(names.split(), done.stdout.decode().split("\0"), strict=False))
        must(values == env, f"values differ: {[k for k in env if values.get(k) != env[k]]}")
        seen = stranger.run("env", env={"PLAIN": "1"}).stdout.decode()
    finally:
        del os.environ[canary]
    found = {line.partition("=")[0] for line in seen.splitlines()}
    extra = found - _OWN - _SHELLS - {"PLAIN"}
    must(not extra, f"not given, and there: {sorted(extra)}")
    must(found >= _OWN, f"not there: {sorted(_OWN - found)}")


@check()
def a_variable_that_acts_on_programs_of_ours_is_refused_by_its_name(case: Case) -> None:
    case.acquire()
    # What a command needs for itself is its own business.
    free = {"PYTHONPATH": "p", "NODE_OPTIONS": "n", "PERL5OPT": "-w", "MALLOC_ARENA_MAX": "2"}
    case.start("free", replace(case.counted("free"), env=free))
    must(case.wait("free").exit.code == 0, "the variables of languages are taken")
    takes_env = "env" in case.info.config_schema.get("properties", {})
    for name in _REFUSED:
        given = {"PLAIN": "1", name: "s3cret"}
        try:
            case.start(f"no-{name}", replace(case.counted(f"no-{name}"), env=given))
        except ConfigRejectedError as error:
            must(name in str(error), f"the refusal of {name} names it: {error}")
            must("s3cret" not in str(error), f"and not its value: {error}")
        else:
            raise ConformanceError(f"{name} was accepted")
        must(case.starts(f"no-{name}") == 0, f"nothing was started with {name}")
        if takes_env:
            wrong = {**case.harness.config, "env": given}
            answer = case.provider.validate(wrong, budget=case.budget())
            told = any(name in f"{one.path} {one.message}" for one in answer.problems)
            must(told, f"{name} in the config's env is a problem, by its name: {answer}")


@check(posix)
def what_is_given_wins_over_the_safe_defaults(case: Case) -> None:
    case.acquire()
    path = case.run("sh", "-c", 'printf %s "$PATH"').stdout.decode().split(":")
    must({"/usr/local/bin", "/usr/bin", "/bin"} <= set(path), f"a safe PATH, not {path}")
    done = case.run_command(
        case.shell('printf "%s %s" "$HOME" "$LANG"', env={"HOME": "/h", "LANG": "C"})
    )
    must(done.stdout == b"/h C", f"what was given: {done.stdout!r}")


@check(posix)
def a_command_starts_where_it_was_told(case: Case) -> None:
    cwd = case.acquire().remote_cwd
    must(case.run("pwd", "-P").stdout.decode().strip() == cwd, f"by default {cwd}")
    case.run("mkdir", "-p", "sub/way")
    for told, expected in (("sub", "sub"), ("sub/way", "sub/way"), (f"{cwd}/sub", "sub")):
        done = case.run("pwd", "-P", cwd=told)
        must(done.stdout.decode().strip() == f"{cwd}/{expected}", f"{told}: {done}")
    missing = case.run("pwd", cwd="no/such")
    must((missing.exit.cause, missing.exit.code) == (ExitCause.CWD, None), f"{missing}")


@check(posix)
def stdin_of_a_mebibyte_arrives_byte_by_byte(case: Case) -> None:
    case.acquire()
    data = bytes(range(256)) * 4096
    must(case.run("cat", stdin=data).stdout == data, "binary, whole")
    must(case.run("cat").stdout == b"", "no stdin is an empty one")
    must(case.run("true", stdin=data).exit.code == 0, "who does not read it is not disturbed")
    must(case.run("head", "-c", "3", stdin=data).stdout == data[:3], "nor who reads a part")


@check(posix)
def commands_of_one_sandbox_share_its_files_and_run_side_by_side(case: Case) -> None:
    case.acquire()
    script = 'until [ -e "$1" ]; do sleep 0.01; done; cat "$1"'
    case.start("reader", case.shell(script, "note"))
    case.start("writer", case.shell("echo hello >n && mv n note"))
    must(case.wait("reader").stdout == b"hello\n", "one waits for the other")


@check(posix)
def what_cannot_be_passed_on_is_refused_or_told(case: Case) -> None:
    case.acquire()
    bad = (
        Command(argv=("echo", "a\0b")),
        Command(argv=("true",), env={"A": "x\0y"}),
        Command(argv=("true",), env={"A=B": "x"}),
        Command(argv=("true",), cwd="a\0b"),
    )
    for number, command in enumerate(bad):
        try:
            case.start(f"bad{number}", command)
        except ConfigRejectedError:
            continue
        done = case.wait(f"bad{number}")
        must(done.exit.code != 0, f"{command} cannot have worked")


@check(posix, no_network)
def without_a_network_there_is_only_the_loopback(case: Case) -> None:
    case.acquire()
    lines = case.run("cat", "/proc/net/dev").stdout.decode().splitlines()
    names = {line.split(":")[0].strip() for line in lines if ":" in line}
    must(names <= {"lo"}, f"there are interfaces: {sorted(names)}")
