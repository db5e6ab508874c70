"""``leasehold leases``: the rights to use sandboxes, and those that people hold."""

from datetime import timedelta
from typing import TYPE_CHECKING, Annotated

import typer

from leasehold.cli import codes
from leasehold.cli.codes import say
from leasehold.cli.options import AsJson, LeaseId, Limit
from leasehold.errors import BadInputError

if TYPE_CHECKING:
    from leasehold.cli.door import Door
    from leasehold.store.views import Shape

group = typer.Typer(no_args_is_help=True, help="The rights to use sandboxes.")


def add_to(app: typer.Typer) -> None:
    app.add_typer(group, name="leases")


@group.command("list")
def list_(
    *,
    status: Annotated[
        list[str] | None, typer.Option(help="Only these statuses; repeat it.")
    ] = None,
    live: Annotated[bool, typer.Option("--live", help="Only those that are not over.")] = False,
    limit: Limit = 100,
    as_json: AsJson = False,
) -> None:
    """List leases, the newest first."""
    from leasehold.cli import output
    from leasehold.cli.door import enter
    from leasehold.domain.lifecycle import LeaseStatus
    from leasehold.store import views

    known = [member.value for member in LeaseStatus]
    for name in status or ():
        if name not in known:
            raise BadInputError(
                f"--status: there is no {name!r}; there are: {', '.join(known)}"
            )
    with enter() as door:
        rows = door.read(
            lambda tx: views.lease_rows(
                tx, tenant_id=door.tenant, statuses=status or (), live=live, limit=limit
            )
        )
        now_us = door.read(lambda tx: tx.now())
    shapes = [views.lease_view(row) for row in rows]
    if as_json:
        output.emit(shapes)
        return
    output.table(
        ("ID", "STATUS", "ENV", "PROVIDER", "RUN", "FENCE", "ENDS IN", "CLEANUP", "SANDBOX"),
        [
            (
                output.short(s["id"]),
                s["status"],
                s["environment"],
                s["provider"],
                output.short(s["run_id"]),
                s["fence"],
                output.age(s["expires_at"], now_us=now_us).removeprefix("-") or "-",
                _cleanup(s),
                s["sandbox_id"],
            )
            for s in shapes
        ],
        empty="no such leases" if status or live else "no leases yet",
    )


def _cleanup(shape: "Shape") -> str | None:
    status = shape["cleanup_status"]
    return f"{status} ({shape['cleanup_attempts']})" if status == "failed" else status


def shape_of(door: "Door", lease_id: str) -> "Shape":
    """Return all that is shown of one lease."""
    from leasehold.store import views

    return door.read(lambda tx: views.whole_lease(tx, lease_id, tenant_id=door.tenant))


@group.command()
def create(
    *,
    env: Annotated[str, typer.Option(help="The environment, by name.")],
    ttl: Annotated[str, typer.Option(help="How long you hold it.")] = "1h",
    wait: Annotated[
        str, typer.Option(help="How long to wait until it can be used; 0 does not wait.")
    ] = "2m",
    key: Annotated[
        str | None, typer.Option(help="Idempotency key: the same key is the same lease.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Make a sandbox of your own: `run --lease ID` uses it until its time ends."""
    from leasehold.cli import footing, output, probing
    from leasehold.cli.door import enter
    from leasehold.domain.lifecycle import LeaseStatus
    from leasehold.ids import new_id
    from leasehold.orchestrator import holding
    from leasehold.store import environments

    hold_for = timedelta(seconds=probing.seconds(ttl, option="--ttl"))
    wait_s = 0.0 if wait == "0" else probing.seconds(wait, option="--wait")
    with enter() as door:
        if key is None:
            door.read(lambda tx: environments.get(tx, env, tenant_id=door.tenant))
        footing.need_stack(door.settings, "a lease")
        request = holding.Request(
            environment=env,
            hold_for=hold_for,
            tenant_id=door.tenant,
            # With a key of our own it may be asked again when an answer was lost.
            key=key or f"cli-{new_id()}",
        )
        lease, _ = door.write("lease.create", lambda tx: holding.ask(tx, door.context, request))
        made = probing.until_made(door, lease["id"], wait_s=wait_s)
        shape = shape_of(door, lease["id"])
    if as_json:
        output.emit(shape)
    else:
        typer.echo(lease["id"])
    if made["status"] not in {LeaseStatus.IDLE, LeaseStatus.ACQUIRING}:
        say(f"lease {lease['id']} is {made['status']}: {made['reason']}")
        raise typer.Exit(codes.WRONG)
    if made["status"] == LeaseStatus.ACQUIRING and wait_s:
        say(f"lease {lease['id']} has no sandbox yet, after {wait}; it is still tried")


@group.command()
def show(lease: LeaseId, *, as_json: AsJson = False) -> None:
    """Show one lease with its history."""
    import sys

    from leasehold.cli import output
    from leasehold.cli.door import enter

    with enter() as door:
        shape = shape_of(door, door.resolve("lease", lease))
    if as_json:
        output.emit(shape)
        return
    events = shape.pop("events")
    output.facts(shape.items())
    for event in events:
        data = " ".join(f"{k}={v}" for k, v in event["data"].items())
        sys.stdout.write(f"{event['at']}  {event['name']:<24} {output.clean(data)[:120]}\n")


@group.command()
def release(lease: LeaseId, *, as_json: AsJson = False) -> None:
    """Give a lease back: its sandbox is removed."""
    _give_back(lease, as_json=as_json)


@group.command()
def destroy(lease: LeaseId, *, as_json: AsJson = False) -> None:
    """Destroy a lease's sandbox, also a retained one."""
    _give_back(lease, as_json=as_json)


def _give_back(lease: str, *, as_json: bool) -> None:
    from leasehold.cli import footing
    from leasehold.cli.door import enter
    from leasehold.domain.lifecycle import LEASE_ENDS, LeaseStatus
    from leasehold.orchestrator import holding
    from leasehold.store import leases

    with enter() as door:
        lease_id = door.resolve("lease", lease)
        door.read(lambda tx: leases.get(tx, lease_id, tenant_id=door.tenant))
        row = door.write(
            "lease.give_back",
            lambda tx: holding.give_back(tx, door.context, lease_id, actor="cli"),
        )
        if footing.is_served(door.settings):
            _await(door, lease_id)
        shape = shape_of(door, lease_id)
        owes = shape["status"] == LeaseStatus.RELEASING
        if owes and not footing.is_served(door.settings):
            say("its sandbox will be removed by the next `leasehold up` of this home")
        elif row["status"] in LEASE_ENDS:
            say(f"lease {lease_id} is over: {row['status']}")
    _tell(shape, as_json=as_json)


def _await(door: "Door", lease_id: str) -> None:
    """Give the release a moment, so that what is shown is mostly the end."""
    import time

    from leasehold.cli.following import POLL_S, RELEASE_S
    from leasehold.domain.lifecycle import LeaseStatus
    from leasehold.store import leases

    until = time.monotonic() + RELEASE_S
    while time.monotonic() < until:
        row = door.read(lambda tx: leases.get(tx, lease_id, tenant_id=door.tenant))
        if row["status"] != LeaseStatus.RELEASING:
            return
        time.sleep(POLL_S)


@group.command()
def retain(lease: LeaseId, *, as_json: AsJson = False) -> None:
    """Keep a lease's sandbox: at once if it is idle, else when its run ends."""
    from leasehold.cli import footing
    from leasehold.cli.door import enter
    from leasehold.orchestrator import holding
    from leasehold.store import leases

    with enter() as door:
        lease_id = door.resolve("lease", lease)
        door.read(lambda tx: leases.get(tx, lease_id, tenant_id=door.tenant))
        door.write(
            "lease.retain",
            lambda tx: holding.retain(tx, door.context, lease_id, actor="cli"),
        )
        if footing.is_served(door.settings):
            _await(door, lease_id)
        shape = shape_of(door, lease_id)
    _tell(shape, as_json=as_json)


def _tell(shape: "Shape", *, as_json: bool) -> None:
    from leasehold.cli import output

    if as_json:
        output.emit(shape)
        return
    error = f" ({shape['last_error']})" if shape["last_error"] else ""
    say(f"lease {shape['id']} is {shape['status']}{error}")
