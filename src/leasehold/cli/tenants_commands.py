"""``leasehold tenants``: who owns environments, secrets, runs and keys."""

from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from leasehold.cli.codes import say
from leasehold.cli.options import AsJson, as_option
from leasehold.errors import BadInputError

if TYPE_CHECKING:
    from leasehold.cli.ports import Shape

group = typer.Typer(no_args_is_help=True, help="Who owns environments, secrets, runs and keys.")
Name = Annotated[str, typer.Argument(metavar="NAME", help="The tenant's name.")]
_FIELDS: Final = {
    "name": "NAME",
    "description": "--description",
    "limits.max_concurrent": "--max-concurrent",
    "limits.max_queued": "--max-queued",
}
_NO_LIMIT: Final = "none"


def add_to(app: typer.Typer) -> None:
    app.add_typer(group, name="tenants")


@group.command()
def create(
    name: Annotated[
        str, typer.Argument(metavar="NAME", help="Small letters, digits, - in between.")
    ],
    *,
    max_concurrent: Annotated[
        int | None, typer.Option(help="Its sandboxes at once; default: as the settings say.")
    ] = None,
    max_queued: Annotated[
        int | None, typer.Option(help="Its queued runs; default: as the settings say.")
    ] = None,
    description: Annotated[str, typer.Option(help="For people.")] = "",
    as_json: AsJson = False,
) -> None:
    """Make a tenant; then `leasehold keys create NAME --tenant TENANT --role admin`."""
    from leasehold.cli.entering import enter
    from leasehold.orchestrator import tenants

    limits = {"max_concurrent": max_concurrent, "max_queued": max_queued}
    body = {"name": name, "description": description, "limits": limits}
    spec = _parsed(tenants.TenantSpec, body)
    with enter() as door:
        shape = door.tenants.create(spec)
    _tell(shape, f"tenant {name} is there; it has no keys yet", as_json=as_json)


@group.command("list")
def list_(*, as_json: AsJson = False) -> None:
    """List tenants and how much each has under way."""
    from leasehold.cli import output
    from leasehold.cli.entering import enter

    with enter() as door:
        shapes = door.tenants.list()
    if as_json:
        output.emit(shapes)
        return
    output.table(
        ("NAME", "STATUS", "RUNNING", "QUEUED", "LIVE LEASES", "MAX", "MAX QUEUED"),
        [
            (
                s["name"],
                s["status"],
                s["running_runs"],
                s["queued_runs"],
                s["live_leases"],
                s["limits"]["max_concurrent"],
                s["limits"]["max_queued"],
            )
            for s in shapes
        ],
        empty="no tenants",
    )


@group.command()
def show(name: Name, *, as_json: AsJson = False) -> None:
    """Show a tenant and how much it has under way."""
    from leasehold.cli import output
    from leasehold.cli.entering import enter

    with enter() as door:
        shape = door.tenants.show(name)
    if as_json:
        output.emit(shape)
    else:
        output.facts(shape.items())


@group.command()
def limits(
    name: Name,
    *,
    max_concurrent: Annotated[
        str | None,
        typer.Option(metavar="N|none", help="Sandboxes at once; none: as the settings say."),
    ] = None,
    max_queued: Annotated[
        str | None,
        typer.Option(metavar="N|none", help="Queued runs; none: as the settings say."),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Change a tenant's limits; what is admitted already stays."""
    from leasehold.cli.entering import enter
    from leasehold.orchestrator import tenants

    typed = {"max_concurrent": max_concurrent, "max_queued": max_queued}
    given = {field: _limit(text) for field, text in typed.items() if text is not None}
    if not given:
        raise BadInputError("give --max-concurrent or --max-queued", field="--max-concurrent")
    wanted = _parsed(tenants.TenantChange, {"limits": given})
    with enter() as door:
        shape = door.tenants.change(name, wanted)
    now = {field: shape["limits"][field] or "as the settings say" for field in given}
    words = ", ".join(f"{field}: {value}" for field, value in now.items())
    _tell(shape, f"tenant {name} has {words}", as_json=as_json)


def _limit(text: str) -> str | None:
    return None if text == _NO_LIMIT else text


@group.command()
def archive(
    name: Name,
    *,
    undo: Annotated[bool, typer.Option("--undo", help="Take it up again.")] = False,
    as_json: AsJson = False,
) -> None:
    """Take no new runs and leases of a tenant; what lives goes on, its keys stay valid."""
    from leasehold.cli.entering import enter

    with enter() as door:
        shape = door.tenants.archive(name, undo=undo)
    _tell(shape, f"tenant {name} is {shape['status']}", as_json=as_json)


def _parsed(kind: Any, body: dict[str, Any]) -> Any:
    from leasehold.domain.specs import parse

    try:
        return parse(kind, body)
    except BadInputError as error:
        raise as_option(error, _FIELDS) from None


def _tell(shape: "Shape", words: str, *, as_json: bool) -> None:
    from leasehold.cli import output

    if as_json:
        output.emit(shape)
    else:
        say(words)
