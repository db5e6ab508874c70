"""The command line: doors of five lines around one call each."""
