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

    @settings(
        max_examples=EXAMPLES,
        deadline=None,
        derandomize=True,
        database=None,
        suppress_health_check=list(HealthCheck),
    )
    @given(case=schema[path][method].as_strategy())
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
        case.call_and_validate(headers=headers, checks=CHECKS)

    asks()
