"""Django settings of the server over which `tests.chaos.remote` calls."""

from tests.chaos.terms import RETENTION
from tests.http.served import *  # noqa: F403
from tests.http.served import INSTALLED_APPS, LRP_CELERY

INSTALLED_APPS = [*INSTALLED_APPS, "django_celery_results", "tests.chaos.apps.Listening"]
LRP_CELERY["RETENTION"] = RETENTION
