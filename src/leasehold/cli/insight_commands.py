"""``leasehold explain``, ``verify`` and ``doctor``: what goes on, and whether it is right."""

from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated

import typer

from leasehold.cli import codes
from leasehold.cli.codes import say
from leasehold.cli.options import AsJson

if TYPE_CHECKING:
    from leasehold.store.database import Tx
    from leasehold.store.history import Difference
    from leasehold.store.invariants import Violation


def add_to(app: typer.Typer) -> None:
    app.command()(explain)
    app.command()(verify)
    app.command()(doctor)


def explain(
    row_id: Annotated[str, typer.Argument(metavar="ID", help="Of a run or a lease.")],
    *,
    as_json: AsJson = False,
) -> None:
    """Say why a run or a lease waits: one reason, what would change it, and when."""
    from leasehold.cli import output
    from leasehold.cli.entering import enter

    with enter() as door:
        shape = door.explain(row_id)
    if as_json:
        output.emit(shape)
        return
    details = shape.pop("details")
    output.facts(shape.items())
    output.facts(details.items())


def verify(*, as_json: AsJson = False) -> None:
    """Ask SQL for every promise that it can tell, and replay the history; exit 1 if broken."""
    from leasehold.cli import output
    from leasehold.cli.door import enter
    from leasehold.store import history, invariants

    def books(tx: "Tx") -> "tuple[list[Violation], list[Difference]]":
        # Work goes on meanwhile: rows and events must be of one moment.
        history.hold_still(tx)
        return invariants.check(tx), history.verify(tx)

    with enter() as door:
        violations, differences = door.read(books)
    ok = not violations and not differences
    if as_json:
        output.emit(
            {
                "ok": ok,
                "promises_asked": len(invariants.INVARIANTS),
                "violations": [
                    {"promise": v.promise, "name": v.name, "row": v.row} for v in violations
                ],
                "differences": [asdict(item) for item in differences],
            }
        )
    else:
        for problem in [*violations, *differences]:
            typer.echo(str(problem))
        if ok:
            asked = len(invariants.INVARIANTS)
            say(f"{asked} sentences asked, every status follows from its history: all hold")
        else:
            say(f"{len(violations)} broken promises, {len(differences)} wrong histories")
    if not ok:
        raise typer.Exit(codes.WRONG)


def doctor(*, as_json: AsJson = False) -> None:
    """Check this machine and what it reaches; say how to mend what is wrong; exit 1 if so."""
    from leasehold.cli import examining, output

    findings = list(examining.examine())
    ok = all(finding.state != "wrong" for finding in findings)
    if as_json:
        output.emit({"ok": ok, "checks": [asdict(finding) for finding in findings]})
    else:
        for finding in findings:
            typer.echo(
                f"{finding.state:<5}  {finding.name:<10}  {output.clean(finding.summary)}"
            )
            if finding.mend:
                typer.echo(f"{'':<5}  {'':<10}  -> {output.clean(finding.mend)}")
    if not ok:
        raise typer.Exit(codes.WRONG)
