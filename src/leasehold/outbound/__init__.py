"""Requests of ours to addresses that others chose: checked first, and bounded in every way."""
