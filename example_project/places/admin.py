"""The atlas in the admin."""

from typing import TYPE_CHECKING

from django.contrib import admin

from .models import Country, Import, Place, Report

if TYPE_CHECKING:
    PlaceModelAdmin = admin.ModelAdmin[Place]
    CountryModelAdmin = admin.ModelAdmin[Country]
    ImportModelAdmin = admin.ModelAdmin[Import]
    ReportModelAdmin = admin.ModelAdmin[Report]
else:
    PlaceModelAdmin = CountryModelAdmin = ImportModelAdmin = ReportModelAdmin = admin.ModelAdmin


@admin.register(Place)
class PlaceAdmin(PlaceModelAdmin):
    """Places, to be searched by zone or country."""

    list_display = ("name", "zone", "country", "latitude", "longitude")
    search_fields = ("zone", "country")


@admin.register(Country)
class CountryAdmin(CountryModelAdmin):
    """Names of countries."""

    list_display = ("name", "code")
    search_fields = ("name", "code")


@admin.register(Import)
class ImportAdmin(ImportModelAdmin):
    """Files read, with their progress."""

    list_display = ("file", "rows_done", "rows_total", "started_at", "finished_at")


@admin.register(Report)
class ReportAdmin(ReportModelAdmin):
    """Reports, with the files they were written to."""

    list_display = ("title", "file", "chart", "created_at")
