"""
Step 1: can this run work at all, here, as its environment is written?

No side effect anywhere, so recovery is repetition.
"""

from dataclasses import dataclass
from typing import Any

from leasehold.domain import fate as fates
from leasehold.domain.fingerprint import fingerprint, reuse_scope
from leasehold.domain.lifecycle import (
    EnvironmentStatus,
    LeasePolicy,
    LeaseStatus,
    RunStatus,
    Step,
)
from leasehold.domain.secrets import Pins, names_in
from leasehold.domain.specs import EnvironmentSpec, plain_env
from leasehold.errors import SecretUnavailableError
from leasehold.orchestrator import acquire, ending, sourcing
from leasehold.orchestrator.jobs import Context, Job, Trouble
from leasehold.provider.budget import Budget
from leasehold.provider.contract import Json
from leasehold.store import moves
from leasehold.store.database import Row, Tx
from leasehold.store.sql import load


@dataclass(frozen=True, slots=True)
class Valid:
    """The environment as it is now and its normalized config."""

    environment: Row
    spec: EnvironmentSpec
    config: Json
    version: str
    secrets: Pins
    """Versions of the secrets that the environment names."""
    tree: Row | None = None
    """What the run's git URL came to just now."""


@dataclass(frozen=True, slots=True)
class Named:
    """The run names a lease: what its sandbox is made of was checked when it was made."""


def act(context: Context, job: Job) -> Valid | Named | Trouble:
    """Check the environment, as it was at the claim, and its config against the provider."""
    assert job.run is not None
    if job.run["wanted_lease_id"]:
        _resolvable(context, job, None)
        return Named()  # its environment may be archived or gone: the lease has all
    environment = job.environment
    if environment is None or environment["status"] != EnvironmentStatus.ACTIVE:
        name = job.run["environment_id"] if environment is None else environment["name"]
        message = f"environment {name} is archived or gone"
        return Trouble("environment_unavailable", message, permanent=True)
    spec = EnvironmentSpec.model_validate(load(environment["spec"]))
    provider = context.provider(spec.provider)
    budget = Budget(context.timers.provider_call)
    result = provider.validate(spec.config, budget=budget)
    if not result.ok:
        text = "; ".join(
            f"{problem.path or 'config'}: {problem.message}" for problem in result.problems
        )
        return Trouble("config_rejected", text, permanent=True)
    info = provider.describe()
    tree = sourcing.find(context, job, info)
    if isinstance(tree, Trouble):
        return tree
    secrets = _resolvable(context, job, spec)
    return Valid(environment, spec, result.config, info.version, secrets, tree)


def _resolvable(context: Context, job: Job, spec: EnvironmentSpec | None) -> dict[str, int]:
    """
    Return the versions of the environment's secrets; those of the run must be there too.

    Raises:
        SecretUnavailableError: One of them cannot be had.
    """
    assert job.run is not None
    named = {*names_in(spec.config), *names_in(plain_env(spec.env))} if spec else set()
    tenant_id, of_run = job.run["tenant_id"], job.spec.secret_names()
    if not named and not of_run:
        return {}
    if context.vault is None:
        raise SecretUnavailableError("this process resolves no secrets")
    found = {
        name: context.vault.look_up(tenant_id, name).version for name in sorted(named | of_run)
    }
    return {name: found[name] for name in sorted(named)}


def record(tx: Tx, context: Context, job: Job, outcome: Valid | Named | Trouble) -> Job | None:
    """Go on to acquire in the same transaction, or end the run."""
    run = job.run
    assert run is not None
    if isinstance(outcome, Trouble):
        return trouble(tx, context, job, outcome)
    if isinstance(outcome, Valid) and outcome.tree is not None:
        row = moves.move(
            tx,
            "runs",
            run["id"],
            None,
            held=run,
            tree=outcome.tree,
            blob=outcome.tree["digest"],
        )
        assert row is not None
        job.run = run = row
    moves.record(
        tx,
        "step.validate.finished",
        "step.acquire.started",
        tenant_id=run["tenant_id"],
        run_id=run["id"],
    )
    if job.end_requested:
        return ending.follow(tx, context, job, fates.ended_by(job.end_requested))
    if isinstance(outcome, Named):
        return acquire.take_held(tx, context, job)
    return acquire.begin(tx, context, job, wanted(job, outcome))


def wanted(job: Job, valid: Valid) -> "acquire.Wanted":
    """Return what the run's lease must be like: everything that a later worker needs."""
    run = job.run
    assert run is not None
    policy = LeasePolicy(valid.spec.policy)
    workspace = job.spec.workspace
    scope = reuse_scope(policy, environment_id=run["environment_id"], workspace=workspace)
    facts: dict[str, Any] = {
        "v": 1,
        "provider": valid.spec.provider,
        "provider_version": valid.version,
        "config": dict(valid.config),
        "environment": valid.spec.name,
        "environment_env": plain_env(valid.spec.env),
        "workspace": workspace,
        "scope": scope,
        "idle_ttl_s": valid.spec.idle_ttl_s,
        "retained_ttl_s": valid.spec.retained_ttl_s,
    }
    if valid.secrets:
        facts["secrets"] = dict(valid.secrets)
    mark = fingerprint(
        tenant_id=run["tenant_id"],
        provider=valid.spec.provider,
        provider_version=valid.version,
        config=valid.config,
        secret_versions=valid.secrets,
        scope=scope or "",
    )
    return acquire.Wanted(policy=policy, scope=scope, fingerprint=mark, facts=facts)


def trouble(tx: Tx, context: Context, job: Job, problem: Trouble) -> Job | None:
    """Say that the step failed, then retry, park or end; used by validate and acquire."""
    run = job.run
    assert run is not None
    data = {"code": problem.code, "message": problem.message}
    moves.record(
        tx,
        (f"step.{job.step.value}.failed", data),
        tenant_id=run["tenant_id"],
        run_id=run["id"],
        lease_id=run["lease_id"],
    )
    fate: fates.Fate
    if job.end_requested:
        fate = fates.ended_by(job.end_requested)
    elif problem.permanent:
        fate = fates.End(RunStatus.FAILED, problem.code, problem.message)
    elif problem.counts:
        fate = fates.after_trouble(
            job.spec,
            infra_attempts=run["infra_attempts"] + 1,
            code=problem.code,
            message=problem.message,
        )
    else:
        fate = fates.RetryInfra(problem.code, problem.message)
    sound = job.step is Step.VALIDATE or not problem.permanent
    if isinstance(fate, fates.End) and job.lease is not None:
        sound = job.lease["status"] == LeaseStatus.ACTIVE
    return ending.follow(
        tx,
        context,
        job,
        fate,
        sound=sound,
        retry_after=acquire.pause(problem),
        counts=problem.counts,
    )
