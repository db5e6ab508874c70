"""
What a provider itself says of a config, asked of a worker: control planes load no plugins.

The question is a row (`config_checks`); its message says only "look at this row". Whoever asks
waits for a bounded time, and so does the row: `until_at`.

- **The message is lost**, or the broker: the row is due, a clock sends it again, to another
  host if there is one.
- **The worker dies** while it looks: its claim is given up with its others, at once if its
  agent saw the death; and the claim lasts for a bounded time anyhow.
- **The asker dies**: the row rests when its time is over, and is deleted an hour later.
- **Two answer**: the first one stands. A check has no effect, so there is nothing to fence.

What comes back is stored in the environment's row, also that nobody was asked. Configs are in
no message and no log line: only their fields' names are, and what the provider says of them.
"""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Final

from leasehold.domain.fingerprint import canonical_json
from leasehold.domain.lifecycle import Step
from leasehold.domain.specs import EnvironmentSpec
from leasehold.errors import (
    CheckTimeoutError,
    ConfigRefusedError,
    LeaseholdError,
    ProviderError,
    UnsupportedError,
)
from leasehold.log import get_logger
from leasehold.orchestrator import saving, serving
from leasehold.orchestrator.jobs import Context, Message, send, us
from leasehold.provider.budget import Budget
from leasehold.seams import boot_time, sleep
from leasehold.store import config_checks
from leasehold.store.database import Row, Tx
from leasehold.store.sql import load

log = get_logger(__name__)
WAIT: Final = timedelta(seconds=10)
"""How long who asks waits, for a worker to be ready and for its answer."""

WAIT_MAX: Final = timedelta(seconds=60)
TRIES: Final = 5
"""So many workers may fail to say anything, for reasons that may pass."""

ANSWER_BYTES: Final = 256 * 1024
_AGAIN: Final = timedelta(milliseconds=500)
_LASTS: Final = timedelta(seconds=15)
_POLL_S: Final = (0.01, 0.2)
_READY_S: Final = 0.25


@dataclass(frozen=True, slots=True, kw_only=True)
class Vetted:
    """What is known of a config that no schema and no provider refuses."""

    about: str
    """The provider and config that were looked at, as canonical JSON."""

    stored: dict[str, Any]
    """For the environment's row: by whom, when, or why by nobody."""

    warnings: tuple[str, ...] = ()
    config: Mapping[str, Any] | None = None
    """As the provider understands it, defaults filled in."""

    def answer(self) -> dict[str, Any]:
        """Return what who has asked is shown beside the environment."""
        return {"normalized_config": self.config, "warnings": list(self.warnings)}


def about(spec: EnvironmentSpec) -> str:
    """Return what has to be equal for a check to be about this very config."""
    return canonical_json({"provider": spec.provider, "config": spec.config})


def vet(
    context: Context,
    spec: EnvironmentSpec,
    *,
    tenant_id: str,
    wait: timedelta = WAIT,
    unchecked: bool = False,
    first: Callable[[Tx], object] = lambda _tx: None,
) -> Vetted:
    """
    Have a config checked: by its schema at once, by its provider within `wait`.

    Args:
        unchecked: Ask no worker; it is said in the row.
        first: What is to hold before anybody is asked.

    Raises:
        BadInputError: A field does not fit the schema; names it.
        ConfigRefusedError: The provider refuses it; names its fields.
        ProviderMissingError: No worker has ever served the provider.
        ProviderNotReadyError: It is not well where it is served, or its workers start.
        NoWorkerError: Nobody serves it now.
        CheckTimeoutError: There was no answer in time.
    """
    if unchecked:
        with context.database.read() as tx:
            first(tx)
            saving.check_place(tx, spec)
            now = tx.now()
        why = "no worker was asked: who saved it wanted it so"
        return Vetted(about=about(spec), stored={"by": None, "at": now, "why": why})
    until = boot_time() + wait.total_seconds()
    check_id = _asked(context, spec, tenant_id=tenant_id, until=until, first=first)
    pause = _POLL_S[0]
    while True:
        with context.database.read() as tx:
            row = config_checks.find(tx, check_id)
        if row is not None and row["answer"] is not None:
            return judged(spec, row)
        left = until - boot_time()
        if left <= 0 or row is None:
            raise _too_late(spec.provider, row, wait)
        sleep(min(pause, left))
        pause = min(pause * 1.5, _POLL_S[1])


def _asked(
    context: Context,
    spec: EnvironmentSpec,
    *,
    tenant_id: str,
    until: float,
    first: Callable[[Tx], object],
) -> str:
    """Ask as soon as there is somebody to ask; return the question's id."""
    while True:
        left = until - boot_time()
        with context.database.write("check.ask") as tx:
            first(tx)
            queue = serving.queue_of(tx, spec.provider, spec.requires)
            if isinstance(queue, str):
                saving.check_place(tx, spec)
                return _ask(tx, context, spec, tenant_id=tenant_id, queue=queue, left=left)
        if not queue.may_come or left <= 0:
            raise queue.error
        sleep(min(_READY_S, left))


def _ask(
    tx: Tx, context: Context, spec: EnvironmentSpec, *, tenant_id: str, queue: str, left: float
) -> str:
    check_id = config_checks.insert(
        tx,
        tenant_id=tenant_id,
        provider=spec.provider,
        config=spec.config,
        requires=spec.requires,
        queue=queue,
        again_us=us(_AGAIN),
        wait_us=int(max(left, 0.0) * 1_000_000),
    )
    tx.after_commit.append(lambda: send(context, message_of(check_id, queue)))
    return check_id


def message_of(check_id: str, queue: str) -> Message:
    """Return the message that says: look at this question."""
    return Message("check", check_id, 0, Step.VALIDATE, queue)


def _too_late(provider: str, row: Row | None, wait: timedelta) -> CheckTimeoutError:
    text = f"provider {provider}: no answer to the check of its config within"
    at_it = row is not None and row["claimed_by"]
    why = f"worker {row['claimed_by']} is at it" if row and at_it else "no worker has taken it"
    return CheckTimeoutError(f"{text} {wait.total_seconds():g} s: {why}; try again")


def judged(spec: EnvironmentSpec, row: Row) -> Vetted:
    """
    Return what a question's answer comes to.

    Raises:
        ConfigRefusedError: The provider refuses the config; names its fields.
    """
    said = row["answer"]
    problems, warnings = said["problems"], said["warnings"]
    if problems:
        lines = [f"{problem['field']}: {problem['message']}" for problem in problems]
        raise ConfigRefusedError(
            "; ".join(lines),
            field=problems[0]["field"],
            problems=problems,
            warnings=warnings,
        )
    stored = {
        "by": said["worker"],
        "at": row["answered_at"],
        "provider_version": said["version"],
        "warnings": warnings,
    }
    return Vetted(
        about=about(spec), stored=stored, warnings=tuple(warnings), config=said["config"]
    )


# What workers and clocks do.


def answer(context: Context, check_id: str) -> bool:
    """Answer one question as a worker; False: it is not open, or not now."""
    with context.database.write("check.claim") as tx:
        row = config_checks.claim(tx, check_id, worker_id=context.worker_id, for_us=us(_LASTS))
    if row is None:
        return False
    said = _said(context, row)
    with context.database.write("check.answer") as tx:
        if said is not None:
            return config_checks.answer(tx, check_id, said)
        config_checks.put_back(tx, check_id, worker_id=context.worker_id, wait_us=us(_AGAIN))
    return False


def _said(context: Context, row: Row) -> dict[str, Any] | None:
    """Return what the provider says; None: nothing now, somebody else may know."""
    left = timedelta(microseconds=max(1, row["until_at"] - row["now_us"]))
    budget = Budget(min(left, context.timers.provider_call))
    version = ""
    try:
        provider = context.provider(row["provider"])
        version = provider.describe().version
        found = provider.validate(row["config"], budget=budget)
        problems = [(one.path, one.code, one.message) for one in found.problems]
        warnings, config = list(found.warnings), dict(found.config) if found.ok else None
    except ProviderError as error:
        may_pass = error.retryable or isinstance(error, UnsupportedError)
        if may_pass and row["tries"] < TRIES:
            log.info("check.put_back", provider=row["provider"], code=error.code)
            return None
        problems, warnings, config = [("", error.code, str(error))], [], None
    except LeaseholdError:
        raise
    except Exception as error:  # noqa: BLE001  a plugin's fault is an answer; its words may hold values
        kind = type(error).__name__
        log.warning("check.fault", provider=row["provider"], kind=kind)
        text = f"the provider's check failed with {kind}"
        problems, warnings, config = [("", "provider_error", text)], [], None
    said = {
        "worker": context.worker_id,
        "version": version,
        "problems": [
            {"field": f"config.{path}" if path else "config", "code": code, "message": text}
            for path, code, text in problems
        ],
        "warnings": [str(text) for text in warnings],
        "config": config,
    }
    return said if _fits(said) else said | {"config": None}


def _fits(said: Mapping[str, Any]) -> bool:
    try:
        return len(json.dumps(said, allow_nan=False)) <= ANSWER_BYTES
    except (TypeError, ValueError):
        return False


def send_due(context: Context, *, batch: int) -> int:
    """Send again what was not answered, to whoever serves the provider now."""
    with context.database.write("clock.checks") as tx:
        messages = []
        for row in config_checks.due(tx, limit=batch):
            queue = serving.queue_of(
                tx, row["provider"], load(row["requires"]), but=row["queue"]
            )
            if isinstance(queue, str):
                messages.append(message_of(row["id"], queue))
            there = queue if isinstance(queue, str) else row["queue"]
            config_checks.push_on(tx, row["id"], queue=there, wait_us=us(_AGAIN))
    return sum(send(context, message) for message in messages)
