"""``leasehold webhooks``: who is told when runs end."""

from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from leasehold.cli.codes import say
from leasehold.cli.options import AsJson, Limit, as_option, pairs
from leasehold.errors import BadInputError

if TYPE_CHECKING:
    from leasehold.cli.ports import Shape

group = typer.Typer(no_args_is_help=True, help="Who is told when runs end.")
Name = Annotated[str, typer.Argument(metavar="NAME", help="The webhook's name or id.")]
Status = Annotated[
    list[str] | None,
    typer.Option("--status", help="Of runs that end so: succeeded, failed, …; repeat it."),
]
Label = Annotated[
    list[str] | None,
    typer.Option("--label", metavar="K=V", help="Of runs that have it; repeat it."),
]
Environment = Annotated[
    str | None, typer.Option("--environment", "--env", metavar="NAME", help="Of its runs.")
]
_FIELDS: Final = {
    "name": "NAME",
    "url": "URL",
    "statuses": "--status",
    "labels": "--label",
    "environment": "--environment",
}


def add_to(app: typer.Typer) -> None:
    app.add_typer(group, name="webhooks")


@group.command()
def create(
    name: Annotated[str, typer.Argument(metavar="NAME", help="Letters, digits, . _ : -")],
    url: Annotated[str, typer.Argument(metavar="URL", help="https://… of the receiver.")],
    *,
    status: Status = None,
    label: Label = None,
    environment: Environment = None,
    as_json: AsJson = False,
) -> None:
    """Tell URL of each run that ends; prints the secret that signs, this once."""
    from leasehold.cli.entering import enter
    from leasehold.domain.specs import parse
    from leasehold.domain.webhooks import WebhookSpec

    body = {
        "name": name,
        "url": url,
        "statuses": status or None,
        "labels": pairs(label, option="--label") or None,
        "environment": environment,
    }
    try:
        spec = parse(WebhookSpec, body)
    except BadInputError as error:
        raise as_option(error, _FIELDS) from None
    with enter() as door:
        shape = door.webhooks.create(spec)
    _tell_secret(shape, as_json=as_json, words="is there")


@group.command("list")
def list_(*, as_json: AsJson = False) -> None:
    """List webhooks by name, with how they do."""
    from leasehold.cli import output
    from leasehold.cli.entering import enter

    with enter() as door:
        shapes = door.webhooks.list()
    if as_json:
        output.emit(shapes)
        return
    names = ("name", "url", "enabled", "waiting", "failures", "rests_until", "last_error")
    output.table(
        [name.upper().replace("_", " ") for name in names],
        [[shape[name] for name in names] for shape in shapes],
        empty="no webhooks yet: `leasehold webhooks create NAME URL`",
    )


@group.command()
def show(name: Name, *, as_json: AsJson = False) -> None:
    """Show one webhook; never its secret."""
    from leasehold.cli import output
    from leasehold.cli.entering import enter

    with enter() as door:
        shape = door.webhooks.show(name)
    if as_json:
        output.emit(shape)
    else:
        output.facts(shape.items())


@group.command()
def update(
    name: Name,
    *,
    url: Annotated[str | None, typer.Option(help="The receiver's new URL.")] = None,
    status: Status = None,
    label: Label = None,
    environment: Environment = None,
    every: Annotated[
        bool, typer.Option("--all", help="Of all runs again, before the other options.")
    ] = False,
    enable: Annotated[
        bool | None, typer.Option("--enable/--disable", help="Disabled, it is told nothing.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Change what is given; a disabled webhook is owed nothing, what waits is given up."""
    from leasehold.cli.entering import enter
    from leasehold.domain.specs import parse
    from leasehold.domain.webhooks import WebhookChange

    body: dict[str, Any] = {}
    if every:
        body = dict.fromkeys(("statuses", "labels", "environment"))
    given = {
        "url": url,
        "statuses": status,
        "labels": pairs(label, option="--label") or None,
        "environment": environment,
        "enabled": enable,
    }
    body |= {field: value for field, value in given.items() if value is not None}
    try:
        wanted = parse(WebhookChange, body)
    except BadInputError as error:
        raise as_option(error, _FIELDS | {"url": "--url"}) from None
    with enter() as door:
        shape = door.webhooks.change(name, wanted)
    words = "is told of ends" if shape["enabled"] else "is disabled"
    _tell(shape, as_json=as_json, words=words)


@group.command("new-secret")
def new_secret(name: Name, *, as_json: AsJson = False) -> None:
    """Make another secret and print it, this once; the old one signs as well for a day."""
    from leasehold.cli.entering import enter

    with enter() as door:
        shape = door.webhooks.new_secret(name)
    _tell_secret(shape, as_json=as_json, words="has a new secret")


@group.command()
def delete(name: Name, *, as_json: AsJson = False) -> None:
    """Delete it and what it is owed."""
    from leasehold.cli.entering import enter

    with enter() as door:
        shape = door.webhooks.delete(name)
    _tell(shape, as_json=as_json, words="is deleted")


@group.command()
def deliveries(
    name: Name,
    *,
    status: Annotated[
        list[str] | None, typer.Option("--status", help="pending, delivered or failed.")
    ] = None,
    limit: Limit = 50,
    as_json: AsJson = False,
) -> None:
    """List what it is owed and was sent, the newest first."""
    from leasehold.cli import output
    from leasehold.cli.entering import enter
    from leasehold.domain.lifecycle import DeliveryStatus

    known = [one.value for one in DeliveryStatus]
    if wrong := sorted(set(status or ()) - set(known)):
        raise BadInputError(
            f"--status: must be one of {', '.join(known)}, got {wrong[0]!r}", field="--status"
        )
    with enter() as door:
        shapes = door.webhooks.deliveries(name, statuses=status or (), limit=limit)
    if as_json:
        output.emit(shapes)
        return
    names = ("run_id", "event", "status", "attempts", "last_status", "last_error", "next_at")
    output.table(
        [one.upper().replace("_", " ") for one in names],
        [[shape[one] for one in names] for shape in shapes],
        empty="nothing yet: a delivery is made when a run ends",
    )


@group.command()
def redeliver(
    name: Name,
    delivery: Annotated[
        str, typer.Argument(metavar="DELIVERY", help="Its id, or the id of its run.")
    ],
    *,
    as_json: AsJson = False,
) -> None:
    """Send once more, under the same id, what was delivered or given up."""
    from leasehold.cli import output
    from leasehold.cli.entering import enter

    with enter() as door:
        hook = door.webhooks.show(name)
        whole = delivery if "." in delivery else f"{hook['id']}.{delivery}"
        shape = door.webhooks.redeliver(hook["id"], whole)
    if as_json:
        output.emit(shape)
    else:
        say(f"run {shape['run_id']} is told to {hook['name']} once more")


def _tell_secret(shape: "Shape", *, as_json: bool, words: str) -> None:
    from leasehold.cli import output

    if as_json:
        output.emit(shape)
        return
    typer.echo(shape["secret"])
    say(f"webhook {shape['name']} {words}; its secret is shown this once")


def _tell(shape: "Shape", *, as_json: bool, words: str) -> None:
    from leasehold.cli import output

    if as_json:
        output.emit(shape)
    else:
        say(f"webhook {shape['name']} {words}")
