"""``leasehold cp``: files into the sandbox of a lease that is kept, and out of it."""

import re
from typing import Annotated, Final

import typer

from leasehold.cli.options import AsJson
from leasehold.errors import BadInputError

_REMOTE: Final = re.compile(r"([A-Za-z0-9_-]+):(.*)", re.DOTALL)
_TWO: Final = 2

EPILOG: Final = (
    "Exit codes: 0: all was copied. 1: not all of it; what was left out is said. 2: bad input:"
    " no such local file or directory, both sides local or both in sandboxes, a path with `..`,"
    " more than may be carried. 3: no such lease, or no such path in the sandbox. 4: a file"
    " where a directory is, or the reverse; a run is at work in the sandbox, or it is gone."
    " 255: it was cancelled, or the sandbox was lost."
)


def add_to(app: typer.Typer) -> None:
    app.command("cp", epilog=EPILOG)(cp)


def cp(
    paths: Annotated[
        list[str],
        typer.Argument(metavar="SRC... DEST", help="One side is LEASE:PATH; `-` is a stream."),
    ],
    *,
    as_json: AsJson = False,
) -> None:
    """
    Copy files into the sandbox of a retained, idle or held lease, or out of it.

    SRC... LEASE:PATH copies in, LEASE:PATH DEST copies out, as `cp -r` and `docker cp` do:
    into a directory that is there the source goes under its own name; else it becomes what
    was named, if the directory above is there. `DIR/.` is what is in DIR. `-` instead of a
    local file is stdin, or stdout.

    PATH counts from the directory in which commands start, and stays inside of it. Files that
    are there are replaced, others stay. Links inside of what is copied are copied as links;
    those that lead out of it are left out, as is what is neither file, directory nor link. Of
    modes only the executable bit goes along, and that not with a single file that comes out.
    A local file whose name has a colon is written ./NAME.

    A worker does it, as a run with the command `true`; the lease stays what it was.
    """
    *sources, last = paths
    if not sources:
        raise BadInputError("cp: give SRC and DEST; one of them is LEASE:PATH")
    into = _REMOTE.fullmatch(last)
    remote = [match for match in map(_REMOTE.fullmatch, sources) if match is not None]
    if into is not None:
        if remote:
            raise BadInputError(
                f"cp: {remote[0].group()!r} and {last!r} are both in sandboxes; copy it out"
                " first (a local name with a colon is written ./NAME)"
            )
        from leasehold.cli import copying_in

        code = copying_in.copy(sources, into[1], into[2], as_json=as_json)
    else:
        if not remote:
            raise BadInputError("cp: both sides are local; one of them must be LEASE:PATH")
        if len(paths) != _TWO:
            raise BadInputError("cp: out of a sandbox one path at a time")
        from leasehold.cli import copying_out

        code = copying_out.copy(remote[0][1], remote[0][2], last, as_json=as_json)
    raise typer.Exit(code)
