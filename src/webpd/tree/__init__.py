"""The tree on disk: which names matter, what is missing or stale, what a sidecar says of itself, how one is placed."""
