"""``leasehold env probe``: does a place work now, saved or not?"""

import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from leasehold.cli import environment_commands as commands
from leasehold.cli.options import AsJson, as_option, pairs, with_secrets
from leasehold.errors import BadInputError

if TYPE_CHECKING:
    from leasehold.orchestrator.probing import DraftSpec


def add_to(_app: typer.Typer) -> None:
    """Add nothing to the root: the group `env` has this one."""
    commands.group.command()(probe)


def probe(
    name: Annotated[
        str | None, typer.Argument(metavar="NAME", help="The environment's name or id.")
    ] = None,
    *,
    provider: Annotated[
        str | None, typer.Option(help="Instead of NAME: try a draft of this provider.")
    ] = None,
    set_: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="K=V", help="One key of the draft's config."),
    ] = None,
    config: Annotated[Path | None, typer.Option(help="A JSON file with it.")] = None,
    env: Annotated[
        list[str] | None, typer.Option("-e", "--env", metavar="K=V", help="Of the draft.")
    ] = None,
    secret: Annotated[
        list[str] | None,
        typer.Option(metavar="K=NAME", help="A variable of the draft that holds a secret."),
    ] = None,
    set_secret: Annotated[
        list[str] | None,
        typer.Option(metavar="K=NAME", help="A key of its config whose value is a secret."),
    ] = None,
    require: Annotated[
        list[str] | None, typer.Option(metavar="K=V", help="A label that its host must have.")
    ] = None,
    wait: Annotated[str, typer.Option(help="How long to wait for all of it.")] = "2m",
    as_json: AsJson = False,
) -> None:
    """Make one new sandbox, look into it and destroy it: does NAME, or a draft, work now?"""
    from leasehold.cli import codes, entering, output, probing

    draft = {
        "provider": provider,
        "config": commands.config_of([*(set_ or ()), *commands.as_refs(set_secret)], config),
        "env": with_secrets(pairs(env, option="-e"), secret, option="--secret"),
        "requires": pairs(require, option="--require"),
    }
    draft = {field: value for field, value in draft.items() if value}
    if (name is None) == (not draft):
        raise BadInputError("NAME or --provider: give one of them", field="--provider")
    spec = None if name is not None else _draft(draft)
    began, way = time.monotonic(), entering.way()
    with way.open() as door:
        saved = None if name is None else door.environments.show(name)
        way.need_stack("a probe")
        wait_s = probing.seconds(wait, option="--wait")
        found = probing.probe(door, saved, spec, wait_s=wait_s)
    found["took_s"] = round(time.monotonic() - began, 3)
    if as_json:
        output.emit(found)
    else:
        output.facts(found.items())
    if not found["ok"]:
        raise typer.Exit(codes.WRONG)


def _draft(body: dict[str, Any]) -> "DraftSpec":
    from leasehold.domain.specs import parse
    from leasehold.orchestrator.probing import DraftSpec

    try:
        return parse(DraftSpec, body)
    except BadInputError as error:
        raise as_option(error, commands.FIELDS) from None
