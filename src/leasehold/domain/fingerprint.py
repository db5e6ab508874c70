"""What must be equal for an idle sandbox to serve another run."""

import hashlib
import json
from collections.abc import Mapping
from typing import Any

from leasehold.domain.lifecycle import LeasePolicy


def canonical_json(value: Any) -> str:
    """Return JSON that is equal for equal values: sorted keys, no spaces."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False)


def fingerprint(
    *,
    tenant_id: str,
    provider: str,
    provider_version: str,
    config: Mapping[str, Any],
    secret_versions: Mapping[str, int],
    scope: str,
) -> str:
    """
    Return SHA-256 (hex) over everything that a reused sandbox was made from.

    `config` must be normalized (defaults filled in), so that key order and explicit
    defaults do not matter.
    """
    whole = {
        "tenant": tenant_id,
        "provider": provider,
        "version": provider_version,
        "config": config,
        "secrets": secret_versions,
        "scope": scope,
    }
    return hashlib.sha256(canonical_json(whole).encode()).hexdigest()


def setup_mark(command: Mapping[str, Any], *, tree: str | None) -> str:
    """Return what must be equal for a set-up command not to be repeated in a sandbox."""
    whole = {"command": command, "tree": tree}
    return hashlib.sha256(canonical_json(whole).encode()).hexdigest()


def reuse_scope(
    policy: LeasePolicy, *, environment_id: str, workspace: str | None
) -> str | None:
    """Return the scope in which a lease may be reused, or None if it is not."""
    if policy is LeasePolicy.REUSE_BY_ENVIRONMENT:
        return f"environment:{environment_id}"
    if policy is LeasePolicy.REUSE_BY_WORKSPACE and workspace:
        return f"environment:{environment_id}/workspace:{workspace}"
    return None
