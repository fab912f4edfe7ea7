"""The few plain statements of which the stores are made, written once for each table and database.

Django's own compiler takes a millisecond of the processor for a statement over so many
columns, each time; a call would spend more on that than on everything else. Names still go through
its quoting, what is read through its converters, and instants both ways.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import lru_cache
from typing import Any, Final

from django.db import Error, IntegrityError, models
from django.db.backends.base.base import BaseDatabaseWrapper
from django.db.models.expressions import Col

from django_app.clock import NOW, Moment, moment_sql
from django_app.executing import execute
from django_app.surroundings import is_in_transaction

#: What MySQL calls the index of a primary key.
PRIMARY: Final = "PRIMARY"
#: A key that exists, as PostgreSQL and as MySQL call it.
_DUPLICATE: Final = frozenset({"23505", 1062})
#: So many parameters a statement may have besides the keys.
_SPARE: Final = 50
_SAID: Final = {None: "NULL", True: "TRUE", False: "FALSE"}
#: What drivers know how to say.
_PLAIN: Final = frozenset({str, int, float})

#: The place of a column, the column, and what converts its values.
_Conversion = tuple[int, Any, list[Callable[[Any, Any, Any], Any]]]


@dataclass(frozen=True, slots=True)
class Sql:
    """What only the database knows when it writes."""

    text: str
    params: Sequence[Any] = ()


class Table:
    """The table of a model."""

    def __init__(self, model: type[models.Model]) -> None:
        self._model = model
        self._fields: dict[str, Any] = {field.attname: field for field in model._meta.concrete_fields}
        self._names = tuple(name for name, field in self._fields.items() if not isinstance(field, models.AutoField))
        self._defaults = {name: self._fields[name].get_default() for name in self._names}
        self._names_by_vendor: dict[str, dict[str, str]] = {}
        self._updates: dict[tuple[str, ...], str] = {}
        self._known_conversions: dict[tuple[str, tuple[str, ...]], list[_Conversion]] = {}

    def insert(self, connection: BaseDatabaseWrapper, values: Mapping[str, Any]) -> bool:
        """Insert a row, with the defaults of what is not named, unless its key exists; return whether it was inserted.

        `NOW` stands for the database's own time.
        """
        return self.inserted(connection, *self.insertion(connection, values))

    def insertion(
        self, connection: BaseDatabaseWrapper, values: Mapping[str, Any], *, unless_known: bool = True
    ) -> tuple[str, list[Any]]:
        """Return the statement that inserts such a row, and its parameters. Not `unless_known`: it fails if the key exists."""
        texts, params = said(connection, self.full(values).values())
        names = self._quoted(connection)
        columns = tuple([names[name] for name in self._names])
        # IGNORE would hide every other fault of the row too on MySQL, so there the duplicate is caught.
        ending = " ON CONFLICT DO NOTHING" if unless_known and connection.vendor != "mysql" else ""
        return _insertion(self.quoted(connection), columns, tuple(texts), ending), params

    def inserted(self, connection: BaseDatabaseWrapper, statement: str, params: list[Any]) -> bool:
        """Run what `insertion` returned; return whether the row was inserted."""
        try:
            return self._execute(connection, statement, params) == 1
        except IntegrityError as error:
            if is_duplicate(error):
                return False
            raise

    def update(self, connection: BaseDatabaseWrapper, where: Mapping[str, Any], values: Mapping[str, Any]) -> int:
        """Update the rows that have exactly these values; return how many there were."""
        return self._execute(connection, *self.updating(connection, where, values))

    def updating(
        self, connection: BaseDatabaseWrapper, where: Mapping[str, Any], values: Mapping[str, Any]
    ) -> tuple[str, list[Any]]:
        """Return the statement that updates such rows, and its parameters."""
        names = self._quoted(connection)
        texts, news = said(connection, values.values())
        columns = tuple([names[name] for name in values])
        condition, params = self._where(connection, where)
        return _updating(self.quoted(connection), columns, tuple(texts), condition), [*news, *params]

    def changing(
        self,
        connection: BaseDatabaseWrapper,
        where: Mapping[str, Any],
        values: Mapping[str, Any],
        names: Sequence[str],
        *,
        only_if: str,
    ) -> tuple[str, list[Any]]:
        """Return the statement that updates rows that have exactly these values and returns these columns of them, for `read`.

        `only_if`: one more condition, in SQL. Only where the database can return what it has updated.
        """
        statement, params = self.updating(connection, where, values)
        columns = _list(tuple(map(self._quoted(connection).__getitem__, names)))
        return f"{statement} AND {only_if} RETURNING {columns}", params

    def read(self, connection: BaseDatabaseWrapper, row: Sequence[Any], names: tuple[str, ...]) -> tuple[Any, ...]:
        """Return what a statement returned of these columns, as Python has it."""
        return _converted(row, self._converters(connection, names), connection)

    def delete(self, connection: BaseDatabaseWrapper, where: Mapping[str, Any]) -> None:
        """Delete the rows that have exactly these values; nothing else may point to them."""
        condition, params = self._where(connection, where)
        self._execute(connection, f"DELETE FROM {self.quoted(connection)} WHERE {condition}", params)

    def find(
        self,
        connection: BaseDatabaseWrapper,
        where: Mapping[str, Any],
        names: Sequence[str],
        *,
        also: Iterable[str] = (),
        lock: bool = False,
    ) -> list[tuple[Any, ...]]:
        """Return these columns of the rows that have exactly these values; `also`: SQL of further ones, as they come."""
        quoted = self._quoted(connection)
        columns = [*(quoted[name] for name in names), *also]
        condition, params = self._where(connection, where)
        statement = f"SELECT {', '.join(columns)} FROM {self.quoted(connection)} WHERE {condition}"
        rows = execute(connection, f"{statement} FOR UPDATE" if lock else statement, params).fetchall()
        conversions = self._converters(connection, tuple(names))
        return [_converted(row, conversions, connection) for row in rows]

    def find_any(
        self,
        connection: BaseDatabaseWrapper,
        keys: Sequence[Any],
        names: Sequence[str],
        *,
        of: str | None = None,
        lock: bool = False,
    ) -> list[tuple[Any, ...]]:
        """Return these columns of the rows that have one of these keys.

        `of`: the column that holds it (None: the primary key). `lock`: only of those that nobody else has locked.
        """
        quoted = self._quoted(connection)
        columns = ", ".join(quoted[name] for name in names)
        conversions = self._converters(connection, tuple(names))
        found: list[tuple[Any, ...]] = []
        key = self.key(connection) if of is None else quoted[of]
        for condition, params in self._any(connection, key, keys):
            statement = f"SELECT {columns} FROM {self.quoted(connection)} WHERE {condition}"
            if lock:
                statement = f"{statement} ORDER BY {key} FOR UPDATE SKIP LOCKED"
            rows = execute(connection, statement, params).fetchall()
            found += [_converted(row, conversions, connection) for row in rows]
        return found

    def find_where(
        self,
        connection: BaseDatabaseWrapper,
        condition: str,
        params: Sequence[Any],
        names: Sequence[str],
        *,
        by: str,
    ) -> list[tuple[Any, ...]]:
        """Return these columns of the rows of which a condition in SQL holds; after it may stand in what order, and how many.

        `by`: the index that finds them. MySQL would else read few rows without one, and lock all that it reads.
        """
        columns = _list(tuple(map(self._quoted(connection).__getitem__, names)))
        index = f" FORCE INDEX ({by})" if connection.vendor == "mysql" else ""
        statement = f"SELECT {columns} FROM {self.quoted(connection)}{index} WHERE {condition}"
        conversions = self._converters(connection, tuple(names))
        return [_converted(row, conversions, connection) for row in execute(connection, statement, params).fetchall()]

    def any_of(self, connection: BaseDatabaseWrapper, keys: Sequence[Any]) -> Iterator[tuple[str, list[Any]]]:
        """Yield conditions, with their parameters, that hold for rows with one of these primary keys: as few as there may be."""
        return self._any(connection, self.key(connection), keys)

    def update_any(
        self, connection: BaseDatabaseWrapper, keys: Sequence[Any], where: Mapping[str, Any], values: Mapping[str, Any]
    ) -> None:
        """Update those of the rows with these primary keys that have exactly these values."""
        statement, params = self.updating(connection, where, values)
        for condition, more in self._any(connection, self.key(connection), keys):
            execute(connection, f"{statement} AND {condition}", [*params, *more])

    def _any(self, connection: BaseDatabaseWrapper, key: str, keys: Sequence[Any]) -> Iterator[tuple[str, list[Any]]]:
        """Yield conditions that hold for rows with one of these keys, as few as there may be."""
        if connection.vendor == "postgresql":
            yield f"{key} = ANY(%s)", [list(keys)]
            return
        each = (connection.features.max_query_params or len(keys) + _SPARE) - _SPARE
        for start in range(0, len(keys), each):
            some = list(keys[start : start + each])
            yield f"{key} IN ({', '.join('%s' for _ in some)})", some

    def update_all(
        self,
        connection: BaseDatabaseWrapper,
        keys: Sequence[tuple[str, int]],
        names: Sequence[str],
        news: Sequence[Sequence[Any]],
    ) -> set[str]:
        """Set these columns of the calls in `keys` (id and version) to `news`, one row for each; return the ids that were.

        Only where a statement can take its values from arrays: on PostgreSQL.
        """
        statement = self._update_all_statement(connection, tuple(names))
        together = ((*key, *values) for key, values in zip(keys, news, strict=True))
        arrays = [array_literal(column) for column in zip(*together, strict=True)]
        return {row[0] for row in execute(connection, statement, arrays).fetchall()}

    def _update_all_statement(self, connection: BaseDatabaseWrapper, names: tuple[str, ...]) -> str:
        known = self._updates.get(names)
        if known is None:
            quoted, table = self._quoted(connection), self.quoted(connection)
            settings = ", ".join(f"{quoted[name]} = news.{quoted[name]}" for name in names)
            columns = ["call_id", "known_version", *(quoted[name] for name in names)]
            arrays = ", ".join(f"%s::{kind}[]" for kind in ("text", "integer", *map(self._array_of(connection), names)))
            known = self._updates[names] = (
                f"UPDATE {table} AS call SET {settings} FROM unnest({arrays}) AS news({', '.join(columns)}) "
                "WHERE call.call_id = news.call_id AND call.version = news.known_version RETURNING call.call_id"
            )
        return known

    def _array_of(self, connection: BaseDatabaseWrapper) -> Callable[[str], str]:
        def kind(name: str) -> str:
            found = str(self._fields[name].db_type(connection))
            # With their lengths, texts that do not fit would be cut instead of refused.
            return "text" if "char" in found else found

        return kind

    def _where(self, connection: BaseDatabaseWrapper, where: Mapping[str, Any]) -> tuple[str, list[Any]]:
        names = self._quoted(connection)
        texts, params = said(connection, where.values())
        return _condition(tuple([names[name] for name in where]), tuple(texts)), params

    def _execute(self, connection: BaseDatabaseWrapper, statement: str, params: Iterable[Any]) -> int:
        return int(execute(connection, statement, list(params)).rowcount)

    def full(self, values: Mapping[str, Any]) -> dict[str, Any]:
        """Return a row with the defaults of what is not named, in the order of the columns."""
        full = {**self._defaults, **values}
        return {name: full[name] for name in self._names}

    def head(self, connection: BaseDatabaseWrapper) -> str:
        """Return how an insertion of full rows begins."""
        names = self._quoted(connection)
        return f"INSERT INTO {self.quoted(connection)} ({', '.join(names[name] for name in self._names)})"

    @property
    def key_name(self) -> str:
        """The name of the primary key."""
        return str(self._model._meta.pk.attname)

    def key(self, connection: BaseDatabaseWrapper) -> str:
        """Return the primary key's name as statements say it."""
        return self._quoted(connection)[self.key_name]

    def array_type(self, connection: BaseDatabaseWrapper, name: str) -> str:
        """Return the type of an array of a column's values, on PostgreSQL."""
        return f"{str(self._fields[name].db_type(connection)).partition('(')[0]}[]"

    def quoted(self, connection: BaseDatabaseWrapper) -> str:
        """Return the table's name as statements say it."""
        return connection.ops.quote_name(self._model._meta.db_table)

    def _quoted(self, connection: BaseDatabaseWrapper) -> Mapping[str, str]:
        known = self._names_by_vendor.get(connection.vendor)
        if known is None:
            quote = connection.ops.quote_name
            known = {name: quote(field.column) for name, field in self._fields.items()}
            self._names_by_vendor[connection.vendor] = known
        return known

    def _converters(self, connection: BaseDatabaseWrapper, names: tuple[str, ...]) -> list[_Conversion]:
        key = (connection.vendor, names)
        if key not in self._known_conversions:
            columns = [Col(self._model._meta.db_table, self._fields[name]) for name in names]
            found = [
                (place, column, [*connection.ops.get_db_converters(column), *column.get_db_converters(connection)])
                for place, column in enumerate(columns)
            ]
            self._known_conversions[key] = [conversion for conversion in found if conversion[2]]
        return self._known_conversions[key]


def may_fail(connection: BaseDatabaseWrapper) -> bool:
    """Whether on PostgreSQL a statement may fail without harm, for it stands alone.

    There a row costs a fifth less that is inserted without asking what is to be done if its key exists.
    """
    return connection.vendor == "postgresql" and not is_in_transaction(connection)


def is_duplicate(error: IntegrityError) -> bool:
    """Whether a row was refused only because its key exists."""
    return bool(codes(error) & _DUPLICATE)


def codes(error: Error) -> set[object]:
    """Return what the driver calls an error: by number on MySQL, by a text on PostgreSQL."""
    cause = error.__cause__
    first = cause.args[0] if cause is not None and cause.args else None
    return {first, getattr(cause, "sqlstate", None)}


def array_literal(values: Iterable[Any]) -> str:
    """Return an array as PostgreSQL reads it: its driver asks of each value anew how to say it."""
    return f"{{{','.join(map(_element, values))}}}"


def _element(value: Any) -> str:
    kind = type(value)
    if kind is int or kind is float:
        return repr(value)
    if value is None:
        return "NULL"
    if kind is bool:
        return "t" if value else "f"
    text = value.isoformat() if isinstance(value, datetime) else str(value)
    return '"{}"'.format(text.replace("\\", "\\\\").replace('"', '\\"'))


# The text of a statement follows from what it says without parameters, and is put together once.


@lru_cache(maxsize=256)
def _insertion(table: str, columns: tuple[str, ...], texts: tuple[str, ...], ending: str) -> str:
    return f"INSERT INTO {table} ({', '.join(columns)}) VALUES ({', '.join(texts)}){ending}"


@lru_cache(maxsize=256)
def _updating(table: str, columns: tuple[str, ...], texts: tuple[str, ...], condition: str) -> str:
    settings = ", ".join(f"{column} = {text}" for column, text in zip(columns, texts, strict=True))
    return f"UPDATE {table} SET {settings} WHERE {condition}"


@lru_cache(maxsize=256)
def _condition(columns: tuple[str, ...], texts: tuple[str, ...]) -> str:
    told = zip(columns, texts, strict=True)
    return " AND ".join(f"{column} {'IS' if text == _SAID[None] else '='} {text}" for column, text in told)


@lru_cache(maxsize=256)
def _list(columns: tuple[str, ...]) -> str:
    return ", ".join(columns)


def said(connection: BaseDatabaseWrapper, values: Iterable[Any]) -> tuple[list[str], list[Any]]:
    """Return how a statement says these values, and its parameters: what most rows have in common needs none."""
    texts: list[str] = []
    params: list[Any] = []
    for value in values:
        if value is None or value is True or value is False:
            texts.append(_SAID[value])
        elif type(value) in _PLAIN:
            texts.append("%s")
            params.append(value)
        elif isinstance(value, Sql):
            texts.append(value.text)
            params += value.params
        elif not isinstance(value, datetime):
            texts.append("%s")
            params.append(value)
        elif isinstance(value, Moment):
            text, extra = moment_sql(connection, value - NOW)
            texts.append(text)
            params += extra
        else:
            texts.append("%s")
            params.append(connection.ops.adapt_datetimefield_value(value))
    return texts, params


def _converted(row: Sequence[Any], conversions: list[_Conversion], connection: BaseDatabaseWrapper) -> tuple[Any, ...]:
    if not conversions:
        return tuple(row)
    values = list(row)
    for place, column, several in conversions:
        for convert in several:
            values[place] = convert(values[place], column, connection)
    return tuple(values)
