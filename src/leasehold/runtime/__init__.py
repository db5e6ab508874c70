"""What a worker process keeps running beside its steps: proof of life, clock, watchers."""
