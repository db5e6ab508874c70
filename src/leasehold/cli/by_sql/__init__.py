"""The command line's door into SQL: the engine's own functions, in transactions."""
