"""
What Alembic runs: the steps, on the connection and in the transaction that we hand over.

Only `leasehold.store.schema` calls this. There is no offline mode and no Alembic
transaction: the caller holds the lock that keeps two upgrades apart, and commits.
"""

from alembic import context

from leasehold.store.schema import VERSION_TABLE
from leasehold.store.tables import METADATA

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=METADATA,
    version_table=VERSION_TABLE,
)
context.run_migrations()
