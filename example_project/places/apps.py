"""The app's entry in INSTALLED_APPS."""

from django.apps import AppConfig


class PlacesConfig(AppConfig):
    """An atlas of places."""

    name = "places"
