"""Alembic's environment and the steps from one schema to the next, inside the package."""
