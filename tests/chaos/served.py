"""Django settings of the server over which `tests.chaos.remote` calls."""

from tests.chaos.terms import RETENTION
from tests.http.served import *  # noqa: F403
from tests.http.served import LRP_CELERY

LRP_CELERY["RETENTION"] = RETENTION
