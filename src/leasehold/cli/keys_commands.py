"""``leasehold keys``: who may use the API."""

from typing import Annotated, Final, TypeAlias

import typer

from leasehold.cli.codes import say
from leasehold.cli.options import AsJson, as_option
from leasehold.errors import BadInputError

group = typer.Typer(no_args_is_help=True, help="Who may use the API.")
_FIELDS: Final = {"name": "NAME", "role": "--role", "expires_s": "--expires"}
Root: TypeAlias = Annotated[bool, typer.Option("--root", help="The platform's keys.")]


def add_to(app: typer.Typer) -> None:
    app.add_typer(group, name="keys")


@group.command()
def create(
    name: Annotated[str, typer.Argument(metavar="NAME", help="Letters, digits, . _ : -")],
    *,
    role: Annotated[
        str | None,
        typer.Option(
            help="viewer (the default), operator or admin of a tenant; root of the platform."
        ),
    ] = None,
    expires: Annotated[
        str | None, typer.Option(help="How long it is valid, e.g. 90d; for ever by default.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Make a key and write it to stdout: this once, it is stored nowhere."""
    from leasehold.cli import output
    from leasehold.cli.entering import enter
    from leasehold.domain.specs import parse
    from leasehold.orchestrator import keys

    try:
        spec = parse(keys.KeySpec, {"name": name, "role": role, "expires_s": expires})
        with enter() as door:
            shape = door.keys.create(spec, platform=role == "root")
    except BadInputError as error:
        raise as_option(error, _FIELDS) from None
    if as_json:
        output.emit(shape)
    else:
        typer.echo(shape["key"])
        say(f"key {name} is there ({shape['role']}); it is not shown again")


@group.command("list")
def list_(*, root: Root = False, as_json: AsJson = False) -> None:
    """List keys, the newest first; no command shows a key itself."""
    from leasehold.cli import output
    from leasehold.cli.entering import enter

    with enter() as door:
        shapes = door.keys.list(platform=root)
    if as_json:
        output.emit(shapes)
        return
    output.table(
        ("NAME", "ROLE", "BEGINS", "STATUS", "EXPIRES", "LAST USED"),
        [
            (
                s["name"],
                s["role"],
                f"lh_{s['prefix']}",
                s["status"],
                s["expires_at"],
                s["last_used_at"],
            )
            for s in shapes
        ],
        empty="no keys yet: `leasehold keys create NAME --role operator`",
    )


@group.command()
def revoke(
    name: Annotated[str, typer.Argument(metavar="NAME", help="The key's name or id.")],
    *,
    root: Root = False,
    as_json: AsJson = False,
) -> None:
    """Take a key's rights away, from its next request on."""
    from leasehold.cli import output
    from leasehold.cli.entering import enter

    with enter() as door:
        shape = door.keys.revoke(name, platform=root)
    if as_json:
        output.emit(shape)
    else:
        say(f"key {shape['name']} is revoked")
