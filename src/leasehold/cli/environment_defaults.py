"""``leasehold env default``: where runs go that name no environment."""

from typing import TYPE_CHECKING, Annotated, Any, TypeAlias

import typer

from leasehold.cli import environment_commands as commands
from leasehold.cli.codes import say
from leasehold.cli.options import AsJson
from leasehold.errors import BadInputError

if TYPE_CHECKING:
    from leasehold.orchestrator.selecting import SelectionSpec

group = typer.Typer(no_args_is_help=True, help="Where runs go that name no environment.")
Workspace: TypeAlias = Annotated[
    str | None, typer.Option(metavar="NAME", help="Of runs that work on this workspace.")
]
Project: TypeAlias = Annotated[
    str | None, typer.Option(metavar="NAME", help="Of runs with the label project=NAME.")
]


def add_to(_app: typer.Typer) -> None:
    """Add nothing to the root: the group `env` has this one."""
    commands.group.add_typer(group, name="default")


@group.command("set")
def set_(
    name: Annotated[str, typer.Argument(metavar="NAME", help="The environment.")],
    *,
    workspace: Workspace = None,
    project: Project = None,
    as_json: AsJson = False,
) -> None:
    """Set the default of a workspace, of a project, or (with neither) of the tenant."""
    shape = _select(_spec(workspace, project, name))
    if as_json:
        _emit(shape)
    else:
        say(f"{_words(shape)}: {shape['environment']}")


@group.command("delete")
def delete(
    *, workspace: Workspace = None, project: Project = None, as_json: AsJson = False
) -> None:
    """Take a default away: the next one applies (workspace, project, tenant, `local`)."""
    shape = _select(_spec(workspace, project, None))
    if as_json:
        _emit(shape)
    else:
        say(f"{_words(shape)}: no default of its own")


@group.command("list")
def list_(*, as_json: AsJson = False) -> None:
    """List defaults in the order in which they are asked; without one it is `local`."""
    from leasehold.cli import output
    from leasehold.cli.entering import enter

    with enter() as door:
        shapes = door.selections.list()
    if as_json:
        output.emit(shapes)
        return
    output.table(
        ("OF", "NAME", "ENVIRONMENT", "STATUS"),
        [(s["kind"], s["name"], s["environment"], s["environment_status"]) for s in shapes],
        empty="no defaults: runs that name no environment go to `local`",
    )


def _spec(workspace: str | None, project: str | None, name: str | None) -> "SelectionSpec":
    from leasehold.domain.specs import parse
    from leasehold.orchestrator.selecting import SelectionSpec

    if workspace is not None and project is not None:
        raise BadInputError("--workspace and --project: give one of them", field="--workspace")
    if workspace is not None:
        body = {"kind": "workspace", "name": workspace}
    elif project is not None:
        body = {"kind": "project", "name": project}
    else:
        body = {"kind": "tenant", "name": ""}
    return parse(SelectionSpec, {**body, "environment": name})


def _select(wanted: "SelectionSpec") -> dict[str, Any]:
    from leasehold.cli.entering import enter

    with enter() as door:
        return door.selections.select(wanted)


def _emit(shape: dict[str, Any]) -> None:
    from leasehold.cli import output

    output.emit(shape)


def _words(shape: dict[str, Any]) -> str:
    return f"{shape['kind']} {shape['name']}".strip()
