"""``leasehold secrets``: values that only workers see, and only when they are used."""

import sys
from typing import TYPE_CHECKING, Annotated, Final

import typer

from leasehold.cli.codes import say
from leasehold.cli.options import AsJson, as_option
from leasehold.errors import BadInputError

if TYPE_CHECKING:
    from leasehold.cli.door import Door
    from leasehold.vault.keys import Keys

group = typer.Typer(
    no_args_is_help=True, help="Values that only workers see, and only when they are used."
)
_FIELDS: Final = {"name": "NAME", "value": "the value"}
Name = Annotated[str, typer.Argument(metavar="NAME", help="Letters, digits, _ . -")]


def add_to(app: typer.Typer) -> None:
    app.add_typer(group, name="secrets")


def keys_of(door: "Door", *, make: bool) -> "Keys":
    """
    Return the keys of this deployment.

    Raises:
        BadInputError: There are none; says how to make them.
    """
    from leasehold.vault import keys

    embedded = door.settings.database_url is None
    path = door.settings.secret_keys_path
    if make and embedded and keys.make_file(path):
        say(f"made {path}: whoever has it and the database can read the secrets")
    if not path.exists():
        raise BadInputError(
            f"{keys.SETTING}: there is no {path}; make it once with `(umask 077; leasehold"
            " secrets new-key > FILE)`, and give the same file to every worker host",
            field=keys.SETTING,
        )
    return keys.Keys.load(path)


@group.command("set")
def set_(name: Name, *, as_json: AsJson = False) -> None:
    """Store the value that comes on stdin (one newline at its end is left out)."""
    from leasehold.cli import output
    from leasehold.cli.door import enter
    from leasehold.domain.redaction import SHORTEST
    from leasehold.domain.secrets import MAX_BYTES
    from leasehold.vault import keeping

    if sys.stdin.isatty():
        import getpass

        value = getpass.getpass(f"value of {name}: ")
    else:
        data = sys.stdin.buffer.read(MAX_BYTES + 2)
        try:
            value = data.decode().removesuffix("\n")
        except UnicodeDecodeError:
            raise BadInputError("the value: must be UTF-8 text", field="stdin") from None
    try:
        keeping.check(name, value)
    except BadInputError as error:
        raise as_option(error, _FIELDS) from None
    with enter() as door:
        keys = keys_of(door, make=True)
        version = door.write(
            "secrets.set",
            lambda tx: keeping.put(
                tx, keys, tenant_id=door.tenant, name=name, value=value, actor="cli"
            ),
            repeatable=False,
        )
    if len(value) < SHORTEST:
        say(f"secret {name} has fewer than {SHORTEST} characters: output will not hide it")
    if as_json:
        output.emit({"name": name, "version": version})
    else:
        say(f"secret {name} is there, version {version}")


@group.command("list")
def list_(*, as_json: AsJson = False) -> None:
    """List names and versions; no command shows a value."""
    from leasehold.cli import output
    from leasehold.cli.door import enter
    from leasehold.store import secret_views

    with enter() as door:
        shapes = door.read(lambda tx: secret_views.listed(tx, tenant_id=door.tenant))
    if as_json:
        output.emit(shapes)
        return
    output.table(
        ("NAME", "VERSION", "LIVE LEASES", "KEY", "SET AT"),
        [(s["name"], s["version"], s["leases"], s["key"], s["updated_at"]) for s in shapes],
        empty="no secrets yet: `leasehold secrets set NAME` reads one from stdin",
    )


@group.command()
def delete(name: Name, *, as_json: AsJson = False) -> None:
    """Take a name away; live leases keep what they name of it until they are over."""
    from leasehold.cli import output
    from leasehold.cli.door import enter
    from leasehold.vault import keeping

    with enter() as door:
        shape = door.write(
            "secrets.delete",
            lambda tx: keeping.delete(tx, tenant_id=door.tenant, name=name, actor="cli"),
            repeatable=False,
        )
    if as_json:
        output.emit(shape | {"deleted": True})
        return
    say(f"secret {name} is deleted")
    if shape["environments"]:
        say(f"runs in {', '.join(shape['environments'])} will fail: they name it")
    if shape["leases"]:
        say(f"{shape['leases']} live leases keep what they name of it until they are over")


@group.command()
def rotate(*, as_json: AsJson = False) -> None:
    """Encrypt all values anew with the first key of the file."""
    from leasehold.cli import output
    from leasehold.cli.door import enter
    from leasehold.vault import keeping

    with enter() as door:
        keys = keys_of(door, make=False)
        count = keeping.rotate(door.app.database, keys, actor="cli")
    if as_json:
        output.emit({"key": keys.first, "encrypted_anew": count})
    else:
        say(f"{count} values encrypted anew; all are under key {keys.first} now")


@group.command("new-key")
def new_key() -> None:
    """Write a fresh key to stdout: a line for the file of keys, put before the others."""
    from leasehold.vault import keys

    typer.echo(keys.new_key())
