"""Stores on Django's databases."""

from django_app.stores.tracking import DjangoTrackingStore

__all__ = ["DjangoTrackingStore"]
