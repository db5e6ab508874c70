"""One engine of each kind per test process, and a sandbox of the plugin on it."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from engines.box import Box
from engines.daemons import Running, run_docker, run_podman
from services import MissingServiceError, missing


@pytest.fixture(scope="session")
def docker_engine() -> Iterator[Running]:
    with ExitStack() as stack:
        try:
            engine = stack.enter_context(run_docker())
        except MissingServiceError as error:
            missing(error)
        yield engine


@pytest.fixture(scope="session")
def podman_engine() -> Iterator[Running]:
    with ExitStack() as stack:
        try:
            engine = stack.enter_context(run_podman())
        except MissingServiceError as error:
            missing(error)
        yield engine


@pytest.fixture(params=["docker", "podman"])
def engine(request: pytest.FixtureRequest) -> Running:
    """Each kind in turn; choose one with ``-k podman``."""
    running: Running = request.getfixturevalue(f"{request.param}_engine")
    return running


@pytest.fixture
def make_box(engine: Running, tmp_path: Path) -> Iterator[Callable[..., Box]]:
    """Make a box with a config, ready; after the test nothing of it may be left."""
    made: list[Box] = []

    def make(**config: Any) -> Box:
        one = Box(engine, tmp_path / f"root{len(made)}", config)
        made.append(one)
        one.acquire()
        return one

    yield make
    for one in made:
        one.end()


@pytest.fixture
def box(make_box: Callable[..., Box]) -> Box:
    return make_box()
