"""A harness for a plugin that is installed here: `leasehold providers check KEY`."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from leasehold.provider.conformance.harness import Harness
from leasehold.provider.conformance.leaks import names_below, processes_below
from leasehold.provider.contract import Json
from leasehold.provider.registry import FAKE, make_one

_KEPT_BY_FAKE = frozenset({"sb", "faults", "capacity"})


def installed(
    key: str, *, scratch: Path, config: Json | None = None, settings: Json | None = None
) -> Harness:
    """
    Return a harness for an installed plugin, whose sandboxes lie below `scratch`.

    Args:
        scratch: An empty directory of ours; may be removed when the checks are over.
        config: A config to check with; by default what the schema's defaults make of none.
        settings: What the plugin's factory is given beyond root, deployment and host_id.

    Raises:
        UnsupportedError: No plugin of this name is installed.
    """
    root = scratch / "root"
    witness = scratch / "witness"
    witness.mkdir(parents=True, exist_ok=True)

    def settled(deployment: str) -> Mapping[str, Any]:
        own = {"root": str(root), "deployment": deployment, "host_id": "conformance"}
        return {**own, **(settings or {})}

    def leaks() -> list[str]:
        names = (name for name in names_below(root) if key != FAKE or name not in _KEPT_BY_FAKE)
        return [*names, *processes_below(root)]

    make_one(key, settled("conformance")).close()
    return Harness(
        provider=lambda deployment: make_one(key, settled(deployment)),
        config=config or {},
        scratch=witness,
        leaks=leaks,
        posix_commands=key != FAKE,
    )
