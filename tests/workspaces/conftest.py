"""The house of the stories, with a store of blobs beside its world."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from leasehold.blobs import Blobs
from story.conftest import House, house

__all__ = ["blobs", "house", "lab"]


@pytest.fixture
def blobs(tmp_path: Path) -> Blobs:
    return Blobs(str(tmp_path / "store"))


@pytest.fixture
def lab(house: House, blobs: Blobs) -> Iterator[House]:
    house.worker.blobs = blobs
    yield house
    house.quiet()
