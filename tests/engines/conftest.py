"""One engine of each kind per test process, and the plugin on it."""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path

import pytest
from engines import Running, run_docker, run_podman
from services import MissingServiceError, missing


def _lend(make: Callable[[], AbstractContextManager[Running]]) -> Iterator[Running]:
    lent = make()
    try:
        engine = lent.__enter__()
    except MissingServiceError as error:
        missing(error)
    try:
        yield engine
    finally:
        lent.__exit__(None, None, None)


@pytest.fixture(scope="session")
def docker_engine() -> Iterator[Running]:
    yield from _lend(run_docker)


@pytest.fixture(scope="session")
def podman_engine() -> Iterator[Running]:
    yield from _lend(run_podman)


@pytest.fixture
def short_path(tmp_path: Path) -> Path:
    """A directory for the plugin's root."""
    return tmp_path
