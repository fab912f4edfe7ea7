"""The tracking conformance suite on Django's databases."""

from __future__ import annotations

import pytest

from tests.conformance.on_django import OnDjangosDatabase
from tests.conformance.tracking_store import TrackingStoreConformance


class OnDjango(OnDjangosDatabase, TrackingStoreConformance):
    """The suite, on one of them."""


class TestSQLite(OnDjango):
    store_name = "sqlite"


@pytest.mark.services
class TestPostgreSQL(OnDjango):
    store_name = "postgres"


@pytest.mark.services
class TestMariaDB(OnDjango):
    store_name = "mysql"
