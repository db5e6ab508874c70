"""What `run` carries: a workspace on the way in, what changed in it on the way back."""

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, Final, cast

from leasehold.cli.codes import say
from leasehold.errors import BadInputError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from leasehold.settings import Settings
    from leasehold.trees.homing import Fetch

_SHOWN: Final = 5
_KINDS: Final = frozenset({"https", "ssh", "file"})
"""What may be a git URL at all; the workers' setting decides."""


def is_url(workspace: str) -> bool:
    return "://" in workspace


def _text_of(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise BadInputError(
            f"--workspace-known-hosts: {path} cannot be read: {error}",
            field="--workspace-known-hosts",
        ) from None


@dataclass(frozen=True, slots=True)
class Carried:
    """A workspace that is ready to be carried."""

    name: str
    tree: dict[str, Any]
    spool: BinaryIO | None = None
    """The packed directory; None: it is a URL."""


@contextmanager
def packed(
    settings: "Settings",
    workspace: str,
    *,
    secret: str | None = None,
    known_hosts: Path | None = None,
) -> Iterator[Carried]:
    """
    Pack a directory, or look at a URL.

    Raises:
        BadInputError: There is no such directory, or it is beyond a limit.
    """
    if is_url(workspace):
        from leasehold.trees.cloning import check_url

        url, _, ref = workspace.partition("#")
        try:
            check_url(url, schemes=_KINDS)
        except BadInputError as error:
            raise BadInputError(f"--workspace: {error}", field="--workspace") from None
        tree: dict[str, Any] = {"git": url}
        if ref:
            tree["ref"] = ref
        if secret is not None:
            tree["credential"] = {"secret": secret}
        if known_hosts is not None:
            tree["known_hosts"] = _text_of(known_hosts)
        yield Carried(url, tree)
        return
    if secret is not None or known_hosts is not None:
        text = "--workspace-secret and --workspace-known-hosts go with a git URL"
        raise BadInputError(text, field="--workspace")
    from leasehold.trees.packing import pack
    from leasehold.trees.reading import Limits

    root = Path(workspace)
    if not root.is_dir():
        raise BadInputError(f"--workspace: there is no directory {workspace}")
    limits = Limits(files=settings.max_workspace_files, bytes=settings.max_workspace_bytes)
    with tempfile.TemporaryFile() as file:
        spool = cast("BinaryIO", file)
        found = pack(root, spool, limits, home=settings.home)
        for path, why in found.left_out[:_SHOWN]:
            say(f"--workspace: left out {path!r}: {why}")
        if len(found.left_out) > _SHOWN:
            say(f"--workspace: left out {len(found.left_out) - _SHOWN} more")
        tree = {"digest": found.digest, "bytes": found.bytes, "files": found.files}
        yield Carried(str(root.resolve()), tree, spool)


def bring_home(root: Path, lines: "Sequence[Any]", fetch: "Fetch") -> int:
    """Apply what a run changed to a directory, and say what was done; return the conflicts."""
    from leasehold.trees import homing

    report = homing.bring(root, lines, fetch)
    say(
        f"{len(report.changed)} files changed and {len(report.deleted)} deleted in {root}"
        f" as the run left them"
    )
    for path in report.conflicts:
        say(f"{path!r} has changed here meanwhile and stays; see {path + homing.THEIRS!r}")
    for path in report.refused:
        say(f"{path!r} was refused: it does not stay inside {root}, or cannot be written")
    return len(report.conflicts) + len(report.refused)
