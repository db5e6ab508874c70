"""Every route of the API: what each role is answered there, and the row that it is asked of."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from leasehold import settings as knobs
from leasehold.domain.roles import Role
from leasehold.domain.specs import EnvironmentSpec
from leasehold.domain.webhooks import WebhookSpec
from leasehold.ids import PLATFORM, new_id
from leasehold.orchestrator import hooking, submit, tenants
from leasehold.store import hosts, secrets
from leasehold.store.database import Tx
from leasehold.vault.keys import Keys
from store.rows import (
    insert_delivery,
    insert_key,
    insert_lease,
    insert_run,
    insert_schedule,
    insert_webhook,
)

OTHER: Final = "other"
"""Another tenant."""

Make = Callable[[Tx, str], dict[str, str]]
COMMANDS: Final = [{"argv": ["true"]}]


def nothing(_tx: Tx, _tenant: str) -> dict[str, str]:
    return {}


def run(status: str) -> Make:
    """Make a run in an environment that there is."""

    def make(tx: Tx, tenant: str) -> dict[str, str]:
        place = tx.value("SELECT id FROM environments WHERE name = 'place'")
        row = insert_run(tx, status=status, tenant_id=tenant, environment_id=place)
        return {"run_id": row["id"]}

    return make


def a_digest(_tx: Tx, _tenant: str) -> dict[str, str]:
    return {"sha256": "0" * 64}


def left(tx: Tx, tenant: str) -> dict[str, str]:
    return run("failed")(tx, tenant) | {"path": "out/report.txt"}


def place(tx: Tx, tenant: str) -> dict[str, str]:
    name = f"of-{tenant}-{new_id()}"
    spec = EnvironmentSpec(name=name, provider="fake")
    row = submit.create_environment(tx, spec, tenant_id=tenant)
    return {"name": row["id"] if tenant == OTHER else name}


def lease(tx: Tx, tenant: str) -> dict[str, str]:
    return {"lease_id": insert_lease(tx, status="idle", tenant_id=tenant)["id"]}


def anything(tx: Tx, tenant: str) -> dict[str, str]:
    return {"row_id": lease(tx, tenant)["lease_id"]}


def key(tx: Tx, tenant: str) -> dict[str, str]:
    role = "root" if tenant == PLATFORM else "viewer"
    return {"key": insert_key(tx, tenant_id=tenant, role=role)["id"]}


def secret(tx: Tx, tenant: str) -> dict[str, str]:
    name = f"of-{tenant}-{new_id()}"
    version = secrets.put(tx, tenant_id=tenant, name=name)
    secrets.insert_version(
        tx, tenant_id=tenant, name=name, version=version, key_id="k", ciphertext=""
    )
    return {"name": name}


def no_secrets(tx: Tx, _tenant: str) -> dict[str, str]:
    """Leave nothing to encrypt anew: what `secret` makes is no ciphertext."""
    tx.run("DELETE FROM secret_versions")
    tx.run("DELETE FROM webhooks")
    return {}


def fresh_name(_tx: Tx, _tenant: str) -> dict[str, str]:
    return {"name": new_id()}


def schedule(tx: Tx, tenant: str) -> dict[str, str]:
    row = insert_schedule(tx, name=f"of-{tenant}-{new_id()}", tenant_id=tenant)
    return {"schedule": row["id"]}


def webhook(tx: Tx, tenant: str) -> dict[str, str]:
    row = insert_webhook(tx, name=f"of-{tenant}-{new_id()}", tenant_id=tenant)
    return {"webhook": row["id"]}


def sealed_webhook(tx: Tx, tenant: str) -> dict[str, str]:
    """Make a webhook whose secret the service can decrypt."""
    keys = Keys.load(knobs.load().secret_keys_path)
    spec = WebhookSpec(name=f"of-{tenant}-{new_id()}", url="https://example.org/")
    row, _ = hooking.create(tx, keys, spec, tenant_id=tenant, actor="test")
    return {"webhook": row["id"]}


def delivery(tx: Tx, tenant: str) -> dict[str, str]:
    """Make a delivery that was given up."""
    hook = insert_webhook(tx, name=f"of-{tenant}-{new_id()}", tenant_id=tenant)
    over = {"status": "failed", "next_at": None, "finished_at": 1}
    return {"webhook": hook["id"], "delivery": insert_delivery(tx, hook, **over)["id"]}


def provider(_tx: Tx, _tenant: str) -> dict[str, str]:
    return {"key": "fake"}


def host(tx: Tx, _tenant: str) -> dict[str, str]:
    """Make a host that nobody needs any more."""
    host_id = new_id()
    hosts.upsert_host(tx, host_id, name=f"host-{host_id}", capacity=1, labels={})
    return {"host_id": host_id}


def tenant(tx: Tx, _tenant: str) -> dict[str, str]:
    spec = tenants.TenantSpec(name=new_id())
    return {"tenant": tenants.create(tx, spec, actor="test")["id"]}


def key_of_tenant(tx: Tx, _tenant: str) -> dict[str, str]:
    of = tenant(tx, _tenant)
    return of | key(tx, of["tenant"])


@dataclass(frozen=True)
class Row:
    """What a route answers: to each role about its own tenant's row, and about another's."""

    viewer: int
    operator: int
    admin: int
    root: int
    make: Make = nothing
    """Makes the row that the path names; without one there is nothing foreign to name."""

    body: Any = None
    query: Mapping[str, str] = field(default_factory=dict)
    shared: bool = False
    """What the path names is no tenant's: there is nothing foreign."""

    def of(self, role: Role) -> int:
        return int(getattr(self, role.value))


MATRIX: Final[Mapping[tuple[str, str], Row]] = {
    ("GET", "/api/v1/openapi.json"): Row(200, 200, 200, 200),
    # Of something else: tests/api/test_files.py sends what is right.
    ("PUT", "/api/v1/blobs/{sha256}"): Row(403, 422, 422, 403, a_digest, shared=True),
    ("GET", "/metrics"): Row(403, 403, 403, 200),
    ("GET", "/api/v1/version"): Row(200, 200, 200, 200),
    ("GET", "/api/v1/me"): Row(200, 200, 200, 200),
    ("GET", "/api/v1/ids"): Row(200, 200, 200, 403),
    ("GET", "/api/v1/explain/{row_id}"): Row(200, 200, 200, 403, anything),
    ("GET", "/api/v1/runs/{run_id}/artifacts"): Row(200, 200, 200, 403, run("queued")),
    # It has left nothing; tests/api/test_files.py has some that have.
    ("GET", "/api/v1/runs/{run_id}/artifacts/{path:path}"): Row(404, 404, 404, 403, left),
    ("POST", "/api/v1/runs"): Row(
        403, 201, 201, 403, body={"environment": "place", "commands": COMMANDS}
    ),
    ("POST", "/api/v1/runs/batch"): Row(
        403, 200, 200, 403, body={"runs": [{"environment": "place", "commands": COMMANDS}]}
    ),
    ("POST", "/api/v1/runs/bulk"): Row(
        403, 200, 200, 403, body={"action": "cancel", "dry_run": True}
    ),
    ("GET", "/api/v1/runs"): Row(200, 200, 200, 403),
    ("GET", "/api/v1/runs/{run_id}"): Row(200, 200, 200, 403, run("queued")),
    ("GET", "/api/v1/runs/{run_id}/events"): Row(200, 200, 200, 403, run("queued")),
    ("GET", "/api/v1/runs/{run_id}/output"): Row(200, 200, 200, 403, run("queued")),
    # Of a run that is over: such a stream ends by itself.
    ("GET", "/api/v1/runs/{run_id}/events/stream"): Row(200, 200, 200, 403, run("failed")),
    ("GET", "/api/v1/runs/{run_id}/output/stream"): Row(200, 200, 200, 403, run("failed")),
    ("POST", "/api/v1/runs/{run_id}/cancel"): Row(403, 200, 200, 403, run("queued")),
    ("POST", "/api/v1/runs/{run_id}/extend"): Row(
        403, 200, 200, 403, run("queued"), body={"deadline_s": "2h"}
    ),
    ("POST", "/api/v1/runs/{run_id}/retry"): Row(403, 201, 201, 403, run("failed")),
    ("POST", "/api/v1/runs/{run_id}/resume"): Row(403, 200, 200, 403, run("parked")),
    ("GET", "/api/v1/environments"): Row(200, 200, 200, 403),
    ("POST", "/api/v1/environments"): Row(
        403, 403, 201, 403, body={"name": "new", "provider": "fake"}
    ),
    ("GET", "/api/v1/environments/{name}"): Row(200, 200, 200, 403, place),
    ("PATCH", "/api/v1/environments/{name}"): Row(
        403, 403, 200, 403, place, body={"description": "another"}
    ),
    ("GET", "/api/v1/environments/{name}/blast-radius"): Row(200, 200, 200, 403, place),
    ("POST", "/api/v1/environments/{name}/archive"): Row(403, 403, 200, 403, place),
    ("POST", "/api/v1/environments/{name}/unarchive"): Row(403, 403, 200, 403, place),
    ("DELETE", "/api/v1/environments/{name}"): Row(403, 403, 200, 403, place),
    ("GET", "/api/v1/leases"): Row(200, 200, 200, 403),
    ("POST", "/api/v1/leases"): Row(403, 201, 201, 403, body={"environment": "place"}),
    ("GET", "/api/v1/leases/{lease_id}"): Row(200, 200, 200, 403, lease),
    ("POST", "/api/v1/leases/{lease_id}/release"): Row(403, 200, 200, 403, lease),
    ("POST", "/api/v1/leases/{lease_id}/retain"): Row(403, 200, 200, 403, lease),
    ("GET", "/api/v1/providers"): Row(200, 200, 200, 200),
    ("GET", "/api/v1/providers/{key}"): Row(200, 200, 200, 200, provider, shared=True),
    ("GET", "/api/v1/workers"): Row(200, 200, 200, 200),
    ("GET", "/api/v1/hosts"): Row(200, 200, 200, 200),
    ("POST", "/api/v1/hosts/{host_id}/drain"): Row(403, 403, 403, 200, host, shared=True),
    ("DELETE", "/api/v1/hosts/{host_id}"): Row(403, 403, 403, 200, host, shared=True),
    ("GET", "/api/v1/tenants"): Row(403, 403, 403, 200),
    ("POST", "/api/v1/tenants"): Row(403, 403, 403, 201, body={"name": "new"}),
    ("GET", "/api/v1/tenants/{tenant}"): Row(403, 403, 403, 200, tenant, shared=True),
    ("PATCH", "/api/v1/tenants/{tenant}"): Row(
        403, 403, 403, 200, tenant, body={"limits": {"max_queued": 9}}, shared=True
    ),
    ("POST", "/api/v1/tenants/{tenant}/archive"): Row(403, 403, 403, 200, tenant, shared=True),
    ("POST", "/api/v1/tenants/{tenant}/unarchive"): Row(
        403, 403, 403, 200, tenant, shared=True
    ),
    ("GET", "/api/v1/tenants/{tenant}/keys"): Row(403, 403, 403, 200, tenant, shared=True),
    ("POST", "/api/v1/tenants/{tenant}/keys"): Row(
        403, 403, 403, 201, tenant, body={"name": "first", "role": "admin"}, shared=True
    ),
    ("DELETE", "/api/v1/tenants/{tenant}/keys/{key}"): Row(
        403, 403, 403, 200, key_of_tenant, shared=True
    ),
    ("GET", "/api/v1/secrets"): Row(200, 200, 200, 403),
    ("GET", "/api/v1/secrets/{name}"): Row(200, 200, 200, 403, secret),
    ("PUT", "/api/v1/secrets/{name}"): Row(
        403, 403, 200, 403, fresh_name, body={"value": "hush-hush"}, shared=True
    ),
    ("DELETE", "/api/v1/secrets/{name}"): Row(403, 403, 200, 403, secret),
    ("POST", "/api/v1/secrets/rotate"): Row(403, 403, 403, 200, no_secrets),
    ("GET", "/api/v1/keys"): Row(403, 403, 200, 200),
    ("POST", "/api/v1/keys"): Row(403, 403, 201, 201, body={"name": "another"}),
    ("DELETE", "/api/v1/keys/{key}"): Row(403, 403, 200, 200, key),
    ("GET", "/api/v1/retention"): Row(200, 200, 200, 403),
    ("PUT", "/api/v1/retention"): Row(403, 403, 200, 403, body={"runs_s": "10d"}),
    ("GET", "/api/v1/schedules"): Row(200, 200, 200, 403),
    ("POST", "/api/v1/schedules"): Row(
        403,
        201,
        201,
        403,
        body={
            "name": "new",
            "cron": "0 0 1 1 *",
            "environment": "place",
            "run": {"commands": COMMANDS},
        },
    ),
    ("POST", "/api/v1/environments/probe"): Row(
        403, 403, 202, 403, body={"provider": "fake"}, query={"wait_s": "0.5"}
    ),
    ("POST", "/api/v1/environments/{name}/probe"): Row(
        403, 202, 202, 403, place, query={"wait_s": "0.5"}
    ),
    ("GET", "/api/v1/selections"): Row(200, 200, 200, 403),
    ("PUT", "/api/v1/selections"): Row(
        403, 403, 200, 403, body={"kind": "tenant", "environment": "place"}
    ),
    ("DELETE", "/api/v1/selections"): Row(403, 403, 200, 403, query={"kind": "tenant"}),
    ("GET", "/api/v1/activity"): Row(403, 200, 200, 200),
    ("GET", "/api/v1/schedules/{schedule}"): Row(200, 200, 200, 403, schedule),
    ("PATCH", "/api/v1/schedules/{schedule}"): Row(
        403, 200, 200, 403, schedule, body={"overlap": "skip"}
    ),
    ("POST", "/api/v1/schedules/{schedule}/pause"): Row(403, 200, 200, 403, schedule),
    ("POST", "/api/v1/schedules/{schedule}/resume"): Row(403, 200, 200, 403, schedule),
    ("DELETE", "/api/v1/schedules/{schedule}"): Row(403, 200, 200, 403, schedule),
    ("GET", "/api/v1/webhooks"): Row(200, 200, 200, 403),
    ("POST", "/api/v1/webhooks"): Row(
        403, 403, 201, 403, body={"name": "new", "url": "https://example.org/hook"}
    ),
    ("GET", "/api/v1/webhooks/{webhook}"): Row(200, 200, 200, 403, webhook),
    ("PATCH", "/api/v1/webhooks/{webhook}"): Row(
        403, 403, 200, 403, webhook, body={"enabled": False}
    ),
    ("DELETE", "/api/v1/webhooks/{webhook}"): Row(403, 403, 200, 403, webhook),
    ("POST", "/api/v1/webhooks/{webhook}/secret"): Row(403, 403, 200, 403, sealed_webhook),
    ("GET", "/api/v1/webhooks/{webhook}/deliveries"): Row(200, 200, 200, 403, webhook),
    ("POST", "/api/v1/webhooks/{webhook}/deliveries/{delivery}/redeliver"): Row(
        403, 200, 200, 403, delivery
    ),
    # For a run's own token alone; what that may do, test_inside.py says.
    ("GET", "/api/v1/run"): Row(403, 403, 403, 403),
    ("POST", "/api/v1/run/heartbeat"): Row(403, 403, 403, 403),
    ("POST", "/api/v1/run/progress"): Row(403, 403, 403, 403, body={"percent": 1}),
    ("POST", "/api/v1/run/result"): Row(403, 403, 403, 403, body={}),
    ("PUT", "/api/v1/run/result"): Row(403, 403, 403, 403, body={}),
    ("POST", "/api/v1/run/events"): Row(403, 403, 403, 403, body={"name": "x"}),
    ("PUT", "/api/v1/run/artifacts/{path:path}"): Row(403, 403, 403, 403),
}
