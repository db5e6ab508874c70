"""
Where a sandbox reaches the API: it is asked itself, since nobody else can know.

If an API is configured at all (`Context.reach`), a command of ours is started in a sandbox that
is new, with the candidates (`domain.runtime_urls`). It asks the first, then all others at once,
for what only a process of this deployment can answer to a nonce (`domain.run_tokens`). The
first in their order that does is the sandbox's; nothing that a stranger may keep is sent to any
of them. If none does, or not in time, there is no URL, and the run works all the same, without
a token.

Authority is `runtime` in the lease's metadata, with what was tried. The run is at step
`execute` with no execution open. Killed before it was asked, while, or before the record: the
next holder asks again under the same id, and so hears what the first asking heard. The asking
ends by the supervisor's own timer within seconds, and is proven over before anything else is
done.

Used again, a sandbox is asked anew only if the candidates are others or it was asked long ago;
a new one is not asked if one of its like has answered this process a moment ago (`hearing`).
Without an API nothing of this happens: nothing is read, no command started.
"""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from importlib.resources import files
from typing import Any, Final

from leasehold.domain import run_tokens
from leasehold.domain.lifecycle import EndKind, Step
from leasehold.domain.runtime_urls import Candidate, candidates
from leasehold.errors import (
    CapacityError,
    InterruptedCallError,
    ProviderError,
    SandboxGoneError,
    StaleFenceError,
)
from leasehold.orchestrator import ending, hearing, looking
from leasehold.orchestrator.jobs import SECOND_US, Context, Job, Trouble, interruptions
from leasehold.provider.budget import Budget
from leasehold.provider.contract import (
    Command,
    ExecutionState,
    Network,
    PollItem,
    StartOutcome,
)
from leasehold.seams import boot_time, effect, sleep
from leasehold.store import moves
from leasehold.store.database import Row, Tx
from leasehold.store.sql import load

HELLO: Final = "/api/v1/run/hello"
ONE_S: Final = 2
"""How long one candidate may take."""

ALL_S: Final = 5.0
"""How long the sandbox may take for all of them; all but the first are asked at once."""

_SUPERVISED: Final = timedelta(seconds=7)
AGAIN_US: Final = 600 * SECOND_US
"""How long a URL that was found is believed."""

NONE_AGAIN_US: Final = 60 * SECOND_US
"""How long it is believed that there is none."""

_LIMIT_BYTES: Final = 16 * 1024
_PAUSES_S: Final = (0.005, 0.01, 0.02, 0.04, 0.08)
_SCRIPT: Final = (files("leasehold.provider") / "ask.sh").read_text()


@dataclass(frozen=True, slots=True)
class Asked:
    """What the sandbox has said."""

    tried: tuple[tuple[Candidate, str], ...]
    """Each candidate and what came of it."""

    url: str | None
    reason: str


@dataclass(frozen=True, slots=True)
class Gone:
    """There is no such sandbox any more."""

    message: str


def url_of(lease: Row) -> str | None:
    """Return where this lease's sandbox reaches the API; None: nowhere, as far as we know."""
    found: str | None = (load(lease["facts"]).get("runtime") or {}).get("url")
    return found


def variables(context: Context, execution: Row) -> dict[str, str]:
    """Return what a command is given to report with; made at the moment of use (P7)."""
    if execution["runtime_url"] is None or not context.run_token_key:
        return {}
    return {
        "LEASEHOLD_API_URL": execution["runtime_url"],
        "LEASEHOLD_RUN_ID": execution["run_id"],
        "LEASEHOLD_TOKEN": run_tokens.make(context.run_token_key, execution["id"]),
    }


def _candidates(context: Context, lease: Row) -> tuple[Candidate, ...]:
    known = context.reach() if context.run_token_key else None
    if known is None:
        return ()
    capabilities = context.provider(lease["provider"]).describe().capabilities
    return () if capabilities.network == {Network.NONE} else candidates(known)


def _digest(found: Sequence[Candidate]) -> str:
    text = json.dumps([one.url for one in found])
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def enter(tx: Tx, context: Context, job: Job) -> Job | None:
    """Claim the asking, if the sandbox is to be asked; the caller holds lease and run."""
    run, lease = job.run, job.lease
    assert run is not None
    assert lease is not None
    facts = dict(load(lease["facts"]))
    found, before = _candidates(context, lease), facts.get("runtime")
    if not found:
        if before is not None:
            del facts["runtime"]
            _set_facts(tx, job, facts)
        return None
    if before is not None and before["of"] == _digest(found):
        age_us = run["now_us"] - before["asked_at"]
        if 0 <= age_us < (NONE_AGAIN_US if before["url"] is None else AGAIN_US):
            return None
    heard = context.heard.of(hearing.like(lease, _digest(found)), now_us=run["now_us"])
    if heard is not None:
        _set_facts(tx, job, {**facts, "runtime": heard})
        reason = f"{heard['reason']} (a sandbox of its like, a moment ago)"
        looking.say(tx, job, "runtime.chosen", {"url": heard["url"], "reason": reason})
        return None
    row = moves.move(tx, "runs", run["id"], None, held=run, step=Step.EXECUTE, beat=False)
    assert row is not None
    row["now_us"] = run["now_us"]
    return Job(
        step=Step.EXECUTE,
        fence=lease["fence"],
        run=row,
        lease=lease,
        taken_over=job.taken_over,
        sticky=job.sticky,
        spec_cache=job.spec_cache,
    )


def _set_facts(tx: Tx, job: Job, facts: Row) -> None:
    assert job.lease is not None
    job.lease = moves.move(tx, "leases", job.lease["id"], None, held=job.lease, facts=facts)


def act(context: Context, job: Job) -> Asked | Gone | Trouble:
    """Ask the sandbox, and see that the asking is over; whoever took over repeats this."""
    lease, run = job.lease, job.run
    assert lease is not None
    assert run is not None
    found = _candidates(context, lease)
    ask_id = f"{run['id']}.url{lease['number']}.{run['starts']}"
    asking = _Asking(context, job, ask_id, found)
    try:
        if job.taken_over:
            asking.seize()
        if job.end_requested or not found:
            if job.taken_over:
                asking.end({})
            return Asked((), None, "it was not asked: there is nothing to ask for")
        return asking.ask()
    except SandboxGoneError as error:
        return Gone(str(error))
    except StaleFenceError:
        raise
    except InterruptedCallError as error:
        return Trouble(error.code, str(error), counts=False)
    except CapacityError as error:
        return Trouble(error.code, str(error), retry_after_s=error.retry_after_s)
    except ProviderError as error:
        if error.retryable:
            return Trouble(error.code, str(error))
        # What cannot be asked has no URL; whether a command can be started, its start says.
        asking.end({})
        return Asked((), None, f"it could not be asked: {error}")


class _Asking:
    """One sandbox that is asked."""

    def __init__(
        self, context: Context, job: Job, ask_id: str, found: Sequence[Candidate]
    ) -> None:
        assert job.lease is not None
        self._provider = context.provider(job.lease["provider"])
        self._target, self._fence = job.target(context), job.sandbox_fence(context)
        self._budget = Budget(
            context.timers.provider_call, cancelled=interruptions(context, job)
        )
        self._id, self._found = ask_id, found
        key = context.run_token_key
        self._nonce = run_tokens.nonce(key, ask_id)
        self._wanted = run_tokens.greeting(key, self._nonce)
        plain: Mapping[str, Any] = load(job.lease["facts"]).get("environment_env", {})
        # Those that are no secrets: a proxy that the sandbox needs may stand there.
        self._env = {k: v for k, v in plain.items() if isinstance(v, str)}

    def seize(self) -> None:
        with effect("provider.seize"):
            self._provider.seize(self._target, fence=self._fence, budget=self._budget)

    def ask(self) -> Asked:
        what = f"{HELLO}?nonce={self._nonce}"
        urls = [one.url for one in self._found]
        command = Command(
            argv=("sh", "-c", _SCRIPT, "leasehold-ask", what, self._wanted, str(ONE_S), *urls),
            env=self._env,
            timeout=_SUPERVISED,
            grace=timedelta(0),
            output_cap_bytes=_LIMIT_BYTES,
        )
        with effect("provider.ask"):
            started = self._provider.start(
                self._target,
                fence=self._fence,
                execution_id=self._id,
                command=command,
                budget=self._budget,
            )
        if started.outcome is StartOutcome.CANCELLED:
            return Asked((), None, "it was asked to end before it could answer")
        said, over = self._listen(started.handle)
        if not over:
            self.end(started.handle)
        return self._told(said)

    def _listen(self, handle: Mapping[str, Any]) -> tuple[dict[int, str], bool]:
        """Return what was said once it decides or time is up, and whether it has ended."""
        until, pauses = boot_time() + ALL_S, iter(_PAUSES_S)
        item = PollItem(target=self._target, execution_id=self._id, handle=handle)
        while True:
            self._budget.check()
            polled = self._provider.poll([item], limit_bytes=_LIMIT_BYTES, budget=self._budget)[
                0
            ]
            if polled.error is not None:
                raise polled.error
            said = _lines(polled.stdout)
            if polled.state is ExecutionState.EXITED:
                return said, True
            if polled.state is ExecutionState.UNCLEAR or boot_time() >= until:
                return said, False
            if self._decided(said):
                return said, False
            sleep(next(pauses, _PAUSES_S[-1]))

    def _decided(self, said: Mapping[int, str]) -> bool:
        """Return whether the first that answers is known: all before it have failed."""
        for number in range(len(self._found)):
            if number not in said:
                return False
            if said[number] == self._wanted:
                return True
        return True

    def end(self, handle: Mapping[str, Any]) -> None:
        """Return with proof that nothing of the asking runs, or ever will."""
        with effect("provider.ask_end"):
            self._provider.cancel(
                self._target,
                fence=self._fence,
                execution_id=self._id,
                handle=handle,
                grace=timedelta(0),
                budget=self._budget,
            )

    def _told(self, said: Mapping[int, str]) -> Asked:
        tried: list[tuple[Candidate, str]] = []
        chosen: Candidate | None = None
        for number, one in enumerate(self._found):
            answer = said.get(number, "no answer in time")
            if answer == self._wanted:
                tried.append((one, "ok"))
                chosen = chosen or one
            elif answer.startswith(run_tokens.GREETS):
                tried.append((one, "another deployment"))
            else:
                tried.append((one, answer[:200]))
        if chosen is not None:
            return Asked(tuple(tried), chosen.url, f"{chosen.source}: the first that answered")
        return Asked(tuple(tried), None, f"none of {len(tried)} addresses answered")


def _lines(output: bytes) -> dict[int, str]:
    """Read what the sandbox has said so far: whole lines, the first of each number."""
    said: dict[int, str] = {}
    for line in output.decode(errors="replace").split("\n")[:-1]:
        number, _, answer = line.partition(" ")
        if number.isdecimal() and len(number) < 4:  # noqa: PLR2004
            said.setdefault(int(number), answer.strip())
    return said


def note(tx: Tx, context: Context, job: Job, asked: Asked) -> None:
    """Write into the lease what came of it, and a line into the run's history."""
    run, lease = job.run, job.lease
    assert run is not None
    assert lease is not None
    runtime = {
        "url": asked.url,
        "reason": asked.reason,
        "tried": [
            {"url": one.url, "source": one.source, "answer": answer}
            for one, answer in asked.tried
        ],
        "of": _digest([one for one, _ in asked.tried] or _candidates(context, lease)),
        "asked_at": run["now_us"],
        "run_id": run["id"],
    }
    _set_facts(tx, job, {**load(lease["facts"]), "runtime": runtime})
    if asked.tried:
        kept = hearing.like(lease, runtime["of"])
        tx.after_commit.append(lambda: context.heard.keep(kept, runtime))
    looking.say(tx, job, "runtime.chosen", {"url": asked.url, "reason": asked.reason})


def failed(tx: Tx, context: Context, job: Job, outcome: Gone | Trouble) -> Job | None:
    """Try again in the same sandbox, or get another; a run is never failed for this alone."""
    run = job.run
    assert run is not None
    if isinstance(outcome, Gone):
        looking.say(
            tx,
            job,
            "runtime.failed",
            {"code": SandboxGoneError.code, "message": outcome.message},
        )
        return ending.lost_before_start(tx, context, job)
    looking.say(tx, job, "runtime.failed", {"code": outcome.code, "message": outcome.message})
    tries = run["infra_attempts"] + (1 if outcome.counts else 0)
    spent = tries >= job.spec.max_infra_attempts
    return looking.look_again(
        tx,
        context,
        job,
        step=Step.EXECUTE,
        tries=max(tries, 1),
        infra_attempts=tries,
        end=EndKind.PARK if spent else None,
    )
