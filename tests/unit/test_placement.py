"""Which hosts will do: every required label has its very value; and what is said if none."""

import pytest

from leasehold.domain import placement


@pytest.mark.parametrize(
    ("labels", "requires", "fits"),
    [
        ({}, {}, True),
        ({"gpu": "1"}, {}, True),
        ({"gpu": "1", "zone": "a"}, {"gpu": "1"}, True),
        ({"gpu": "1", "zone": "a"}, {"gpu": "1", "zone": "a"}, True),
        ({}, {"gpu": "1"}, False),
        ({"gpu": "2"}, {"gpu": "1"}, False),
        ({"gpu": "1"}, {"gpu": "1", "zone": "a"}, False),
        ({"gpu": ""}, {"gpu": ""}, True),
        ({}, {"gpu": ""}, False),
        ({"GPU": "1"}, {"gpu": "1"}, False),
    ],
)
def test_a_host_fits_if_it_has_all_that_is_required(
    labels: dict[str, str], requires: dict[str, str], fits: bool
) -> None:
    assert placement.fits(labels, requires) is fits


def test_two_values_of_one_label_are_a_conflict_and_the_same_twice_is_none() -> None:
    assert placement.conflicts({"gpu": "1", "zone": "a"}, {"gpu": "1", "disk": "x"}) == []
    assert placement.conflicts({"gpu": "1", "zone": "a"}, {"gpu": "2", "zone": "b"}) == [
        "gpu",
        "zone",
    ]


def test_nowhere_says_what_is_wanted_and_what_there_is() -> None:
    said = placement.nowhere(
        "local", {"gpu": "1", "a": "b"}, [("one", {"gpu": "0", "disk": "fast"}), ("two", {})]
    )
    assert said == (
        "no live host that serves local has a=b gpu=1;"
        " hosts have: one: disk=fast gpu=0; two: no labels"
    )
