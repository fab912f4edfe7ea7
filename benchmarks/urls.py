"""The admin's pages, for `benchmarks.admin`."""

from django.apps import apps
from django.contrib import admin
from django.urls import path

urlpatterns = [path("admin/", admin.site.urls)] if apps.is_installed("django.contrib.admin") else []
