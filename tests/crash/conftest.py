"""Cells on a disk in memory where there is one: these tests commit ten thousands of times."""

import gc
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from crash.harness import Cells


@pytest.fixture(scope="session")
def cells() -> Iterator[Cells]:
    memory = Path("/dev/shm")
    place = memory if os.access(memory, os.W_OK) else None
    root = Path(tempfile.mkdtemp(prefix="leasehold-crash-", dir=place))
    made = Cells(root)
    made.prepare()
    # What is there now stays as it is: a fork then copies few pages.
    gc.collect()
    gc.freeze()
    yield made
    made.close()
    gc.unfreeze()
