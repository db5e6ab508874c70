"""
The plugin: the contract's methods, each one script on the target and the reading of its answer.

`connections` and `channel` carry a call there, `sandbox` says what it does and what a death in
it leaves, `polling` looks at many; commands are the shell supervisor's. It lives on the target,
like every clock and process number in it, so any worker that has the key continues another's
work, and neither the worker's end nor the sshd's disturbs a command.

Why no cgroups? One would have to be made before each start, a trip of its own, and an account
that ssh reaches seldom may. So containment is honestly the session.
"""

import os
from collections.abc import Iterator, Mapping, Sequence
from datetime import timedelta
from typing import Any, Final

from leasehold.provider import (
    Acquired,
    Budget,
    Capabilities,
    Handle,
    Health,
    HealthState,
    Info,
    Inspection,
    Isolation,
    Json,
    LeaseRef,
    NativeTtl,
    Owned,
    Place,
    Polled,
    PollItem,
    ProviderError,
    ReleaseMode,
    Renewal,
    RunResult,
    Sandbox,
    SandboxState,
    ShellProvider,
    Suspend,
    Target,
    UnavailableError,
    Validation,
    effect,
)
from leasehold.provider.supervisor import checked_id, fence_name
from leasehold_ssh import config as configs
from leasehold_ssh import polling, sandbox
from leasehold_ssh.channel import Answer
from leasehold_ssh.connections import Call, Connections

KEY: Final = "ssh"
VERSION: Final = "0.1.0"
_POLL_S: Final = 15.0


class SshProvider(ShellProvider):
    """Sandboxes are directories on the targets that configs name."""

    def __init__(
        self,
        settings: Mapping[str, Any],
        *,
        script: str | None = None,
        own_script: str | None = None,
        connections: Connections | None = None,
    ) -> None:
        """For tests: texts for the target that die on their way, and connections to share."""
        super().__init__(script=script)
        del settings
        self._own = own_script or sandbox.script()
        self._connections = connections or Connections()

    def describe(self) -> Info:
        return Info(
            key=KEY,
            version=VERSION,
            capabilities=Capabilities(
                isolation=Isolation.NONE,
                suspend=Suspend.DISK,
                native_ttl=NativeTtl.ABSOLUTE,
                host_bound=False,
                lists_by_config=True,
            ),
            config_schema=configs.SCHEMA,
        )

    def probe(self, config: Json, *, budget: Budget) -> Health:
        budget.check()
        if "host" not in config:
            return Health(
                state=HealthState.HEALTHY,
                summary="ready to connect; a target is looked at when its config is used",
            )
        try:
            told = self._ask(config, "probe", config["path"], budget=budget)
            found = sandbox.words(told, least=3)
        except ProviderError as error:
            return Health(state=HealthState.UNHEALTHY, summary=str(error))
        kernel, writable, *missing = found[1:]
        name = configs.login_of(config).name
        if missing:
            text = f"{name} lacks {', '.join(missing)}"
            return Health(state=HealthState.UNHEALTHY, summary=text)
        if writable != "yes":
            text = f"{name}: the account cannot write to {config['path']}"
            return Health(state=HealthState.UNHEALTHY, summary=text)
        return Health(
            state=HealthState.HEALTHY,
            summary=f"{name} answers; commands share its account, no isolation",
            details={"kernel": kernel, "path": config["path"]},
        )

    def validate(self, config: Json, *, budget: Budget) -> Validation:
        budget.check()
        return configs.check(config)

    def acquire(
        self,
        lease: LeaseRef,
        config: Json,
        *,
        known: Handle | None,
        ttl: timedelta,
        fence: int,
        budget: Budget,
    ) -> Sandbox:
        told = self._change(
            config,
            "acquire",
            *sandbox.whereabouts(config, lease),
            fence_name(fence),
            os.urandom(8).hex(),
            str(lease.number),
            _hundredths(ttl),
            str(known.get("incarnation", "-")) if known else "-",
            budget=budget,
        )
        found = sandbox.words(told, least=2)
        where = f"{configs.login_of(config).name}{sandbox.box(config, lease.id)}"
        if found[1] == "foreign":
            # A database that was copied has the same ids; what is there is the other's.
            raise UnavailableError(f"{where} is not ours", retryable=False)
        outcome, incarnation = found[1:]
        return Sandbox(
            sandbox_id=where,
            handle={"v": 1, "incarnation": incarnation},
            outcome=Acquired(outcome),
            remote_cwd=sandbox.place(config, lease.id, incarnation).cwd,
            metadata={
                "provider": KEY,
                "target": configs.login_of(config).name,
                "path": config["path"],
                "reuse_lease": config.get("reuse_lease", True),
            },
        )

    def inspect(self, target: Target, *, budget: Budget) -> Inspection:
        told = self._ask(target.config, "inspect", *_addressed(target), budget=budget)
        found = sandbox.words(told, least=2)
        if found[1] == "gone":
            return Inspection(state=SandboxState.GONE)
        state, incarnation, left = found[1:]
        return Inspection(
            state=SandboxState(state), incarnation=incarnation, expires_in_s=int(left) / 100
        )

    def renew(self, target: Target, *, fence: int, ttl: timedelta, budget: Budget) -> Renewal:
        told = self._change(
            target.config,
            "renew",
            *_addressed(target),
            fence_name(fence),
            _hundredths(ttl),
            budget=budget,
        )
        sandbox.words(told, least=1)
        return Renewal(expires_in_s=ttl.total_seconds(), enforced_by=NativeTtl.ABSOLUTE)

    def release(self, target: Target, *, fence: int, mode: ReleaseMode, budget: Budget) -> None:
        told = self._change(
            target.config, str(mode), *_addressed(target), fence_name(fence), budget=budget
        )
        if mode is ReleaseMode.DESTROY:
            sandbox.removed(told)
        else:
            sandbox.words(told, least=1)

    def list_owned(self, deployment: str, *, config: Json, budget: Budget) -> Iterator[Owned]:
        if "host" not in config:
            return
        told = self._ask(
            config, "list", config["path"], sandbox.word(deployment), budget=budget
        )
        yield from sandbox.owned(told, config, configs.login_of(config).name)

    def run(
        self, target: Target, argv: Sequence[str], *, stdin: bytes, budget: Budget
    ) -> RunResult:
        with effect("ssh:call"):
            return RunResult(*self._carry(target.config, argv, stdin=stdin, budget=budget))

    def place(self, target: Target) -> Place:
        incarnation = target.handle.get("incarnation")
        return sandbox.place(target.config, target.lease.id, incarnation)

    def poll(
        self, items: Sequence[PollItem], *, limit_bytes: int, budget: Budget
    ) -> Sequence[Polled]:
        answers: dict[int, Polled] = {}
        groups: dict[configs.Login, list[int]] = {}
        for index, item in enumerate(items):
            try:
                checked_id(item.execution_id)
                groups.setdefault(configs.login_of(item.target.config), []).append(index)
            except ProviderError as error:
                answers[index] = Polled(execution_id=item.execution_id, error=error)
        calls: list[Call] = []
        asked: list[tuple[list[int], polling.Survey]] = []
        for login, indexes in groups.items():
            mine = [items[index] for index in indexes]
            controls = [self.place(item.target).control for item in mine]
            rest = iter(indexes)
            for survey in polling.surveys(mine, controls):
                argv = self._argv("survey", str(limit_bytes), survey.mark)
                calls.append(Call(login, argv, survey.stdin))
                asked.append(([next(rest) for _ in survey.items], survey))
        # A target that is silent must not keep the others' answers for long.
        patience = Budget(min(_POLL_S, budget.left_s()), cancelled=budget.cancelled)
        told = self._connections.run_all(calls, budget=patience)
        for (indexes, survey), one in zip(asked, told, strict=True):
            answers.update(zip(indexes, survey.read(one), strict=True))
        return [answers[index] for index in range(len(items))]

    def close(self) -> None:
        self._connections.close()

    # ---- a call on the target ----------------------------------------------------------------

    def _argv(self, verb: str, *args: str) -> list[str]:
        return sandbox.argv(self._own, self._script, verb, *args)

    def _ask(self, config: Json, verb: str, *args: str, budget: Budget) -> Answer:
        return self._carry(config, self._argv(verb, *args), stdin=b"", budget=budget)

    def _change(self, config: Json, verb: str, *args: str, budget: Budget) -> Answer:
        with effect(f"ssh:{verb}"):
            return self._ask(config, verb, *args, budget=budget)

    def _carry(
        self, config: Json, argv: Sequence[str], *, stdin: bytes, budget: Budget
    ) -> Answer:
        budget.check()
        call = Call(configs.login_of(config), argv, stdin)
        return self._connections.run(call, budget=budget)


def _addressed(target: Target) -> list[str]:
    """Return the words that lead to one incarnation, or to whichever the lease has."""
    incarnation = str(target.handle.get("incarnation", "-"))
    return [*sandbox.whereabouts(target.config, target.lease), incarnation]


def _hundredths(ttl: timedelta) -> str:
    return str(max(0, round(ttl.total_seconds() * 100)))
