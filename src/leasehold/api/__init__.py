"""The REST API: doors of five lines around one call each, for programs."""
