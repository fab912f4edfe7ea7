"""The conformance suites: helpers whose asserts speak."""

import pytest

pytest.register_assert_rewrite(
    "tests.conformance.tracking_store",
    "tests.conformance.call_store",
    "tests.conformance.procedure",
    "tests.conformance.grounds",
)
