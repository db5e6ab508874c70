"""
The rows of browsers that are signed in, and of links that sign one in.

No ``from __future__ import annotations`` here: SQLModel reads the annotations.
"""

from typing import Final

import sqlalchemy as sa
from sqlmodel import Field, SQLModel

from leasehold.domain.passes import PassKind
from leasehold.store.columns import known, micros


class Pass(SQLModel, table=True):
    """
    What a browser's cookie, or a link, stands for: one API key, for a while.

    Rows that have expired are deleted when the next one is made.
    """

    __tablename__ = "passes"
    id: str = Field(primary_key=True, max_length=64)
    """SHA-256 of what the browser has: nobody signs in with a copy of this table."""

    tenant_id: str = Field(foreign_key="tenants.id", max_length=64)
    kind: PassKind = Field(sa_type=known(PassKind))
    key_id: str = Field(foreign_key="api_keys.id", max_length=64, index=True)
    created_at: int = micros(nullable=False)
    expires_at: int = Field(sa_type=sa.BigInteger, nullable=False, index=True)


PASS_TABLES: Final = (Pass,)
