"""``leasehold secrets``: values that only workers see, and only when they are used."""

import sys
from typing import Annotated, Final

import typer

from leasehold.cli.codes import say
from leasehold.cli.options import AsJson, as_option
from leasehold.errors import BadInputError

group = typer.Typer(
    no_args_is_help=True, help="Values that only workers see, and only when they are used."
)
_FIELDS: Final = {"name": "NAME", "value": "the value"}
Name = Annotated[str, typer.Argument(metavar="NAME", help="Letters, digits, _ . -")]


def add_to(app: typer.Typer) -> None:
    app.add_typer(group, name="secrets")


@group.command("set")
def set_(name: Name, *, as_json: AsJson = False) -> None:
    """Store the value that comes on stdin (one newline at its end is left out)."""
    from leasehold.cli import output
    from leasehold.cli.entering import enter
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
        shape = door.secrets.set(name, value)
    if len(value) < SHORTEST:
        say(f"secret {name} has fewer than {SHORTEST} characters: output will not hide it")
    if as_json:
        output.emit(shape)
    else:
        say(f"secret {name} is there, version {shape['version']}")


@group.command("list")
def list_(*, as_json: AsJson = False) -> None:
    """List names and versions; no command shows a value."""
    from leasehold.cli import output
    from leasehold.cli.entering import enter

    with enter() as door:
        shapes = door.secrets.list()
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
    from leasehold.cli.entering import enter

    with enter() as door:
        shape = door.secrets.delete(name)
    if as_json:
        output.emit(shape)
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
    from leasehold.cli.entering import enter

    with enter() as door:
        shape = door.secrets.rotate()
    if as_json:
        output.emit(shape)
    else:
        say(
            f"{shape['encrypted_anew']} values encrypted anew; all are under key"
            f" {shape['key']} now"
        )


@group.command("new-key")
def new_key() -> None:
    """Write a fresh key to stdout: a line for the file of keys, put before the others."""
    from leasehold.vault import keys

    typer.echo(keys.new_key())
