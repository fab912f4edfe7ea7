"""The example's own URLs, and the mirror that its demo fetches from."""

from config.urls import urlpatterns as example
from django.urls import path

from . import mirror

urlpatterns = [
    path("mirror/whose", mirror.whose),
    path("mirror/<str:visitor>/<int:refusals>/countries.csv", mirror.countries),
    *example,
]
