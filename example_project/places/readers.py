"""Reading places and countries from CSV, strictly: a file is right as a whole or it is refused."""

import csv
from collections.abc import Iterable, Iterator
from pathlib import Path

from .models import Country, Place

#: The columns that a file of places must have, in any order.
PLACE_COLUMNS = {"zone", "country", "latitude", "longitude"}


class MalformedFile(ValueError):
    """The file cannot be read as what it should be; the message names the line."""


def read_places(path: Path) -> list[Place]:
    """Return the places of a file, not yet saved."""
    with path.open(newline="", encoding="utf-8") as file:
        return [_place(path.name, line, row) for line, row in _rows(path.name, file, PLACE_COLUMNS)]


def read_countries(name: str, text: str) -> list[Country]:
    """Return the countries of a downloaded text, not yet saved."""
    rows = _rows(name, text.splitlines(), {"code", "name"})
    return [Country(code=row["code"], name=row["name"]) for _, row in rows]


def is_on_earth(latitude: float, longitude: float) -> bool:
    """Tell whether the position exists."""
    return -90 <= latitude <= 90 and -180 <= longitude <= 180


def _rows(name: str, lines: Iterable[str], columns: set[str]) -> Iterator[tuple[int, dict[str, str]]]:
    reader = csv.DictReader(lines, strict=True)
    missing = columns - set(reader.fieldnames or ())
    if missing:
        raise MalformedFile(f"{name}: no column {', '.join(sorted(missing))}")
    for row in reader:
        if any(row[column] is None for column in columns):
            raise MalformedFile(f"{name}, line {reader.line_num}: too few columns")
        yield reader.line_num, row


def _place(name: str, line: int, row: dict[str, str]) -> Place:
    where = f"{name}, line {line}"
    latitude = _degrees(where, "latitude", row["latitude"])
    longitude = _degrees(where, "longitude", row["longitude"])
    if not is_on_earth(latitude, longitude):
        raise MalformedFile(f"{where}: {latitude}, {longitude} is not on Earth")
    return Place(zone=row["zone"], country=row["country"], latitude=latitude, longitude=longitude)


def _degrees(where: str, column: str, text: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise MalformedFile(f"{where}: {column} {text!r} is not a number") from None
