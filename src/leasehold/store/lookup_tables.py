"""
The rows by which runs are found; triggers of the schema write them (migration 0006).

No ``from __future__ import annotations`` here: SQLModel reads the annotations.
"""

from typing import Final

import sqlalchemy as sa
from sqlmodel import Field, SQLModel

VALUE_MAX: Final = 200
"""Of a longer value only so many characters are here; who asks compares the whole."""


class RunLookup(SQLModel, table=True):
    """One thing by which one run is found; written and deleted with it, never changed."""

    __tablename__ = "run_lookups"
    tenant_id: str = Field(primary_key=True, max_length=64)
    name: str = Field(primary_key=True)
    """``environment``, or ``label:`` and the label's name."""

    value: str = Field(primary_key=True)
    created_at: int = Field(primary_key=True, sa_type=sa.BigInteger)
    run_id: str = Field(primary_key=True, max_length=64)


LOOKUP_TABLES: Final = (RunLookup,)
