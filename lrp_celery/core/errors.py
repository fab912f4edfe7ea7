"""The error tree: every error that lrp_celery raises derives from `LrpError`.

    LrpError
    ├── ConfigurationError   (also a TypeError)
    ├── InvalidStatus        (also a ValueError)
    └── StoreError
        └── StoreUnavailable

The docstring of a class is its default message.
"""

from __future__ import annotations

import inspect


class LrpError(Exception):
    """lrp_celery could not do what was asked."""

    def __init__(self, message: str | None = None) -> None:
        super().__init__(message or inspect.getdoc(type(self)) or type(self).__name__)


class ConfigurationError(LrpError, TypeError):
    """A setting or an option of lrp_celery is wrong."""


class InvalidStatus(LrpError, ValueError):
    """This operation does not accept a status of that kind (TRK-12, TRK-16)."""


class StoreError(LrpError):
    """The store could not be read or written."""


class StoreUnavailable(StoreError):
    """The store does not answer, or has no time: later it may."""
