"""Trees of files: packed, looked through, compared, and brought home; pure files, no rows."""
