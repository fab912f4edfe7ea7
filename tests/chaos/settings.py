"""Django settings of the workers and callers; what differs from run to run comes by environment."""

from tests.chaos.terms import RETENTION
from tests.integration.settings import *  # noqa: F403
from tests.integration.settings import INSTALLED_APPS, LRP_CELERY

INSTALLED_APPS = [*INSTALLED_APPS, "django_celery_results", "tests.chaos.apps.Listening"]
LRP_CELERY["RETENTION"] = RETENTION
