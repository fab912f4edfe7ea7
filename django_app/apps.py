"""The Django app: one line in INSTALLED_APPS is all it takes."""

from __future__ import annotations

from django.apps import AppConfig
from django.utils.translation import gettext_lazy as _


class LrpCeleryConfig(AppConfig):
    """Label `lrp_celery`: tables, permissions, admin URLs and templates all carry it."""

    name = "django_app"
    label = "lrp_celery"
    verbose_name = _("Celery calls")
    default_auto_field = "django.db.models.BigAutoField"

    def ready(self) -> None:
        """Register the checks and watch Celery. Makes no query."""
        from django_app import checks, wiring

        checks.register()
        wiring.connect()
