"""Django settings of the measured processes: one project, with what the variant needs."""

import os
from urllib.parse import unquote, urlsplit

from benchmarks.variants import VARIANTS

_variant = VARIANTS[os.environ.get("BENCH_WITH", "sync")]
_postgres = urlsplit(os.environ["BENCH_PG"])

SECRET_KEY = "for measurements only"
INSTALLED_APPS = ["django.contrib.contenttypes", "django.contrib.auth", *_variant.apps]
DATABASES = {
    "default": {
        "ENGINE": "django.db.backends.postgresql",
        "HOST": _postgres.hostname or "",
        "PORT": _postgres.port or "",
        "USER": unquote(_postgres.username or ""),
        "PASSWORD": unquote(_postgres.password or ""),
        "NAME": _postgres.path.lstrip("/"),
        # The best case for everybody.
        "CONN_MAX_AGE": None,
    }
}
MIDDLEWARE = [
    "django.contrib.sessions.middleware.SessionMiddleware",
    "django.contrib.auth.middleware.AuthenticationMiddleware",
    "django.contrib.messages.middleware.MessageMiddleware",
]
TEMPLATES = [
    {
        "BACKEND": "django.template.backends.django.DjangoTemplates",
        "APP_DIRS": True,
        "OPTIONS": {
            "context_processors": [
                "django.template.context_processors.request",
                "django.contrib.auth.context_processors.auth",
                "django.contrib.messages.context_processors.messages",
            ],
        },
    },
]
ROOT_URLCONF = "benchmarks.urls"
STATIC_URL = "static/"
ALLOWED_HOSTS = ["testserver", "127.0.0.1"]
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"
USE_TZ = True
LRP_CELERY = dict(_variant.lrp_celery)
if _variant.is_ours:
    LRP_CELERY["HTTP_AUTHENTICATE"] = "benchmarks.polled.user_of"
if LRP_CELERY.get("RECORDER") == "spool" and "BENCH_SPOOL" in os.environ:
    LRP_CELERY["SPOOL_DIR"] = os.environ["BENCH_SPOOL"]
# What is measured is not kept.
SILENCED_SYSTEM_CHECKS = ["lrp_celery.W001"]
