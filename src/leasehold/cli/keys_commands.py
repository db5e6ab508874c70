"""``leasehold keys``: who may use the API."""

from typing import TYPE_CHECKING, Annotated, Final

import typer

from leasehold.cli.codes import say
from leasehold.cli.options import TENANT, AsJson, as_option
from leasehold.errors import BadInputError

if TYPE_CHECKING:
    from leasehold.store.database import Tx

group = typer.Typer(no_args_is_help=True, help="Who may use the API.")
_FIELDS: Final = {"name": "NAME", "role": "--role", "expires_s": "--expires"}


def add_to(app: typer.Typer) -> None:
    app.add_typer(group, name="keys")


@group.command()
def create(
    name: Annotated[str, typer.Argument(metavar="NAME", help="Letters, digits, . _ : -")],
    *,
    role: Annotated[str, typer.Option(help="viewer, operator or admin.")] = "viewer",
    expires: Annotated[
        str | None, typer.Option(help="How long it is valid, e.g. 90d; for ever by default.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Make a key and write it to stdout: this once, it is stored nowhere."""
    from leasehold.cli import output
    from leasehold.cli.door import enter
    from leasehold.domain.specs import parse
    from leasehold.orchestrator import keys
    from leasehold.store import views

    try:
        spec = parse(keys.KeySpec, {"name": name, "role": role, "expires_s": expires})
    except BadInputError as error:
        raise as_option(error, _FIELDS) from None
    with enter() as door:
        row, key = door.write(
            "keys.create",
            lambda tx: keys.create(tx, spec, tenant_id=TENANT, actor="cli"),
            repeatable=False,
        )
    if as_json:
        output.emit(views.key_view(row) | {"key": key})
    else:
        typer.echo(key)
        say(f"key {name} is there ({row['role']}); it is not shown again")


@group.command("list")
def list_(*, as_json: AsJson = False) -> None:
    """List keys, the newest first; no command shows a key itself."""
    from leasehold.cli import output
    from leasehold.cli.door import enter
    from leasehold.store import keys, views

    with enter() as door:
        rows = door.read(lambda tx: keys.page(tx, tenant_id=TENANT))
    shapes = [views.key_view(row) for row in rows]
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
    as_json: AsJson = False,
) -> None:
    """Take a key's rights away, from its next request on."""
    from leasehold.cli import output
    from leasehold.cli.door import enter
    from leasehold.orchestrator import keys
    from leasehold.store import views

    def work(tx: "Tx") -> "views.Shape":
        return views.key_view(keys.revoke(tx, name, tenant_id=TENANT, actor="cli"))

    with enter() as door:
        shape = door.write("keys.revoke", work, repeatable=False)
    if as_json:
        output.emit(shape)
    else:
        say(f"key {shape['name']} is revoked")
