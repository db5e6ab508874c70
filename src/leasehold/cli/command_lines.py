"""
What a run is to do, as it was typed: one command, several, or a file with them.

No shell reads any of it. ``--cmd`` takes one command as a line of words, quoted as a shell
would have them; a file holds a JSON array whose items are such lines, arrays of words, or
objects with `argv`, `cwd`, `env` and `stdin` (base64).
"""

import json
import shlex
import sys
from pathlib import Path
from typing import Any, Final

from leasehold.errors import BadInputError

_WAYS: Final = "a command after `--`, --cmd LINE (once for each), or --commands FILE"


def given(
    words: list[str] | None, lines: list[str] | None, file: str | None
) -> list[dict[str, Any]]:
    """
    Return the commands of a run as its spec has them.

    Raises:
        BadInputError: None or several of the ways were used, or a line cannot be read.
    """
    ways = [bool(words), bool(lines), file is not None]
    if sum(ways) != 1:
        how = "give one of them" if any(ways) else "nothing to run; give one of them"
        raise BadInputError(f"{how}: {_WAYS}", field="CMD")
    if words:
        return [{"argv": words}]
    if lines:
        return [_of_line(line, "--cmd") for line in lines]
    assert file is not None
    return [_of_item(item, f"--commands: {n}") for n, item in enumerate(_read(file))]


def _of_line(line: str, where: str) -> dict[str, Any]:
    try:
        words = shlex.split(line)
    except ValueError as error:
        raise BadInputError(f"{where}: {line!r}: {error}", field=where) from None
    if not words:
        raise BadInputError(f"{where}: the command is empty", field=where)
    return {"argv": words}


def _of_item(item: Any, where: str) -> dict[str, Any]:
    if isinstance(item, str):
        return _of_line(item, where)
    if isinstance(item, list):
        return {"argv": item}
    if isinstance(item, dict):
        return item
    came = type(item).__name__
    raise BadInputError(
        f"{where}: must be a line, an array of words or an object with argv (got {came})",
        field="--commands",
    )


def _read(file: str) -> list[Any]:
    try:
        text = sys.stdin.read() if file == "-" else Path(file).read_text()
    except (OSError, UnicodeDecodeError) as error:
        why = getattr(error, "strerror", None) or "it is not text"
        raise BadInputError(f"--commands: {file}: {why}", field="--commands") from None
    try:
        found = json.loads(text)
    except ValueError as error:
        raise BadInputError(
            f"--commands: {file} is not JSON: {error}", field="--commands"
        ) from None
    if not isinstance(found, list):
        came = type(found).__name__
        raise BadInputError(
            f"--commands: {file} must hold a JSON array (got {came})", field="--commands"
        )
    return found


def summary(commands: list[dict[str, Any]], *, width: int) -> str:
    """Return a run's commands as one line of a table."""
    first = " ".join(commands[0]["argv"])
    more = f" (+{len(commands) - 1})" if len(commands) > 1 else ""
    return first[: width - len(more)] + more
