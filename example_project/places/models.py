"""What the atlas knows, and what was done to fill it."""

from django.db import models
from django.urls import reverse


class Country(models.Model):
    """A country's code and its English name."""

    code = models.CharField(max_length=2, primary_key=True)
    name = models.CharField(max_length=100)

    class Meta:
        verbose_name_plural = "countries"

    def __str__(self) -> str:
        return self.name


class Place(models.Model):
    """A place on the map, known by its time zone."""

    zone = models.CharField(max_length=100, unique=True)
    country = models.CharField(max_length=2)
    latitude = models.FloatField()
    longitude = models.FloatField()

    class Meta:
        ordering = ("zone",)

    def __str__(self) -> str:
        return self.name

    @property
    def name(self) -> str:
        """The last part of the zone: "Asia/Hong_Kong" is "Hong Kong"."""
        return self.zone.rpartition("/")[2].replace("_", " ")

    @property
    def continent(self) -> str:
        """The first part of the zone: "Asia/Hong_Kong" is in "Asia"."""
        return self.zone.partition("/")[0]


class Import(models.Model):
    """One file that was read, and how far it got."""

    file = models.CharField(max_length=255)
    rows_total = models.PositiveIntegerField()
    rows_done = models.PositiveIntegerField(default=0)
    started_at = models.DateTimeField(auto_now_add=True)
    finished_at = models.DateTimeField(null=True, blank=True)
    report_call = models.CharField(max_length=200, blank=True, editable=False)

    class Meta:
        ordering = ("-pk",)

    def __str__(self) -> str:
        return f"{self.file} ({self.rows_done} of {self.rows_total})"

    def get_absolute_url(self) -> str:
        """Return where the report on this import is ordered and shown."""
        return reverse("report", args=[self.pk])


class Report(models.Model):
    """A report on the atlas as it stood after an import, and the chart drawn from it."""

    title = models.CharField(max_length=200)
    counts = models.JSONField()
    file = models.CharField(max_length=255)
    chart = models.CharField(max_length=255, blank=True)
    created_at = models.DateTimeField(auto_now_add=True)

    class Meta:
        ordering = ("-pk",)

    def __str__(self) -> str:
        return self.title
