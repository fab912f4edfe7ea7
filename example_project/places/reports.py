"""Writing what the atlas knows: pages of Markdown and charts as SVG, under VAR_DIR/reports."""

from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import TypedDict

from django.conf import settings
from django.utils import timezone

from .charts import bar_chart
from .models import Country, Place, Report


class Chapter(TypedDict):
    """A continent's page of the atlas, already written."""

    continent: str
    places: int
    file: str


def continents() -> list[str]:
    """Return the names of the continents that have places."""
    return sorted({place.continent for place in Place.objects.only("zone")})


def count_places(continent: str) -> int:
    """Count the places of a continent."""
    return Place.objects.filter(zone__startswith=f"{continent}/").count()


def write_report(title: str, places: Mapping[str, int]) -> Report:
    """Write how many places each continent has, the largest first, and return the report."""
    counts = dict(Counter(places).most_common())
    report = Report.objects.create(title=title, counts=counts)
    report.file = _write(f"report-{report.pk}.md", _report_page(title, counts))
    report.save(update_fields=["file"])
    return report


def write_chart(report: Report) -> str:
    """Draw the counts of a report and return the file."""
    report.chart = _write(f"report-{report.pk}.svg", bar_chart(report.title, report.counts))
    report.save(update_fields=["chart"])
    return report.chart


def write_chapter(continent: str) -> Chapter:
    """Write one continent's page: every place with its country and position."""
    names = dict(Country.objects.values_list("code", "name"))
    places = list(Place.objects.filter(zone__startswith=f"{continent}/"))
    lines = [f"# {continent}", "", "| place | country | latitude | longitude |", "|---|---|---|---|"]
    lines += [f"| {p.name} | {names.get(p.country, p.country)} | {p.latitude} | {p.longitude} |" for p in places]
    file = _write(f"atlas-{continent.lower()}.md", "\n".join([*lines, ""]))
    return {"continent": continent, "places": len(places), "file": file}


def write_atlas(chapters: list[Chapter]) -> str:
    """Write the title page with a line and a link for each chapter, and return the file."""
    lines = ["# Atlas", "", f"Printed {timezone.now():%Y-%m-%d %H:%M} UTC.", ""]
    lines += [
        f"- [{chapter['continent']}]({Path(chapter['file']).name}): {chapter['places']} places"
        for chapter in sorted(chapters, key=lambda chapter: chapter["continent"])
    ]
    return _write("atlas.md", "\n".join([*lines, ""]))


def _report_page(title: str, counts: Mapping[str, int]) -> str:
    lines = [f"# {title}", "", "| continent | places |", "|---|---:|"]
    lines += [f"| {continent} | {count} |" for continent, count in counts.items()]
    return "\n".join([*lines, f"| total | {sum(counts.values())} |", ""])


def _write(name: str, text: str) -> str:
    folder: Path = settings.VAR_DIR / "reports"
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / name
    path.write_text(text, encoding="utf-8")
    return str(path)
