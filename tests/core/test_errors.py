import pickle

import pytest

from lrp_celery.core import errors
from lrp_celery.core.errors import ConfigurationError, InvalidStatus, LrpError, StoreError

ALL = [kind for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, LrpError)]


@pytest.mark.parametrize("kind", ALL)
def test_every_error_is_an_lrp_error_and_says_something_by_itself(kind: type[LrpError]) -> None:
    assert issubclass(kind, LrpError)
    assert str(kind()).endswith(".")


@pytest.mark.parametrize("kind", ALL)
def test_every_error_survives_pickling(kind: type[LrpError]) -> None:
    error = pickle.loads(pickle.dumps(kind("what happened")))
    assert type(error) is kind
    assert str(error) == "what happened"


def test_they_are_caught_as_the_builtins_they_resemble() -> None:
    assert issubclass(InvalidStatus, ValueError)
    assert issubclass(ConfigurationError, TypeError)
    assert {ConfigurationError, InvalidStatus, StoreError} <= set(ALL)
