"""``leasehold leases``: the rights to use sandboxes, and those that people hold."""

from datetime import timedelta
from typing import TYPE_CHECKING, Annotated

import typer

from leasehold.cli import codes
from leasehold.cli.codes import say
from leasehold.cli.options import AsJson, LeaseId, Limit
from leasehold.errors import BadInputError

if TYPE_CHECKING:
    from leasehold.cli.ports import Port, Shape

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
    from leasehold.cli.entering import enter
    from leasehold.domain.lifecycle import LeaseStatus

    known = [member.value for member in LeaseStatus]
    for name in status or ():
        if name not in known:
            raise BadInputError(
                f"--status: there is no {name!r}; there are: {', '.join(known)}"
            )
    with enter() as door:
        shapes = door.leases.list(statuses=status or (), live=live, limit=limit)
        now_us = 0 if as_json else door.now_us()
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
    from leasehold.cli import entering, output, probing
    from leasehold.domain.lifecycle import LeaseStatus

    hold_for = timedelta(seconds=probing.seconds(ttl, option="--ttl"))
    wait_s = 0.0 if wait == "0" else probing.seconds(wait, option="--wait")
    way = entering.way()
    with way.open() as door:
        if key is None:
            door.environments.show(env)  # what is not there is said before what is missing
        way.need_stack("a lease")
        lease = door.leases.create(env, hold_for=hold_for, key=key)
        shape = probing.until_made(door, lease["id"], wait_s=wait_s)
    if as_json:
        output.emit(shape)
    else:
        typer.echo(shape["id"])
    if shape["status"] not in {LeaseStatus.IDLE, LeaseStatus.ACQUIRING}:
        say(f"lease {shape['id']} is {shape['status']}: {shape['reason']}")
        raise typer.Exit(codes.WRONG)
    if shape["status"] == LeaseStatus.ACQUIRING and wait_s:
        say(f"lease {shape['id']} has no sandbox yet, after {wait}; it is still tried")


@group.command()
def show(lease: LeaseId, *, as_json: AsJson = False) -> None:
    """Show one lease with its history."""
    import sys

    from leasehold.cli import output
    from leasehold.cli.entering import enter

    with enter() as door:
        shape = door.leases.show(door.resolve("lease", lease))
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
    from leasehold.cli.entering import enter
    from leasehold.domain.lifecycle import LeaseStatus

    with enter() as door:
        lease_id = door.resolve("lease", lease)
        shape = door.leases.give_back(lease_id)
        served = door.is_served()
        if served:
            shape = _await(door, lease_id)
        if shape["status"] == LeaseStatus.RELEASING and not served:
            say("its sandbox will be removed by the next `leasehold up` of this home")
    _tell(shape, as_json=as_json)


def _await(door: "Port", lease_id: str) -> "Shape":
    """Give the release a moment, so that what is shown is mostly the end."""
    import time

    from leasehold.cli.following import POLL_S, RELEASE_S
    from leasehold.domain.lifecycle import LeaseStatus

    until = time.monotonic() + RELEASE_S
    while True:
        shape = door.leases.show(lease_id)
        if shape["status"] != LeaseStatus.RELEASING or time.monotonic() >= until:
            return shape
        time.sleep(POLL_S)


@group.command()
def retain(lease: LeaseId, *, as_json: AsJson = False) -> None:
    """Keep a lease's sandbox: at once if it is idle, else when its run ends."""
    from leasehold.cli.entering import enter

    with enter() as door:
        lease_id = door.resolve("lease", lease)
        shape = door.leases.retain(lease_id)
        if door.is_served():
            shape = _await(door, lease_id)
    _tell(shape, as_json=as_json)


def _tell(shape: "Shape", *, as_json: bool) -> None:
    from leasehold.cli import output

    if as_json:
        output.emit(shape)
        return
    error = f" ({shape['last_error']})" if shape["last_error"] else ""
    say(f"lease {shape['id']} is {shape['status']}{error}")
