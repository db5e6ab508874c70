"""``leasehold activity``: who has changed what."""

from typing import Annotated

import typer

from leasehold.cli.options import AsJson, Limit
from leasehold.errors import BadInputError


def add_to(app: typer.Typer) -> None:
    app.command()(activity)


def activity(
    *,
    actor: Annotated[
        str | None, typer.Option(help="Only theirs: `key:ID`, `cli`, `schedule:NAME`, …")
    ] = None,
    noun: Annotated[
        str | None, typer.Option(help="Only of environment, key, lease, secret, selection, …")
    ] = None,
    since: Annotated[
        str | None, typer.Option(metavar="TIME", help="From then on: 2h, 7d, or ISO 8601.")
    ] = None,
    until: Annotated[
        str | None, typer.Option(metavar="TIME", help="Before then: 2h, 7d, or ISO 8601.")
    ] = None,
    limit: Limit = 100,
    root: Annotated[
        bool, typer.Option("--root", help="The platform's: of tenants and hosts.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """List changes with who made them, the newest first; values are never in them."""
    from leasehold.cli import output
    from leasehold.cli.entering import enter

    with enter() as door:
        now_us = door.now_us() if since or until else 0
        shapes = door.activity(
            platform=root,
            actor=actor,
            noun=noun,
            since_us=_at(since, now_us=now_us, option="--since"),
            until_us=_at(until, now_us=now_us, option="--until"),
            limit=limit,
        )
    if as_json:
        output.emit(shapes)
        return
    output.table(
        ("AT", "ACTOR", "WHAT", "OF"),
        [(s["at"], s["actor"], s["name"], _words(s["data"] | _ids(s))) for s in shapes],
        empty="no such changes" if actor or noun or since or until else "no changes yet",
    )


def _ids(shape: "dict[str, object]") -> "dict[str, object]":
    return {name: shape[f"{name}_id"] for name in ("run", "lease") if shape[f"{name}_id"]}


def _words(data: "dict[str, object]") -> str:
    return " ".join(f"{name}={value}" for name, value in data.items())


def _at(text: str | None, *, now_us: int, option: str) -> int | None:
    """
    Return a moment: so long ago, or the one that is named.

    Raises:
        BadInputError: It is neither.
    """
    from datetime import UTC, datetime

    from leasehold.domain.durations import parse_duration

    if text is None:
        return None
    try:
        return now_us - int(float(parse_duration(text)) * 1_000_000)
    except ValueError:
        pass
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        raise BadInputError(
            f"{option}: must be 2h, 7d or a time such as 2026-12-24T18:00", field=option
        ) from None
    aware = moment if moment.tzinfo is not None else moment.replace(tzinfo=UTC)
    return int(aware.timestamp() * 1_000_000)
