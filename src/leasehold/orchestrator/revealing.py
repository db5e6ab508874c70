"""
Values of secrets at the moment of use, and hiding them in what comes back (P7).

Rows hold references and pins: a lease's facts those of its environment, an execution's row all
that its command was given. A worker asks the vault for the values, outside of any transaction,
and hands them to the provider. All that the provider says (output, metadata, errors) passes
through here before it is written. If a value cannot be had, nothing is shown: not knowing what
to hide is no reason to hide nothing.
"""

from collections.abc import Mapping
from dataclasses import replace
from functools import lru_cache
from typing import Any, Final, TypeVar

from leasehold.domain import run_tokens
from leasehold.domain.redaction import NOTHING, Redactor
from leasehold.domain.secrets import Pins, filled, names_in
from leasehold.errors import LeaseholdError, ProviderError, SecretUnavailableError
from leasehold.orchestrator.jobs import Context, Job
from leasehold.provider.contract import Json, Polled, PollItem, Sandbox, Settled
from leasehold.store import secrets
from leasehold.store.database import Row, Tx
from leasehold.store.sql import load

OutcomeT = TypeVar("OutcomeT")
UNSAID: Final = "(not shown: a secret that it may hold cannot be resolved here)"


def values(context: Context, tenant_id: str, pins: Pins | None) -> dict[str, str]:
    """
    Return the values that pins mean.

    Raises:
        SecretUnavailableError: One of them cannot be had.
    """
    if not pins:
        return {}
    if context.vault is None:
        raise SecretUnavailableError("this process resolves no secrets")
    return context.vault.resolve(tenant_id, pins)


def config(context: Context, tenant_id: str, facts: Mapping[str, Any]) -> Json:
    """Return a lease's config, from its metadata alone, as its provider gets it."""
    stored: Json = facts.get("config", {})
    pins = facts.get("secrets")
    if not pins:
        return stored
    known = values(context, tenant_id, {name: pins[name] for name in set(names_in(stored))})
    resolved: Json = filled(stored, known)
    return resolved


def redactor(context: Context, tenant_id: str, *many: Pins | None) -> Redactor:
    """
    Return what hides the values of all these pins.

    Raises:
        SecretUnavailableError: One of them cannot be had.
    """
    hidden: list[Redactor] = []
    for pins in many:
        if pins:
            if context.vault is None:
                raise SecretUnavailableError("this process resolves no secrets")
            hidden.append(context.vault.redactor(tenant_id, pins))
    if len(hidden) < 2:  # noqa: PLR2004  one is enough as it is
        return hidden[0] if hidden else NOTHING
    return hidden[0].beside(hidden[1])


def pins_of(job: Job) -> list[Pins]:
    """Return the pins that a job's rows hold: its lease's and its execution's."""
    found = []
    if job.lease is not None:
        found.append(load(job.lease["facts"]).get("secrets"))
    if job.execution is not None:
        found.append(load(job.execution["secrets"]))
    return [pins for pins in found if pins]


@lru_cache(maxsize=4096)
def _of_text(text: str) -> Redactor:
    return Redactor.of((text,))


def of_token(context: Context, execution_id: str) -> Redactor:
    """Return what hides the token of one start of a command."""
    return _of_text(run_tokens.secret_part(context.run_token_key, execution_id))


def of_start(context: Context, tenant_id: str, start: Row, *pins: Pins | None) -> Redactor:
    """
    Return what hides these pins' values and the token that a start was given, if it was.

    Args:
        start: Has its `execution_id` and its `runtime_url`.

    Raises:
        SecretUnavailableError: A value cannot be had.
    """
    values = redactor(context, tenant_id, *pins)
    if start["runtime_url"] is None:
        return values
    return values.beside(of_token(context, start["execution_id"]))


def redactor_of(context: Context, job: Job) -> Redactor:
    """Return what hides all that a job's command and provider were given."""
    pins = pins_of(job)
    start = job.execution
    if not pins and (start is None or start["runtime_url"] is None):
        return NOTHING
    subject = job.lease or job.run
    assert subject is not None
    if start is None:
        return redactor(context, subject["tenant_id"], *pins)
    named = {"execution_id": start["id"], "runtime_url": start["runtime_url"]}
    return of_start(context, subject["tenant_id"], named, *pins)


def pin(tx: Tx, job: Job, lease: Mapping[str, Any]) -> dict[str, int] | None:
    """
    Choose the versions that one start gives its command, and name them in its lease.

    What the environment names was pinned with the lease; what the run names is pinned now, so
    that whoever takes over gives, and hides, the same.
    """
    pinned: dict[str, int] = load(lease["facts"]).get("secrets") or {}
    names = job.spec.secret_names() - set(pinned)
    if not names:
        return pinned or None
    tenant_id = lease["tenant_id"]
    there = secrets.current(tx, tenant_id=tenant_id, names=sorted(names))
    chosen = {name: there.get(name, 0) for name in sorted(names)}
    secrets.name_in_lease(tx, lease["id"], tenant_id=tenant_id, pins=chosen)
    return chosen | pinned


def with_context(item: PollItem, hider: Redactor) -> PollItem:
    """Return the question with offsets that lie before the stored ones by the context."""
    if not hider.context:
        return item
    return replace(
        item,
        stdout_offset=max(0, item.stdout_offset - hider.context),
        stderr_offset=max(0, item.stderr_offset - hider.context),
    )


def masked(
    item: PollItem, polled: Polled, hider: Redactor, *, limit_bytes: int, over: Settled | None
) -> Polled:
    """
    Return what a look saw as it may be stored: hidden, and held back where it may go on.

    Args:
        item: The execution with its stored offsets; `with_context` of it was asked.
        over: The proof that nothing of it runs any more, if there is one.
    """
    if polled.error is not None:
        return replace(polled, error=hidden_error(polled.error, hider))
    if not hider.needles:
        return polled
    end = polled.exit or (over.exit if over else None)

    def one(stored: int, asked: int, data: bytes, size: int | None) -> bytes:
        final = over is not None and len(data) < limit_bytes
        if size is not None:
            final = asked + len(data) >= size
        return hider.stored(data, skip=stored - asked, final=final)

    asked = with_context(item, hider)
    return replace(
        polled,
        stdout=one(
            item.stdout_offset,
            asked.stdout_offset,
            polled.stdout,
            end.stdout_bytes if end else None,
        ),
        stderr=one(
            item.stderr_offset,
            asked.stderr_offset,
            polled.stderr,
            end.stderr_bytes if end else None,
        ),
    )


def hidden_error(error: ProviderError, hider: Redactor) -> ProviderError:
    """Return the error, or one of its kind that tells no value."""
    text = str(error)
    hidden = hider.hide_text(text)
    if hidden == text:
        return error
    error.args = (hidden, *error.args[1:])
    return error


def hidden(context: Context, job: Job, outcome: OutcomeT) -> OutcomeT:
    """Return a step's outcome with every value hidden in its words and metadata."""
    told = job.execution is not None and job.execution["runtime_url"] is not None
    if not told and not pins_of(job):
        return outcome
    message = getattr(outcome, "message", None)
    sandbox = getattr(outcome, "sandbox", None)
    if not message and not isinstance(sandbox, Sandbox):
        return outcome
    try:
        hider: Redactor | None = redactor_of(context, job)
    except LeaseholdError:
        hider = None
    changes: dict[str, Any] = {}
    if isinstance(message, str):
        # What we say ourselves of a secret that is missing holds its name only.
        ours = getattr(outcome, "code", None) == SecretUnavailableError.code
        unhidden = message if ours else UNSAID
        changes["message"] = hider.hide_text(message) if hider else unhidden
    if isinstance(sandbox, Sandbox):
        said: Any = hider.hide_json(dict(sandbox.metadata)) if hider else {}
        name = hider.hide_text(sandbox.sandbox_id) if hider else job.subject_id
        changes["sandbox"] = replace(sandbox, metadata=said, sandbox_id=name)
    changed: OutcomeT = replace(outcome, **changes)  # type: ignore[type-var]  # outcomes are dataclasses
    return changed
