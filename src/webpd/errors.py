"""Errors, by what the caller should do next: never again, again later, or tell the administrator and stop."""

from webpd.model import Failure, Skip


class WebpdError(Exception):
    """Any error of ours. Its text tells the administrator what happened and what to do."""


class PermanentError(WebpdError):
    """The same bytes under the same settings will give the same answer: do not try again."""


class RefusedError(PermanentError):
    """The source is not ours to convert; see ``reason``."""

    def __init__(self, reason: Skip, detail: str) -> None:
        super().__init__(detail)
        self.reason = reason


class UnsuitedError(PermanentError):
    """The source is sound, but no WebP shows what browsers show of it: the original stays, and nothing is wrong."""


class FailedError(PermanentError):
    """The source should have been converted and could not be; see ``reason``."""

    def __init__(self, reason: Failure, detail: str) -> None:
        super().__init__(detail)
        self.reason = reason


class RetryableError(WebpdError):
    """The world was in the way, not the image: worth another try."""


class UsageError(WebpdError):
    """Wrong usage or settings (exit code 2)."""


class UnfitError(WebpdError):
    """The environment is not fit: a missing root, a permission, a mount (exit code 3)."""
