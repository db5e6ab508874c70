"""One file per revision; `leasehold.store.schema.REVISIONS` names them in their order."""
