"""Every route of the OpenAPI document, with what schemathesis thinks of: never a 5xx."""

import itertools
from typing import Any, Final

import pytest
import schemathesis
from hypothesis import HealthCheck, given, settings
from schemathesis import Case
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
    status_code_conformance,
    unsupported_method,
)

from api.routes import MATRIX
from api.served import make_key
from api.test_matrix import OWN
from leasehold.api.serving import Service
from leasehold.domain.roles import Role
from leasehold.store.database import Database

pytestmark = pytest.mark.proof
EXAMPLES: Final = 60
FORBIDDEN: Final = 403
WAIT_S: Final = 0.05
NOBODY: Final = {503: "provider_not_ready", 504: "check_timeout"}
CHECKS: Final = [
    not_a_server_error,
    status_code_conformance,
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
    unsupported_method,
]


ASKED: Final = [route for route in MATRIX if "openapi" not in route[1]]
"""The document itself is not in the document."""


def hurried(query: dict[str, Any], *, waits: bool) -> dict[str, Any]:
    """Wait for no worker for longer than the client for an answer; what is no time stays."""
    if waits:
        query.setdefault("wait_s", 30)
    try:
        if float(query.get("wait_s", 0)) > WAIT_S:
            query["wait_s"] = WAIT_S
    except (TypeError, ValueError):
        return query
    return query


@pytest.mark.parametrize(("method", "path"), ASKED, ids=str)
def test_nothing_that_is_asked_is_a_fault_of_ours(
    service: Service, database: Database, method: str, path: str
) -> None:
    role = Role.ROOT if MATRIX[method, path].admin == FORBIDDEN else Role.ADMIN
    headers = {"Authorization": f"Bearer {make_key(database, role, tenant=OWN[role])}"}
    address = f"{service.url}/api/v1/openapi.json"
    schema = schemathesis.openapi.from_url(address, headers=headers)
    row = MATRIX[method, path]
    turn = itertools.count()
    named = path.replace(":path}", "}")  # as OpenAPI writes it

    @settings(
        max_examples=EXAMPLES,
        deadline=None,
        derandomize=True,
        database=None,
        suppress_health_check=list(HealthCheck),
    )
    @given(case=schema[named][method].as_strategy())
    def asks(case: Case[Any]) -> None:
        # Every other one is about what there is, and has what must be there.
        if next(turn) % 2:
            with database.write("test") as tx:
                case.path_parameters = {
                    **(case.path_parameters or {}),
                    **row.make(tx, OWN[role]),
                }
            if isinstance(case.body, dict) and row.body:
                case.body = {**case.body, **row.body}
        case.query = hurried(dict(case.query or {}), waits="wait_s" in row.query)
        answer = case.call(headers=headers)
        if "wait_s" in row.query and answer.status_code in NOBODY:
            assert answer.json()["code"] == NOBODY[answer.status_code]
            return  # no worker has answered so soon, which is no fault
        case.validate_response(answer, checks=CHECKS)

    asks()
