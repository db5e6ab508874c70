"""``leasehold env update``: what is named is merged into what there is."""

from pathlib import Path
from typing import Annotated, Any, Final

import typer

from leasehold.cli import environment_commands as environments
from leasehold.cli.options import AsJson, Environment, as_option, pairs, with_secrets
from leasehold.errors import BadInputError

_PARTS: Final = ("config", "env", "limits", "requires")
_WHOLE: Final = ("description", "idle_ttl_s", "retained_ttl_s", "policy")


def add_to(_app: typer.Typer) -> None:
    """Add nothing to the root: the group `env` has this one."""
    environments.group.command()(update)


def update(
    name: Environment,
    *,
    provider: Annotated[
        str | None, typer.Option(help="Another one; then what is set is its whole config.")
    ] = None,
    set_: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="K=V", help="One key of its config; V may be JSON."),
    ] = None,
    config: Annotated[
        Path | None, typer.Option(help="A JSON file that is merged into its config.")
    ] = None,
    env: Annotated[
        list[str] | None, typer.Option("-e", "--env", metavar="K=V", help="For all its runs.")
    ] = None,
    secret: Annotated[
        list[str] | None,
        typer.Option(metavar="K=NAME", help="A variable of all its runs that holds a secret."),
    ] = None,
    set_secret: Annotated[
        list[str] | None,
        typer.Option(metavar="K=NAME", help="A key of its config whose value is a secret."),
    ] = None,
    policy: Annotated[
        str | None, typer.Option(help="When its sandboxes are used again.")
    ] = None,
    max_concurrent: Annotated[int | None, typer.Option(help="Sandboxes of it at once.")] = None,
    require: Annotated[
        list[str] | None,
        typer.Option(metavar="K=V", help="A label that its hosts must have; repeat it."),
    ] = None,
    idle_ttl: Annotated[str | None, typer.Option(help="Of an idle lease, e.g. 10m.")] = None,
    retained_ttl: Annotated[str | None, typer.Option(help="Of a retained one.")] = None,
    description: Annotated[str | None, typer.Option(help="For people.")] = None,
    unset: Annotated[
        list[str] | None,
        typer.Option(
            metavar="FIELD",
            help="Remove it: config.K, env.K, requires.K, limits.max_concurrent, idle_ttl_s, …",
        ),
    ] = None,
    wait: environments.Wait = environments.WAIT,
    unchecked: environments.Unchecked = False,
    as_json: AsJson = False,
) -> None:
    """Change an environment; what is not named stays, what runs goes on as it began."""
    from leasehold.cli import output, probing, vetting
    from leasehold.cli.codes import say
    from leasehold.cli.entering import enter
    from leasehold.domain.specs import parse
    from leasehold.orchestrator import changing

    refs = environments.as_refs(set_secret)
    given: dict[str, Any] = {
        "provider": provider,
        "config": environments.config_of([*(set_ or ()), *refs], config),
        "env": with_secrets(pairs(env, option="-e"), secret, option="--secret"),
        "policy": policy,
        "limits": {} if max_concurrent is None else {"max_concurrent": max_concurrent},
        "requires": pairs(require, option="--require"),
        "idle_ttl_s": idle_ttl,
        "retained_ttl_s": retained_ttl,
        "description": description,
    }
    body = {field: value for field, value in given.items() if value not in (None, {})}
    for path in unset or ():
        _unset(body, path)
    if not body:
        raise BadInputError("nothing is named that should be different", field="--set")
    wait_s = probing.seconds(wait, option="--wait")
    with enter() as door, vetting.advising():
        try:
            wanted = parse(changing.EnvironmentChange, body)
            shape = door.environments.change(name, wanted, wait_s=wait_s, unchecked=unchecked)
        except BadInputError as error:
            raise as_option(error, environments.FIELDS) from None
    vetting.tell(shape)
    if as_json:
        output.emit(shape)
    elif shape["changed"]:
        say(f"environment {shape['name']}: changed {', '.join(shape['changed'])}")
    else:
        say(f"environment {shape['name']} is like that already")


def _unset(body: dict[str, Any], path: str) -> None:
    """
    Say in a change that a field is to go.

    Raises:
        BadInputError: There is no such field, or it is set at the same time.
    """
    first, *rest = path.split(".")
    if not (first in _PARTS and rest) and not (first in _WHOLE and not rest):
        allowed = ", ".join([*(f"{part}.K" for part in _PARTS), *_WHOLE])
        raise BadInputError(f"--unset: there is no {path!r}; allowed: {allowed}")
    place = body
    for part in (first, *rest[:-1]) if rest else ():
        place = place.setdefault(part, {})
        if not isinstance(place, dict):
            raise BadInputError(f"--unset: {path}: {part} is set at the same time")
    last = rest[-1] if rest else first
    if last in place:
        raise BadInputError(f"--unset: {path} is set at the same time")
    place[last] = None
