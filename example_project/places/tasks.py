"""The work of the atlas: plain Celery tasks, which need to know nothing of who watches them, and two procedures."""

from datetime import timedelta
from pathlib import Path

from celery import chord, shared_task
from celery.exceptions import Ignore, Reject
from celery.utils.log import get_task_logger
from django.conf import settings
from django.utils import timezone

from lrp_celery import AbortSignal, current_call, procedure

from .mirrors import MirrorBusy, download
from .models import Country, Import, Place, Report
from .readers import is_on_earth, read_countries, read_places
from .reports import Chapter, continents, count_places, write_atlas, write_chapter, write_chart, write_report

logger = get_task_logger(__name__)

#: Rows saved at a time; the import's progress moves in steps of this size.
BATCH = 100


@procedure(idempotent=True)
@shared_task
def import_places(path: str) -> int:
    """Read a CSV file of places into the atlas and return the number of the import.

    The whole file is read before a row is saved: a malformed one changes nothing. Reading a
    file again does no harm, so a lost worker is no reason not to.
    """
    source = Path(path)
    places = read_places(source)
    record = Import.objects.create(file=source.name, rows_total=len(places))
    for start in range(0, len(places), BATCH):
        batch = places[start : start + BATCH]
        Place.objects.bulk_create(
            batch,
            update_conflicts=True,
            unique_fields=["zone"],
            update_fields=["country", "latitude", "longitude"],
        )
        record.rows_done += len(batch)
        record.save(update_fields=["rows_done"])
        current_call().progress(record.rows_done, record.rows_total, "rows saved")
        logger.info("%s: %d of %d rows", source.name, record.rows_done, record.rows_total)
    record.finished_at = timezone.now()
    record.save(update_fields=["finished_at"])
    return record.pk


@procedure(timeout=timedelta(minutes=10), permission="places.add_report")
@shared_task
def build_report(signal: AbortSignal, import_id: int, pause: float = 0.0) -> int:
    """Write a report on the atlas after an import, continent by continent, and return the number of the report.

    `pause`: seconds to rest after each continent, at hours when others need the machine.
    Nothing is written if somebody asks for its end meanwhile.
    """
    source = Import.objects.get(pk=import_id)
    names, counts = continents(), {}
    for name in names:
        counts[name] = count_places(name)
        current_call().progress(len(counts), len(names), f"counted {name}")
        signal.wait(pause)
        signal.raise_if_aborted()
    current_call().log(f"{sum(counts.values())} places on {len(names)} continents")
    return write_report(f"Places after import {source.pk}, {source.file}", counts).pk


@shared_task
def draw_chart(report_id: int) -> str:
    """Draw the chart of a report and return its file."""
    return write_chart(Report.objects.get(pk=report_id))


@shared_task(autoretry_for=(MirrorBusy,), max_retries=2, default_retry_delay=1)
def fetch_countries(url: str) -> int:
    """Fetch the names of countries and return how many there are; a busy server is asked again."""
    countries = read_countries(url, download(url))
    Country.objects.bulk_create(countries, update_conflicts=True, unique_fields=["code"], update_fields=["name"])
    return len(countries)


@shared_task
def suggest_place(zone: str, country: str, latitude: float, longitude: float) -> int:
    """Add a place that a visitor suggested; what is not on Earth is rejected."""
    if not is_on_earth(latitude, longitude):
        raise Reject(f"{latitude}, {longitude} is not on Earth", requeue=False)
    position = {"country": country, "latitude": latitude, "longitude": longitude}
    place, _ = Place.objects.update_or_create(zone=zone, defaults=position)
    return place.pk


@shared_task
def withdraw_place(zone: str) -> int:
    """Take a place out of the atlas; one that is not in it is nothing to do."""
    deleted, _ = Place.objects.filter(zone=zone).delete()
    if not deleted:
        raise Ignore(f"there is no {zone}")
    return deleted


@shared_task
def watch_inbox() -> list[str]:
    """Start an import for each CSV file in the inbox and return the files.

    A file is moved out of the inbox first, so that it is imported once.
    """
    taken: list[str] = []
    archive = settings.VAR_DIR / "archive"
    archive.mkdir(parents=True, exist_ok=True)
    for path in sorted((settings.VAR_DIR / "inbox").glob("*.csv")):
        moved = path.rename(archive / f"{timezone.now():%Y%m%dT%H%M%S%f}-{path.name}")
        import_places.delay(str(moved))
        taken.append(str(moved))
    return taken


@shared_task
def write_continent(continent: str) -> Chapter:
    """Write one continent's chapter of the atlas."""
    return write_chapter(continent)


@shared_task
def bind_atlas(chapters: list[Chapter]) -> str:
    """Write the title page of the atlas once all its chapters are written; return its file."""
    return write_atlas(chapters)


@shared_task
def print_atlas() -> None:
    """Write the whole atlas: a chapter for each continent, side by side, then the title page."""
    chord(write_continent.s(name) for name in continents())(bind_atlas.s())
