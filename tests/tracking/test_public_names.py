import subprocess
import sys

import pytest

import lrp_celery.tracking


def test_the_door_of_tracking_is_this_wide() -> None:
    names = ["MemoryTrackingStore", "RedisTrackingStore", "TrackingStore"]
    assert lrp_celery.tracking.__all__ == names
    assert [getattr(lrp_celery.tracking, name).__name__ for name in names] == names
    with pytest.raises(AttributeError, match="no attribute 'SqlTrackingStore'"):
        _ = lrp_celery.tracking.SqlTrackingStore


def alone(source: str) -> str:
    done = subprocess.run([sys.executable, "-c", source], capture_output=True, text=True, timeout=60, check=True)
    return done.stdout.strip()


def test_redis_is_not_imported_before_its_store_is_used() -> None:
    assert alone("import lrp_celery.tracking, sys; print('lrp_celery.tracking.redis' in sys.modules)") == "False"


def test_without_redis_py_the_error_says_what_to_install() -> None:
    source = """
import sys
sys.modules["redis"] = None
from lrp_celery.tracking import MemoryTrackingStore
try:
    from lrp_celery.tracking import RedisTrackingStore
except ImportError as error:
    print(error)
"""
    assert "pip install 'lrp_celery[redis]'" in alone(source)
