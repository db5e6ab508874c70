"""Checks: what a provider says of itself, and the answers about things that are not there."""

import json
from dataclasses import replace

from jsonschema import Draft202012Validator

from leasehold.errors import (
    ConfigRejectedError,
    ExecutionUnknownError,
    InterruptedCallError,
    SandboxGoneError,
    UnsupportedError,
)
from leasehold.provider.budget import Budget
from leasehold.provider.conformance.catalogue import (
    check,
    files,
    no_root_of_its_own,
    suspend,
    watch,
    without,
)
from leasehold.provider.conformance.harness import TTL, Case, must, refused
from leasehold.provider.contract import (
    API_VERSION,
    HANDLE_MAX_BYTES,
    Acquired,
    ExitCause,
    HealthState,
    PollItem,
    ReleaseMode,
    SandboxState,
)

_NOT_OFFERED = (UnsupportedError, NotImplementedError)


@check()
def it_says_what_it_is_and_says_the_same_twice(case: Case) -> None:
    info = case.provider.describe()
    must(info == case.again().provider.describe(), "describe() is pure")
    must(info.api_version == API_VERSION, f"api_version is {API_VERSION}")
    must(info.key and info.key.isidentifier() and info.key.islower(), "the key is a plain word")
    must(info.version, "it has a version")


@check()
def its_schema_is_a_schema_and_closed(case: Case) -> None:
    schema = case.info.config_schema
    Draft202012Validator.check_schema(schema)
    must(json.loads(json.dumps(schema)) == schema, "the schema is plain JSON")
    must(schema.get("type") == "object", "a config is an object")
    must("additionalProperties" in schema, "the schema says whether other keys are allowed")


@check()
def its_probe_says_that_it_works_here(case: Case) -> None:
    health = case.provider.probe(case.harness.config, budget=case.budget())
    must(health.state is HealthState.HEALTHY, f"{health.state}: {health.summary}")
    must(health.summary, "there is a sentence for a person")


@check()
def a_valid_config_is_normalized_once_and_for_all(case: Case) -> None:
    first = case.provider.validate(case.harness.config, budget=case.budget())
    must(first.ok, f"the harness's config is refused: {first.problems}")
    second = case.provider.validate(first.config, budget=case.budget())
    must(second.ok and second.config == first.config, "a normalized config stays what it is")
    must(not case.owned_by(case.harness.deployment), "validate makes nothing")


@check()
def an_unknown_key_is_a_problem_that_names_it(case: Case) -> None:
    if case.info.config_schema.get("additionalProperties") is not False:
        return
    wrong = {**case.harness.config, "no_such_key": 1}
    answer = case.provider.validate(wrong, budget=case.budget())
    must(not answer.ok, "an unknown key is never ignored")
    named = [one for one in answer.problems if "no_such_key" in one.path]
    must(named, f"the problem's path names the key: {answer.problems}")
    must(all(one.code and one.message for one in named), "with a code and a message")


@check()
def a_value_of_the_wrong_kind_is_a_problem_at_its_place(case: Case) -> None:
    for key, part in case.info.config_schema.get("properties", {}).items():
        if part.get("type") not in {"string", "integer", "number", "boolean"}:
            continue
        wrong = {**case.harness.config, key: {"neither": "nor"}}
        answer = case.provider.validate(wrong, budget=case.budget())
        must(
            any(one.path.split(".")[0] == key for one in answer.problems),
            f"{key} takes an object, or the problem does not name it: {answer.problems}",
        )


@check()
def a_handle_is_small_json_with_a_version_and_an_incarnation(case: Case) -> None:
    sandbox = case.acquire()
    text = json.dumps(sandbox.handle)
    must(json.loads(text) == sandbox.handle, "a handle is plain JSON")
    must(len(text.encode()) <= HANDLE_MAX_BYTES, f"a handle has at most {HANDLE_MAX_BYTES}")
    must("v" in sandbox.handle, "a handle has its version: v")
    must(sandbox.handle.get("incarnation"), "a handle has its incarnation")
    must(json.loads(json.dumps(sandbox.metadata)) == sandbox.metadata, "metadata is JSON")
    must(sandbox.remote_cwd.startswith("/"), "remote_cwd is absolute")
    must(sandbox.sandbox_id, "a sandbox has a name for people")
    must(sandbox.outcome is Acquired.CREATED, "a new lease's sandbox was created")
    seen = case.inspect()
    must(seen.state is SandboxState.READY, "what acquire returned is ready")
    must(seen.incarnation == sandbox.handle["incarnation"], "inspect tells the incarnation")


@check()
def a_sandbox_made_anew_is_another_incarnation(case: Case) -> None:
    first = case.acquire().handle
    case.release()
    case.fence += 1
    second = case.acquire().handle
    must(first["incarnation"] != second["incarnation"], "each sandbox has a mark of its own")
    case.handle = first
    must(case.inspect().state is SandboxState.GONE, "the first one is gone")
    case.release()
    case.handle = second
    must(case.inspect().state is SandboxState.READY, "a late destroy spares the second one")
    with refused(SandboxGoneError, "a start in the first one"):
        late = case.again()
        late.handle = first
        late.start("x-late", case.counted("x-late"))


@check()
def what_is_not_there_is_said_to_be_gone(case: Case) -> None:
    must(case.inspect().state is SandboxState.GONE, "gone is an answer")
    case.release()
    with refused(SandboxGoneError, "a start without a sandbox"):
        case.start("x", case.counted("x"))
    for call, what in ((case.renew, "renew"), (case.seize, "seize")):
        with refused(SandboxGoneError, f"{what} without a sandbox"):
            call()
    with refused((SandboxGoneError, UnsupportedError), "suspend without a sandbox"):
        case.release(ReleaseMode.SUSPEND)
    with refused(SandboxGoneError, "keep without a sandbox"):
        case.release(ReleaseMode.KEEP)
    must(not case.owned(), "none of these calls made a sandbox")


@check()
def a_known_sandbox_that_is_gone_is_not_made_again(case: Case) -> None:
    handle = case.acquire().handle
    case.release()
    case.fence += 1
    with refused(SandboxGoneError, "acquire of a known sandbox that is gone"):
        case.acquire(known=handle)
    must(not case.owned(), "nothing was created")


@check()
def one_bad_item_does_not_fail_a_batch(case: Case) -> None:
    case.acquire()
    case.start("good", case.counted("good"))
    case.wait("good")
    nowhere = case.another()
    items = [
        PollItem(target=case.target, execution_id="no-such", handle={}),
        PollItem(target=nowhere.target, execution_id="good", handle={}),
        PollItem(target=case.target, execution_id="good", handle={}),
    ]
    polled = case.provider.poll(items, limit_bytes=1000, budget=case.budget())
    must([one.execution_id for one in polled] == [i.execution_id for i in items], "in order")
    must(isinstance(polled[0].error, ExecutionUnknownError), f"unknown: {polled[0]}")
    must(isinstance(polled[1].error, SandboxGoneError), f"gone: {polled[1]}")
    must(polled[2].stdout == b"out" and polled[2].exit, f"the good one: {polled[2]}")


@check()
def a_call_that_nobody_wants_is_given_up(case: Case) -> None:
    unwanted = Budget(30, cancelled=lambda: "cancelled")
    with refused(InterruptedCallError, "acquire with a cancelled budget"):
        case.provider.acquire(
            case.lease, case.harness.config, known=None, ttl=TTL, fence=1, budget=unwanted
        )


@check(without(suspend))
def suspend_is_refused_where_it_is_not_declared(case: Case) -> None:
    case.acquire()
    with refused(UnsupportedError, "suspend"):
        case.release(ReleaseMode.SUSPEND)
    must(case.inspect().state is SandboxState.READY, "the sandbox is as it was")


@check(without(files))
def files_are_refused_where_they_are_not_declared(case: Case) -> None:
    case.acquire()
    with refused(_NOT_OFFERED, "get"):
        next(case.provider.get(case.target, "a", tree=False, budget=case.budget()), None)


@check(without(watch))
def watching_is_refused_where_it_is_not_declared(case: Case) -> None:
    with refused(_NOT_OFFERED, "watch"):
        case.provider.watch(lambda _: None)


@check(watch)
def an_exit_on_this_host_is_told(case: Case) -> None:
    ended: list[str] = []
    case.provider.watch(ended.append)
    case.acquire()
    case.start("quick", case.counted("quick", seconds=0.1))
    case.until(lambda: "quick" in ended, "the watch told of the exit")
    must(case.look("quick").exit is not None, "once it is told, the exit is there")


@check(no_root_of_its_own)
def what_leads_out_of_the_sandbox_is_no_working_directory(case: Case) -> None:
    case.acquire()
    for number, cwd in enumerate(("../" * 30, "a/../../../../../b", "/", "/etc")):
        name = f"x{number}"
        try:
            case.start(name, replace(case.counted(name), cwd=cwd))
        except ConfigRejectedError:
            continue
        done = case.wait(name)
        must(done.exit.cause is ExitCause.CWD, f"cwd {cwd!r} was accepted: {done.exit}")
