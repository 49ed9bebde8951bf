"""The queue for several hosts: ``WatchQueue`` where work is found, ``WorkQueue`` where it is done, Redis between them.

Jobs wait in the ``QueueManager`` of the host that found them, with all that it knows of lanes, turns, delays and tries,
until a host that works says that it has room. Then some leave as a batch, which docket delivers, and delivers again
if that host dies. A batch that Redis forgets comes back to its owner, who offers it again.
"""

from webpd.errors import UsageError


def require() -> None:
    """Raise ``UsageError`` where what the modules of this package import is not installed."""
    try:
        import docket  # noqa: F401, PLC0415 - it takes 0.3 s, and most need no cluster
    except ImportError as error:
        raise UsageError(f"the roles watch and work need more: install webpd[cluster] ({error})") from error
