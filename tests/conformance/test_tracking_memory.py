"""The tracking conformance suite in memory."""

from __future__ import annotations

import pytest

from lrp_celery.tracking import MemoryTrackingStore
from tests.conformance.racing import Racers, ThreadRacers
from tests.conformance.tracking_store import TrackingStoreConformance


class TestMemory(TrackingStoreConformance):
    store_name = "memory"

    @pytest.fixture
    def store(self) -> MemoryTrackingStore:
        return MemoryTrackingStore()

    @pytest.fixture
    def racers(self, store: MemoryTrackingStore) -> Racers:
        return ThreadRacers(store)
