"""A fingerprint tells apart what must not be shared, and nothing else."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from leasehold.domain.fingerprint import canonical_json, fingerprint, reuse_scope
from leasehold.domain.lifecycle import LeasePolicy

MADE_FROM: dict[str, Any] = {
    "tenant_id": "default",
    "provider": "docker",
    "provider_version": "1.2",
    "config": {"image": "ubuntu:24.04", "limits": {"cpus": 2, "memory": "1g"}},
    "secret_versions": {"token": 3, "key": 1},
    "scope": "environment:e1",
}


def test_key_order_does_not_matter() -> None:
    turned = MADE_FROM | {
        "config": {"limits": {"memory": "1g", "cpus": 2}, "image": "ubuntu:24.04"},
        "secret_versions": {"key": 1, "token": 3},
    }
    assert fingerprint(**turned) == fingerprint(**MADE_FROM)


@pytest.mark.parametrize(
    ("name", "other"),
    [
        ("tenant_id", "other"),
        ("provider", "podman"),
        ("provider_version", "1.3"),
        ("config", {"image": "ubuntu:24.04"}),
        ("config", {"image": "ubuntu:24.04", "limits": {"cpus": "2", "memory": "1g"}}),
        ("secret_versions", {"token": 4, "key": 1}),
        ("secret_versions", {"token": 3}),
        ("scope", "environment:e1/workspace:w"),
    ],
)
def test_everything_that_a_sandbox_was_made_from_matters(name: str, other: Any) -> None:
    assert fingerprint(**MADE_FROM | {name: other}) != fingerprint(**MADE_FROM)


def test_it_stays_the_same_from_release_to_release() -> None:
    """A change here ends every idle lease in the world: change it knowingly."""
    known = "c6333398bc8dcc535b8a222572615023c9997acf61651f8a0ced550a3b933576"
    assert fingerprint(**MADE_FROM) == known


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


@given(value=st.dictionaries(st.text(), json_values, max_size=5))
def test_canonical_json_ignores_the_order_of_keys(value: dict[str, Any]) -> None:
    turned = dict(reversed(list(value.items())))
    assert canonical_json(turned) == canonical_json(value)


@pytest.mark.parametrize(
    ("policy", "workspace", "scope"),
    [
        (LeasePolicy.EPHEMERAL, None, None),
        (LeasePolicy.EPHEMERAL, "/src", None),
        (LeasePolicy.RETAIN_ON_FAILURE, "/src", None),
        (LeasePolicy.REUSE_BY_ENVIRONMENT, None, "environment:e"),
        (LeasePolicy.REUSE_BY_ENVIRONMENT, "/src", "environment:e"),
        (LeasePolicy.REUSE_BY_WORKSPACE, "/src", "environment:e/workspace:/src"),
        (LeasePolicy.REUSE_BY_WORKSPACE, None, None),
        (LeasePolicy.REUSE_BY_WORKSPACE, "", None),
    ],
)
def test_the_policy_chooses_the_scope(
    policy: LeasePolicy, workspace: str | None, scope: str | None
) -> None:
    assert reuse_scope(policy, environment_id="e", workspace=workspace) == scope
