"""
The built-in providers' public calls, for flat mappings.

`fake` is the only built-in: a deterministic stand-in whose release and destroy have no side
effect. These calls are a fixed interface (names, ids, metadata and error texts); the engine
itself works on `leasehold.provider.contract`.

A config is ``{"provider": "fake", "image": "ubuntu:24.04", "reuse_lease": True}``; a lease, as
`find_reusable_sandbox_id` reads it, is a mapping with ``sandbox_id`` and ``metadata``.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final, TypeAlias
from uuid import uuid4

from leasehold.domain.fingerprint import canonical_json
from leasehold.errors import ConfigRejectedError, UnsupportedError

Config: TypeAlias = Mapping[str, Any]
FAKE: Final = "fake"
_DEFAULTS: Final[Mapping[str, Any]] = {
    "provider": FAKE,
    "image": "ubuntu:24.04",
    "reuse_lease": True,
}
_TYPES: Final[Mapping[str, type]] = {"provider": str, "image": str, "reuse_lease": bool}


@dataclass(frozen=True, slots=True)
class Provider:
    """A built-in provider."""

    key: str


@dataclass(frozen=True, slots=True)
class Validation:
    """Whether a config can work; `details` holds provider, image and reuse_lease."""

    ok: bool
    summary: str
    details: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Probe:
    """Whether sandboxes can be made now."""

    ok: bool
    summary: str
    details: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Sandbox:
    """What was acquired."""

    sandbox_id: str
    metadata: Mapping[str, Any]


_BUILT_IN: Final = {FAKE: Provider(FAKE)}


def list_providers() -> list[Provider]:
    """Return every built-in provider."""
    return list(_BUILT_IN.values())


def get_provider(key: str) -> Provider | None:
    """Return a built-in provider, or None."""
    return _BUILT_IN.get(key)


def require_provider(key: str) -> Provider:
    """
    Return a built-in provider.

    Raises:
        UnsupportedError: The key is a plugin's, or nobody's.
    """
    provider = get_provider(key)
    if provider is None:
        raise UnsupportedError(
            f'Sandbox provider "{key}" is not registered as a built-in provider.'
        )
    return provider


def _whole(config: Config) -> dict[str, Any]:
    """Return the fake's config with its defaults; refuse what is a plugin's."""
    require_provider(str(config.get("provider", FAKE)))
    return {**_DEFAULTS, **config}


def check_owner(provider: str, config: Config) -> None:
    """
    Refuse a config that was written for another provider.

    Raises:
        ConfigRejectedError: Names both.
    """
    key = config.get("provider", provider)
    if key != provider:
        raise ConfigRejectedError(
            f'Sandbox provider "{provider}" received config for provider "{key}".'
        )


def validate_config(config: Config) -> Validation:
    """Check a config; a plugin's key is an error, a wrong value is an answer."""
    whole = _whole(config)
    for name, value in whole.items():
        kind = _TYPES.get(name)
        if kind is None:
            allowed = ", ".join(sorted(_TYPES))
            return Validation(ok=False, summary=f"{name}: unknown key; allowed: {allowed}")
        if not isinstance(value, kind) or value == "":
            got = type(value).__name__ if value != "" else "an empty string"
            return Validation(ok=False, summary=f"{name}: must be a {kind.__name__}, got {got}")
    summary = f"Fake sandbox with image {whole['image']}."
    return Validation(ok=True, summary=summary, details={name: whole[name] for name in _TYPES})


def probe(config: Config) -> Probe:
    """Say that the fake is there; a config that cannot work is an answer, too."""
    checked = validate_config(config)
    if not checked.ok:
        return Probe(ok=False, summary=checked.summary, details=checked.details)
    summary = "Fake sandboxes can be acquired."
    return Probe(ok=True, summary=summary, details=checked.details)


def acquire_lease(
    *,
    config: Config,
    environment_id: str,
    run_id: str,
    issue_id: str | None = None,  # noqa: ARG001  part of the fixed interface
    reusable_sandbox_id: str | None = None,
) -> Sandbox:
    """Acquire a sandbox, or resume `reusable_sandbox_id` if the config allows reuse."""
    whole = _whole(config)
    metadata = {name: whole[name] for name in _TYPES}
    if whole["reuse_lease"] and reusable_sandbox_id:
        return Sandbox(reusable_sandbox_id, {**metadata, "resumed_lease": True})
    if whole["reuse_lease"]:
        return Sandbox(f"sandbox://fake/{environment_id}", metadata)
    return Sandbox(f"sandbox://fake/{run_id}/{uuid4()}", metadata)


def find_reusable_sandbox_id(
    *, config: Config, leases: Iterable[Mapping[str, Any]]
) -> str | None:
    """
    Return the sandbox of the first lease that this config may reuse.

    It must have a sandbox id, the same provider and `reuse_lease`; then for the fake the same
    image, for a plugin every key of the config, equal by canonical JSON.
    """
    provider = config.get("provider", FAKE)
    wanted = {**_DEFAULTS, **config} if provider == FAKE else dict(config)
    if wanted.get("reuse_lease") is not True:
        return None
    for lease in leases:
        sandbox_id, metadata = lease.get("sandbox_id"), lease.get("metadata") or {}
        if (
            sandbox_id
            and metadata.get("provider") == provider
            and metadata.get("reuse_lease") is True
            and _matches(provider, wanted, metadata)
        ):
            return str(sandbox_id)
    return None


def _matches(provider: str, config: Config, metadata: Mapping[str, Any]) -> bool:
    keys = ["image"] if provider == FAKE else list(config)
    return all(
        key in metadata and canonical_json(metadata[key]) == canonical_json(config[key])
        for key in keys
    )


def config_from_metadata(metadata: Mapping[str, Any] | None) -> dict[str, Any] | None:
    """Return the config that a lease's metadata holds; strict: built-in providers only."""
    if not metadata or get_provider(str(metadata.get("provider"))) is None:
        return None
    found = {name: metadata.get(name) for name in _TYPES}
    if any(not isinstance(found[name], kind) for name, kind in _TYPES.items()):
        return None
    return found


def config_from_metadata_loose(metadata: Mapping[str, Any] | None) -> dict[str, Any] | None:
    """Return the config of any provider: all keys; reuse only if it is said to be true."""
    if (
        not metadata
        or not isinstance(metadata.get("provider"), str)
        or not metadata["provider"]
    ):
        return None
    return {**metadata, "reuse_lease": metadata.get("reuse_lease") is True}


def release_lease(*, config: Config, sandbox_id: str | None, status: str) -> None:  # noqa: ARG001
    """Do nothing, for the right provider: the fake has nothing to release."""
    _whole(config)


def destroy_lease(*, config: Config, sandbox_id: str | None) -> None:  # noqa: ARG001
    """Do nothing, for the right provider: the fake has nothing to destroy."""
    _whole(config)
