"""
Write ``versions/0001_initial.py`` from the tables.

    python -m leasehold.store.migrations.regenerate

Only until the first release: so long as no database in the world has revision 0001, it is
written anew and not amended. Afterwards each change is a revision of its own, and this file
goes away.
"""

import subprocess
import sys
from pathlib import Path
from typing import Any, Final

import sqlalchemy as sa
from sqlalchemy.dialects import sqlite
from sqlmodel import AutoString

from leasehold.store.tables import METADATA

TARGET: Final = Path(__file__).parent / "versions" / "0001_initial.py"

_HEAD: Final = '''\
"""The first schema, on both databases; written by `leasehold.store.migrations.regenerate`."""

# ruff: noqa: E501 - conditions are kept on one line, as the database shows them
from typing import Final
from uuid import uuid4

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.postgresql import JSONB

revision: Final = "0001"
down_revision: Final = None
branch_labels: Final = None
depends_on: Final = None

JSON: Final = sa.JSON().with_variant(JSONB(), "postgresql")
SERIAL: Final = sa.BigInteger().with_variant(sa.Integer(), "sqlite")

# STABLE: within one statement one value will do, and only so may `due_at <= leasehold_now()`
# use an index. PL/pgSQL keeps its plan for the session; a SQL function would plan each time.
NOW: Final = """
CREATE OR REPLACE FUNCTION leasehold_now() RETURNS bigint
LANGUAGE plpgsql STABLE PARALLEL SAFE AS $$
BEGIN
  RETURN (extract(epoch FROM clock_timestamp()) * 1000000)::bigint
    + coalesce((SELECT value::bigint FROM facts WHERE name = 'clock_offset_us'), 0);
END $$
"""


def text(
    name: str, length: int | None = None, *, of: str | None = None, null: bool = False
) -> sa.Column[str]:
    keys = [] if of is None else [sa.ForeignKey(of)]
    return sa.Column(name, sa.String(length), *keys, nullable=null)


def known(name: str, check: str, values: str, *, null: bool = False) -> sa.Column[str]:
    kind = sa.Enum(
        *values.split(), name=check, native_enum=False, create_constraint=True, length=32
    )
    return sa.Column(name, kind, nullable=null)


def big(name: str, *, null: bool = False, default: str | None = None) -> sa.Column[int]:
    return sa.Column(name, sa.BigInteger(), nullable=null, server_default=default)


def index(
    name: str, table: str, *columns: str, where: str | None = None, unique: bool = False
) -> None:
    only = None if where is None else sa.text(where)
    op.create_index(
        name, table, list(columns), unique=unique, postgresql_where=only, sqlite_where=only
    )


def upgrade() -> None:
'''

_TAIL: Final = '''
    first_rows()


def first_rows() -> None:
    """Make the clock, the tenant that everybody starts with and the deployment's facts."""
    if op.get_bind().dialect.name == "postgresql":
        op.execute(NOW)
    op.execute("INSERT INTO tenants (id, created_at) VALUES ('default', leasehold_now())")
    facts = {"deployment": str(uuid4()), "epoch": "0", "clock_offset_us": "0"}
    table = sa.table("facts", sa.column("name"), sa.column("value"))
    op.bulk_insert(table, [{"name": name, "value": value} for name, value in facts.items()])
'''


def render() -> str:
    """Return the revision's source, not formatted yet."""
    body = []
    for table in METADATA.sorted_tables:
        items = [_column(column) for column in table.columns]
        items += sorted(filter(None, (_constraint(item) for item in table.constraints)))
        body.append(f'    op.create_table("{table.name}", {", ".join(items)})')
        body += [_index(item) for item in sorted(table.indexes, key=lambda i: str(i.name))]
    return _HEAD + "\n".join(body) + _TAIL


def _column(column: sa.Column[object]) -> str:
    """Return one column, in the short words of the revision where they fit."""
    kind, parts = column.type, [repr(column.name)]
    null = ["null=True"] if column.nullable else []
    default = column.server_default
    said = default.arg if isinstance(default, sa.DefaultClause) else None
    if isinstance(kind, sa.Enum):
        parts += [repr(kind.name), repr(" ".join(kind.enums)), *null]
        return f"known({', '.join(parts)})"
    if isinstance(kind, sa.String | AutoString) and said is None:
        length = _length(kind)
        parts += [str(length)] if length else []
        parts += [f"of={key.target_fullname!r}" for key in column.foreign_keys]
        return f"text({', '.join([*parts, *null])})"
    if isinstance(kind, sa.BigInteger) and not column.primary_key:
        parts += null if said is None else [*null, f"default={str(said)!r}"]
        return f"big({', '.join(parts)})"
    parts += [_kind(kind, primary_key=column.primary_key), f"nullable={column.nullable}"]
    if isinstance(said, sa.False_ | sa.True_):
        parts.append(f"server_default=sa.{said}()")
    elif said is not None:
        parts.append(f"server_default={str(said)!r}")
    return f"sa.Column({', '.join(parts)})"


def _length(kind: sa.types.TypeEngine[Any]) -> int | None:
    plain = kind.impl_instance if isinstance(kind, AutoString) else kind
    return plain.length if isinstance(plain, sa.String) else None


def _kind(kind: sa.types.TypeEngine[Any], *, primary_key: bool) -> str:
    if isinstance(kind, sa.JSON):
        return "JSON"
    if isinstance(kind, sa.BigInteger):
        on_sqlite = kind.dialect_impl(sqlite.dialect())
        serial = primary_key and not isinstance(on_sqlite, sa.BigInteger)
        return "SERIAL" if serial else "sa.BigInteger()"
    if isinstance(kind, sa.String | AutoString):
        return f"sa.String({_length(kind) or ''})"
    return f"sa.{type(kind).__name__}()"


def _constraint(item: sa.Constraint) -> str | None:
    if isinstance(item, sa.PrimaryKeyConstraint):
        return f"sa.PrimaryKeyConstraint({_names(item)})"
    if isinstance(item, sa.UniqueConstraint):
        name = f", name={item.name!r}" if item.name else ""
        return f"sa.UniqueConstraint({_names(item)}{name})"
    if isinstance(item, sa.CheckConstraint) and not item._type_bound:  # noqa: SLF001 - an Enum makes its own CHECK
        return f"sa.CheckConstraint({str(item.sqltext)!r}, name={item.name!r})"
    return None


def _names(item: sa.PrimaryKeyConstraint | sa.UniqueConstraint) -> str:
    return ", ".join(repr(column.name) for column in item.columns)


def _index(item: sa.Index) -> str:
    assert item.table is not None
    parts = [repr(str(item.name)), repr(item.table.name)]
    parts += [repr(column.name) for column in item.columns]
    where = item.dialect_options["sqlite"]["where"]
    if where is not None:
        parts.append(f"where={str(where)!r}")
    if item.unique:
        parts.append("unique=True")
    return f"    index({', '.join(parts)})"


def main() -> None:
    """Write the file and format it."""
    TARGET.write_text(render())
    for verb in (["check", "-q", "--fix-only"], ["format", "-q"]):
        subprocess.run([sys.executable, "-m", "ruff", *verb, str(TARGET)], check=True)


if __name__ == "__main__":
    main()
