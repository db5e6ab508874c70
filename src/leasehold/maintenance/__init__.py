"""What keeps the rows moving: each service is `run_once(...) -> Report`."""
