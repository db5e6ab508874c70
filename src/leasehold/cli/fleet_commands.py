"""``leasehold providers``, ``workers`` and ``hosts``: who serves what, and where."""

from collections import Counter
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from leasehold.cli import codes
from leasehold.cli.codes import say
from leasehold.cli.options import AsJson

providers_group = typer.Typer(no_args_is_help=True, help="What makes sandboxes, and where.")
workers_group = typer.Typer(no_args_is_help=True, help="The worker processes.")
hosts_group = typer.Typer(no_args_is_help=True, help="The machines with workers.")
Key = Annotated[str, typer.Argument(metavar="KEY", help="The provider's key.")]


def add_to(app: typer.Typer) -> None:
    app.add_typer(providers_group, name="providers")
    app.add_typer(workers_group, name="workers")
    app.add_typer(hosts_group, name="hosts")


@providers_group.command("list")
def list_providers(*, as_json: AsJson = False) -> None:
    """List the providers that workers have loaded."""
    from leasehold.cli import output
    from leasehold.cli.entering import enter

    with enter() as door:
        shapes = door.fleet.providers()
    if as_json:
        output.emit(shapes)
        return
    output.table(
        ("KEY", "HEALTH", "VERSION", "LIVE ON", "ISOLATION", "SUMMARY"),
        [
            (
                s["key"],
                s["health"],
                s["version"],
                [host["name"] for host in s["hosts"] if host["live"]],
                s["capabilities"].get("isolation"),
                s["summary"],
            )
            for s in shapes
        ],
        empty="no provider yet: no worker has started",
    )


@providers_group.command("show")
def show_provider(key: Key, *, as_json: AsJson = False) -> None:
    """Show one provider: capabilities, config schema, where it is served."""
    from leasehold.cli import output
    from leasehold.cli.entering import enter

    with enter() as door:
        shape = door.fleet.provider(key)
    if as_json:
        output.emit(shape)
        return
    capabilities, hosts = shape.pop("capabilities"), shape.pop("hosts")
    output.facts(shape.items())
    output.facts((f"can {name}", value) for name, value in capabilities.items())
    output.facts((f"host {host['name']}", f"{host['health']} {host['id']}") for host in hosts)


@providers_group.command("check")
def check_provider(
    key: Key,
    *,
    set_: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="K=V", help="One key of its config; V may be JSON."),
    ] = None,
    config: Annotated[Path | None, typer.Option(help="A JSON file with its config.")] = None,
    area: Annotated[list[str] | None, typer.Option(help="Only this area; repeat it.")] = None,
    as_json: AsJson = False,
) -> None:
    """Run the conformance suite on a plugin that is installed here; exit 1 if it fails."""
    from leasehold.cli import checking, output
    from leasehold.cli.environment_commands import config_of

    results = []
    for result in checking.check(key, config_of(set_, config), areas=area or ()):
        results.append(result)
        if not as_json:
            reason = f": {result.reason}" if result.reason else ""
            line = f"{result.outcome.value:<7}  {result.area}: {result.name}{reason}"
            typer.echo(output.clean(line))
    counts = Counter(result.outcome.value for result in results)
    ok = not counts["failed"]
    if as_json:
        checks = [asdict(result) for result in results]
        output.emit({"ok": ok, "provider": key, **counts, "checks": checks})
    else:
        say(f"{key}: " + ", ".join(f"{count} {name}" for name, count in counts.items()))
    if not ok:
        raise typer.Exit(codes.WRONG)


@workers_group.command("list")
def list_workers(
    *,
    gone: Annotated[bool, typer.Option("--all", help="Those that are gone as well.")] = False,
    as_json: AsJson = False,
) -> None:
    """List worker processes."""
    from leasehold.cli import output
    from leasehold.cli.entering import enter
    from leasehold.domain import placement

    with enter() as door:
        shapes = door.fleet.workers(gone=gone)
        now_us = 0 if as_json else door.now_us()
    if as_json:
        output.emit(shapes)
        return
    output.table(
        ("ID", "HOST", "PID", "KIND", "STATUS", "PROVIDERS", "LABELS", "AGE"),
        [
            (
                output.short(s["id"]),
                s["host"],
                s["pid"],
                s["kind"],
                s["status"],
                s["providers"],
                placement.words(s["labels"]),
                output.age(s["started_at"], now_us=now_us),
            )
            for s in shapes
        ],
        empty="no worker is alive: start `leasehold up` or `leasehold worker`",
    )


@workers_group.command("drain")
def drain(
    worker: Annotated[
        str, typer.Argument(metavar="ID", help="A worker, or its host, by id or name.")
    ],
    *,
    as_json: AsJson = False,
) -> None:
    """
    Send nothing new to a worker's host; what runs there goes on.

    A host is drained as a whole, since its workers share its queue. It takes work again when
    its agent is started anew. To stop the processes, end the agent: it drains by itself.
    """
    from leasehold.cli import output
    from leasehold.cli.entering import enter

    with enter() as door:
        host_id = door.fleet.host_of(worker)
        shape = door.fleet.drain(host_id)
    if as_json:
        output.emit(shape)
    else:
        say(
            f"host {shape['name']} ({host_id}) takes nothing new; {shape['leases']} leases left"
        )


@hosts_group.command("list")
def list_hosts(*, as_json: AsJson = False) -> None:
    """List hosts, alive or not."""
    from leasehold.cli import output
    from leasehold.cli.entering import enter
    from leasehold.domain import placement

    with enter() as door:
        shapes = door.fleet.hosts()
        now_us = 0 if as_json else door.now_us()
    if as_json:
        output.emit(shapes)
        return
    output.table(
        ("ID", "NAME", "LIVE", "DRAINING", "LEASES", "CAPACITY", "LABELS", "SEEN"),
        [
            (
                output.short(s["id"]),
                s["name"],
                s["live"],
                s["draining"],
                s["leases"],
                s["capacity"],
                placement.words(s["labels"]),
                "now" if s["live"] else output.age(s["alive_at"], now_us=now_us),
            )
            for s in shapes
        ],
        empty="no host yet: no worker has started",
    )


@hosts_group.command("forget")
def forget(
    host: Annotated[str, typer.Argument(metavar="HOST", help="Its id, or its name.")],
    *,
    yes: Annotated[
        bool, typer.Option("--yes", help="Also with leases: their sandboxes are gone with it.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Forget a host that will never come back; its leases end as failed."""
    from leasehold.cli import output
    from leasehold.cli.entering import enter

    with enter() as door:
        host_id = door.fleet.host_of(host)
        shape = door.fleet.forget(host_id, force=yes)
    if as_json:
        output.emit(shape)
    else:
        ended = shape["leases_ended"]
        say(f"host {shape['name']} ({host_id}) is forgotten; {ended} leases ended")
