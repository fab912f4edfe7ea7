"""The admin's pages, for `benchmarks.admin`, and the HTTP API, for `benchmarks.polls`."""

from django.apps import apps
from django.contrib import admin
from django.urls import include, path

urlpatterns = [path("admin/", admin.site.urls)] if apps.is_installed("django.contrib.admin") else []
if apps.is_installed("django_app"):
    urlpatterns += [path("lrp/", include("django_app.urls"))]
