"""How a gatekeeper's program is called: isolated, without anything that is installed."""

import sys
from pathlib import Path
from typing import Final

# The names of the standard library come first: beside this package lie some that look alike.
_BOOT: Final = (
    "import sys; sys.path.append(sys.argv.pop(1));"
    " from way_out.{} import main; main(sys.argv[1:])"
)

ENVIRONMENT: Final = {"LC_ALL": "C.UTF-8"}


def argv(kind: str, *arguments: str) -> list[str]:
    """Return the command line of `entering` or `handed`."""
    home = str(Path(__file__).parents[1])
    return [sys.executable, "-I", "-S", "-B", "-c", _BOOT.format(kind), home, *arguments]
