"""The API as clients meet it: a real server on a free port, in a thread of the test."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import httpx

from leasehold.api.serving import Service
from leasehold.domain.roles import Role
from leasehold.orchestrator import keys
from leasehold.settings import Settings
from leasehold.store.database import Database


def make_key(
    database: Database, role: Role = Role.ADMIN, *, tenant: str = "default", name: str = ""
) -> str:
    """Make a key of a tenant, which is made too if need be; return the key itself."""
    with database.write("test") as tx:
        tx.run(
            "INSERT INTO tenants (id, created_at) VALUES (:id, {now}) ON CONFLICT DO NOTHING",
            id=tenant,
        )
        spec = keys.KeySpec(name=name or f"{tenant}-{role.value}".strip("_"), role=role)
        return keys.create(tx, spec, tenant_id=tenant, actor="test")[1]


@contextmanager
def serving(settings: Settings, **limits: Any) -> Iterator[Service]:
    """Serve until the block ends; requests under way are answered first."""
    service = Service(settings, host="127.0.0.1", port=0, **limits)
    thread = threading.Thread(target=service.serve, name="api")
    thread.start()
    try:
        yield service
    finally:
        service.stop()
        thread.join()


@contextmanager
def client_of(service: Service, key: str | None) -> Iterator[httpx.Client]:
    """Return a client that sends this key with every request."""
    headers = {"Authorization": f"Bearer {key}"} if key else {}
    with httpx.Client(base_url=service.url, headers=headers, timeout=30) as client:
        yield client
