"""``leasehold reconcile`` and ``leasehold db restored``: providers against SQL."""

from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, Any

import typer

from leasehold.cli import codes
from leasehold.cli.codes import say
from leasehold.cli.options import AsJson
from leasehold.cli.stack_commands import database_group

if TYPE_CHECKING:
    from leasehold.cli.reconciling import Books

_WAIT = typer.Option(help="How long to wait for the hosts' answers.")


def add_to(app: typer.Typer) -> None:
    app.command()(reconcile)


def reconcile(
    *,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Only look: destroy nothing, end nothing.")
    ] = False,
    wait: Annotated[str, _WAIT] = "2m",
    as_json: AsJson = False,
) -> None:
    """
    Compare what each provider on each live host has with SQL, and mend what differs.

    Exits with 0 if every sandbox belongs to a live lease or is being released, with 1 if
    something differs, with 5 if a host did not answer.
    """
    from leasehold.cli import footing, probing, reconciling
    from leasehold.cli.door import enter

    wait_s = probing.seconds(wait, option="--wait")
    with enter() as door:
        footing.need_stack(door.settings, "reconcile")
        request = reconciling.ask(door, dry_run=dry_run)
        books = reconciling.await_answers(door, request, wait_s=wait_s, dry_run=dry_run)
    _tell(books, as_json=as_json)
    if not books.right:
        raise typer.Exit(codes.WRONG)
    if not books.complete:
        raise typer.Exit(codes.UNAVAILABLE)


def _shape(books: "Books") -> dict[str, Any]:
    shape = asdict(books)
    proven = books.complete and books.right
    return {"ok": proven, "proof": books.proof(), **shape}


def _tell(books: "Books", *, as_json: bool) -> None:
    from leasehold.cli import output, reconciling

    if as_json:
        output.emit(_shape(books))
        return
    names = (*reconciling.COUNTS, *reconciling.LISTS)
    rows = [(r["host"], r["provider"], *(_count(r[n]) for n in names)) for r in books.reports]
    columns = ("HOST", "PROVIDER", *(n.upper().replace("_", " ") for n in names))
    output.table(columns, rows, empty="no host answered")
    for report in books.reports:
        for name in reconciling.LISTS:
            for lease_id in report[name]:
                say(f"{report['host']}/{report['provider']}: {name} {lease_id}")
    for host in books.away:
        say(f"not asked, it is away: {host}")
    say(books.proof())


def _count(value: int | list[str]) -> int:
    return value if isinstance(value, int) else len(value)


@database_group.command()
def restored(
    *,
    wait: Annotated[str, _WAIT] = "1m",
    as_json: AsJson = False,
) -> None:
    """
    Say that this database is the one to go on with, after a restore from a backup.

    Raises the epoch in the fences, keeps what may be in use, and takes in the sandboxes that
    the database has forgotten as retained leases: look at them, then destroy them by hand.
    """
    from leasehold.cli import footing, output, probing, reconciling
    from leasehold.cli.door import enter
    from leasehold.maintenance import restored as restoring

    wait_s = probing.seconds(wait, option="--wait")
    with enter() as door:
        report = door.write("restored", lambda tx: restoring.confirm(tx, door.context))
        books = None
        if footing.is_served(door.settings):
            books = reconciling.await_answers(
                door, report.request, wait_s=wait_s, dry_run=False, hosts=report.hosts
            )
    if as_json:
        answer = None if books is None else _shape(books)
        output.emit({**asdict(report), "reconciled": answer})
    else:
        was = f" ({report.was})" if report.was else ""
        say(f"the deployment goes on with this database, in epoch {report.epoch}{was}")
        say(f"{len(report.kept)} leases that may be in use are kept")
        if books is None:
            say("the hosts' next start takes in the sandboxes that it has forgotten")
        else:
            _tell(books, as_json=False)
        say("`leasehold leases list --status retained` shows what is yours to decide")
    if books is not None and not books.complete:
        raise typer.Exit(codes.UNAVAILABLE)
