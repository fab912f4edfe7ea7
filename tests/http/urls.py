"""What a project mounts, and its admin."""

from django.contrib import admin
from django.urls import include, path

urlpatterns = [
    path("lrp/", include("django_app.urls")),
    path("<slug:tenant>/lrp/", include("django_app.urls", namespace="of_tenant")),
    path("admin/", admin.site.urls),
]
