"""Django settings of the workers and beats that the tests here start; what differs comes by environment."""

import json
import os

from tests.services import default_database

SECRET_KEY = "for tests only"
INSTALLED_APPS = ["django.contrib.contenttypes", "django.contrib.auth", "django_app"]
DATABASES = {"default": default_database()}
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"
USE_TZ = True
TIME_ZONE = "UTC"

LRP_CELERY = json.loads(os.environ.get("LRP_TEST_TRACKING", "{}"))
