"""The app's entry in INSTALLED_APPS."""

from django.apps import AppConfig


class PlacesConfig(AppConfig):
    """An atlas of places."""

    name = "places"

    def ready(self) -> None:
        """Listen to what becomes of calls: in every process, for any of them may end one."""
        from django_app.signals import call_ended

        from .receivers import write_to_editors

        call_ended.connect(write_to_editors)
