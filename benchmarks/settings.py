"""Django settings of the measured processes."""

import os

SECRET_KEY = "for measurements only"
INSTALLED_APPS = ["django.contrib.contenttypes", "django.contrib.auth", "django_app"]
DATABASES = {
    "default": {
        "ENGINE": "django.db.backends.postgresql",
        "HOST": os.environ.get("BENCH_PG_HOST", "127.0.0.1"),
        "PORT": os.environ.get("BENCH_PG_PORT", "5432"),
        "USER": os.environ.get("BENCH_PG_USER", "postgres"),
        "PASSWORD": os.environ.get("BENCH_PG_PASSWORD", ""),
        "NAME": os.environ.get("BENCH_PG_NAME", "lrp_celery_bench"),
    }
}
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"
USE_TZ = True
