"""``leasehold env``: the named places where work may run."""

import json
from pathlib import Path
from typing import Annotated, Any, Final, TypeAlias

import typer

from leasehold.cli.options import AsJson, Environment, as_option, pairs, with_secrets
from leasehold.errors import BadInputError

WAIT: Final = "10s"
Wait: TypeAlias = Annotated[
    str, typer.Option(help="How long to wait for a worker that is ready, and its answer.")
]
Unchecked: TypeAlias = Annotated[
    bool,
    typer.Option("--unchecked", help="Ask no worker; `env show` says that nobody was asked."),
]
group = typer.Typer(no_args_is_help=True, help="Named places where work may run.")
FIELDS: Final = {
    "idle_ttl_s": "--idle-ttl",
    "retained_ttl_s": "--retained-ttl",
    "limits.max_concurrent": "--max-concurrent",
    "policy": "--policy",
    "requires": "--require",
    "provider": "--provider",
    "name": "NAME",
    "env": "-e",
}


def add_to(app: typer.Typer) -> None:
    app.add_typer(group, name="env")


@group.command("list")
def list_(
    *,
    archived: Annotated[bool, typer.Option("--all", help="Archived ones as well.")] = False,
    as_json: AsJson = False,
) -> None:
    """List environments."""
    from leasehold.cli import output
    from leasehold.cli.entering import enter

    with enter() as door:
        found = door.environments.list()
    shapes = [shape for shape in found if archived or shape["status"] == "active"]
    if as_json:
        output.emit(shapes)
        return
    output.table(
        ("NAME", "STATUS", "PROVIDER", "POLICY", "MAX", "CONFIG"),
        [
            (
                s["name"],
                s["status"],
                s["provider"],
                s["policy"],
                s["limits"].get("max_concurrent"),
                s["config"],
            )
            for s in shapes
        ],
        empty="no environments yet: `leasehold env create NAME --provider KEY`",
    )


def as_refs(values: list[str] | None) -> list[str]:
    """Return ``--set-secret`` options as ``--set`` takes them."""
    named = pairs(values, option="--set-secret")
    return [f"{path}={json.dumps({'secret': secret})}" for path, secret in named.items()]


def config_of(values: list[str] | None, file: Path | None) -> dict[str, Any]:
    """
    Return a config from a JSON file and ``--set`` options, whose values may be JSON.

    Raises:
        BadInputError: The file cannot be read or holds no JSON object.
    """
    config: dict[str, Any] = {}
    if file is not None:
        try:
            loaded = json.loads(file.read_text())
        except OSError as error:
            raise BadInputError(f"--config: {file}: {error.strerror}") from None
        except ValueError as error:
            raise BadInputError(f"--config: {file} is not JSON: {error}") from None
        if not isinstance(loaded, dict):
            raise BadInputError(f"--config: {file} must hold a JSON object")
        config |= loaded
    for path, text in pairs(values, option="--set").items():
        try:
            value = json.loads(text)
        except ValueError:
            value = text
        place = config
        *parents, name = path.split(".")
        for parent in parents:
            place = place.setdefault(parent, {})
            if not isinstance(place, dict):
                raise BadInputError(f"--set: {path}: {parent} is not a mapping")
        place[name] = value
    return config


@group.command()
def create(
    name: Annotated[str, typer.Argument(metavar="NAME", help="Letters, digits, . _ : -")],
    *,
    provider: Annotated[str, typer.Option(help="The provider's key.")],
    set_: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="K=V", help="One key of its config; V may be JSON."),
    ] = None,
    config: Annotated[Path | None, typer.Option(help="A JSON file with its config.")] = None,
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
        str,
        typer.Option(
            help="ephemeral, reuse_by_environment, reuse_by_workspace or retain_on_failure."
        ),
    ] = "ephemeral",
    max_concurrent: Annotated[
        int | None, typer.Option(help="Sandboxes of it at once; no limit by default.")
    ] = None,
    require: Annotated[
        list[str] | None,
        typer.Option(metavar="K=V", help="A label that its hosts must have; repeat it."),
    ] = None,
    idle_ttl: Annotated[str | None, typer.Option(help="Of an idle lease, e.g. 10m.")] = None,
    retained_ttl: Annotated[str | None, typer.Option(help="Of a retained one.")] = None,
    description: Annotated[str, typer.Option(help="For people.")] = "",
    wait: Wait = WAIT,
    unchecked: Unchecked = False,
    as_json: AsJson = False,
) -> None:
    """Save a new environment; its config is checked by schema, then by a worker's provider."""
    from leasehold.cli import output, probing, vetting
    from leasehold.cli.codes import say
    from leasehold.cli.entering import enter
    from leasehold.domain.specs import EnvironmentSpec, parse

    body = {
        "name": name,
        "provider": provider,
        "description": description,
        "config": config_of([*(set_ or ()), *as_refs(set_secret)], config),
        "env": with_secrets(pairs(env, option="-e"), secret, option="--secret"),
        "policy": policy,
        "limits": {"max_concurrent": max_concurrent},
        "requires": pairs(require, option="--require"),
        "idle_ttl_s": idle_ttl,
        "retained_ttl_s": retained_ttl,
    }
    try:
        spec = parse(EnvironmentSpec, body)
    except BadInputError as error:
        raise as_option(error, FIELDS) from None
    wait_s = probing.seconds(wait, option="--wait")
    with enter() as door, vetting.advising():
        shape = door.environments.create(spec, wait_s=wait_s, unchecked=unchecked)
    if as_json:
        output.emit(shape)
    else:
        say(f"environment {name} is there")
    vetting.tell(shape)


@group.command()
def show(name: Environment, *, as_json: AsJson = False) -> None:
    """Show one environment and what is under way in it."""
    from leasehold.cli import output
    from leasehold.cli.entering import enter

    with enter() as door:
        shape = door.environments.show(name)
    if as_json:
        output.emit(shape)
    else:
        output.facts(shape.items())


@group.command()
def archive(
    name: Environment,
    *,
    undo: Annotated[bool, typer.Option("--undo", help="Take it up again.")] = False,
    as_json: AsJson = False,
) -> None:
    """Take no new runs in an environment; what runs goes on, idle leases end."""
    from leasehold.cli import output
    from leasehold.cli.codes import say
    from leasehold.cli.entering import enter

    with enter() as door:
        shape = door.environments.archive(name, undo=undo)
    if as_json:
        output.emit(shape)
    else:
        say(f"environment {shape['name']} is {shape['status']}")


@group.command()
def delete(
    name: Environment,
    *,
    yes: Annotated[
        bool, typer.Option("--yes", help="Although runs are under way or leases live in it.")
    ] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Only say what that would touch.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Delete an environment; runs and leases keep what they need of it."""
    from leasehold.cli import output
    from leasehold.cli.codes import say
    from leasehold.cli.entering import enter

    if dry_run:
        with enter() as door:
            shape = door.environments.radius(name)
        if as_json:
            output.emit(shape)
        else:
            output.facts(shape.items())
        return
    with enter() as door:
        shape = door.environments.delete(name, force=yes)
    if as_json:
        output.emit(shape)
    else:
        say(f"environment {shape['name']} is deleted")
