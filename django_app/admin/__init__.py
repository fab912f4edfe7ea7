"""The admin: read-only pages that say what became of each call."""

from django_app.admin.calls import CallAdmin

__all__ = ["CallAdmin"]
