"""Durable runs in leased sandboxes, on Celery."""

__version__ = "0.1.0"
