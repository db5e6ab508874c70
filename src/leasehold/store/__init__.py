"""Rows and the SQL that reads and moves them. Takes a transaction, never commits."""
