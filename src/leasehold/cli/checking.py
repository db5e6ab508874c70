"""
``leasehold providers check``: the conformance suite on one plugin, here and now.

It loads the plugin in this process, with a directory of its own that is removed afterwards; no
database, no broker, no worker is needed. It makes real sandboxes with the config it is given.
"""

import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any

from leasehold.errors import BadInputError, NotFoundError
from leasehold.provider.conformance import (
    AREAS,
    CheckResult,
    Harness,
    installed,
    iter_checks,
)
from leasehold.provider.contract import Json
from leasehold.provider.registry import FAKE, GROUP, make_one
from leasehold.provider.schema import check_schema


def _schema(key: str) -> Json:
    """
    Return the schema of an installed plugin's config.

    Raises:
        NotFoundError: It is not installed here; says which are.
    """
    there = sorted({FAKE, *entry_points(group=GROUP).names})
    if key not in there:
        raise NotFoundError(
            f"provider {key!r} is not installed here; there are: {', '.join(there)}"
        )
    with tempfile.TemporaryDirectory(prefix="leasehold-check-") as root:
        settings = {"root": root, "deployment": "schema", "host_id": "schema"}
        provider = make_one(key, settings)
        try:
            return provider.describe().config_schema
        finally:
            provider.close()


@contextmanager
def harness(key: str, config: Mapping[str, Any]) -> Iterator[Harness]:
    """
    Yield what the suite needs; its directories go with the block.

    Raises:
        BadInputError: The config does not fit the plugin's schema.
    """
    schema = _schema(key)
    checked = check_schema(schema, config)
    if checked.problems:
        first = checked.problems[0]
        raise BadInputError(f"config.{first.path}: {first.message}", field="--set")
    with tempfile.TemporaryDirectory(prefix="leasehold-check-") as name:
        yield installed(key, scratch=Path(name), config=checked.config)


def check(
    key: str, config: Mapping[str, Any], *, areas: Sequence[str]
) -> Iterator[CheckResult]:
    """
    Run the checks one by one.

    Raises:
        BadInputError: There is no such area; says which there are.
    """
    for area in areas:
        if area not in AREAS:
            raise BadInputError(f"--area: there is no {area!r}; there are: {', '.join(AREAS)}")
    with harness(key, config) as ready:
        yield from iter_checks(ready, areas=areas or None)
