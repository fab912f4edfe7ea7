"""The conformance suites: helpers whose asserts speak, and the account at the end."""

import pytest

pytest.register_assert_rewrite("tests.conformance.tracking_store", "tests.conformance.call_store")

from tests.conformance.report import (  # noqa: E402 - only now are the asserts rewritten
    pytest_collection_modifyitems,
    pytest_runtest_logreport,
    pytest_sessionfinish,
    pytest_terminal_summary,
)

__all__ = [
    "pytest_collection_modifyitems",
    "pytest_runtest_logreport",
    "pytest_sessionfinish",
    "pytest_terminal_summary",
]
