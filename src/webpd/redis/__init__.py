"""Redis: what all hosts may know. It decides nothing, and may be gone at any time."""

PREFIX = "webpd:"
"""All keys begin with it: docs/redis.md lists them, and the service's user has rights to no others."""
