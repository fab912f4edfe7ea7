"""Stores on Django's databases."""

from django_app.stores.items import DjangoStore
from django_app.stores.tracking import DjangoTrackingStore

__all__ = ["DjangoStore", "DjangoTrackingStore"]
