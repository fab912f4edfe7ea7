"""Most there is to see is in the admin; a report is ordered on a page of its own."""

from django.contrib import admin
from django.urls import include, path
from django.views.generic import RedirectView
from places import views

urlpatterns = [
    path("admin/", admin.site.urls),
    path("lrp/", include("django_app.urls")),
    path("imports/<int:number>/report/", views.report, name="report"),
    path("imports/<int:number>/report/abort/", views.abort_report, name="abort-report"),
    path("", RedirectView.as_view(pattern_name="admin:index")),
]
