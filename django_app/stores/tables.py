"""The few plain statements of which the stores are made, written once for each table and database.

Django's own compiler takes a millisecond of the processor for a statement over so many
columns, each time; a call would spend more on that than on everything else. Values still go
through Django's fields, both ways, and names through its quoting.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Final

from django.db import IntegrityError, models
from django.db.backends.base.base import BaseDatabaseWrapper
from django.db.models.expressions import Col

from django_app.clock import DatabaseNow

_MYSQL_DUPLICATE: Final = 1062

#: The place of a column, the column, and what converts its values.
_Conversion = tuple[int, Any, list[Callable[[Any, Any, Any], Any]]]


class Table:
    """The table of a model."""

    def __init__(self, model: type[models.Model]) -> None:
        self._model = model
        self._fields: dict[str, Any] = {field.attname: field for field in model._meta.concrete_fields}
        self._names = tuple(name for name, field in self._fields.items() if not isinstance(field, models.AutoField))
        self._names_by_vendor: dict[str, dict[str, str]] = {}
        self._known_conversions: dict[tuple[str, tuple[str, ...]], list[_Conversion]] = {}

    def insert(self, connection: BaseDatabaseWrapper, values: Mapping[str, Any]) -> bool:
        """Insert a row, with the defaults of what is not named, unless its key exists; return whether it was inserted.

        A `DatabaseNow` stands for the database's own time.
        """
        return self._insert(connection, *self.insertion(connection, values))

    def insertion(self, connection: BaseDatabaseWrapper, values: Mapping[str, Any]) -> tuple[str, list[Any]]:
        """Return the statement that inserts such a row, and its parameters."""
        texts, params = [], []
        for name in self._names:
            field = self._fields[name]
            value = values[name] if name in values else field.get_default()
            if isinstance(value, DatabaseNow):
                text, extra = value.as_sql(None, connection)
                texts.append(text)
                params += extra
            else:
                texts.append("%s")
                params.append(field.get_db_prep_save(value, connection=connection))
        # IGNORE would hide every other fault of the row too on MySQL, so there the duplicate is caught.
        unless_known = "" if connection.vendor == "mysql" else " ON CONFLICT DO NOTHING"
        return f"{self._head(connection)} ({', '.join(texts)}){unless_known}", params

    def _insert(self, connection: BaseDatabaseWrapper, statement: str, params: list[Any]) -> bool:
        try:
            return self._execute(connection, statement, params) == 1
        except IntegrityError as error:
            cause = error.__cause__
            if connection.vendor == "mysql" and cause is not None and cause.args and cause.args[0] == _MYSQL_DUPLICATE:
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
        settings = ", ".join(f"{names[name]} = %s" for name in values)
        condition, params = self._where(connection, where)
        statement = f"UPDATE {self.quoted(connection)} SET {settings} WHERE {condition}"
        return statement, [*self._prepared(connection, values), *params]

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
        with connection.cursor() as cursor:
            cursor.execute(f"{statement} FOR UPDATE" if lock else statement, params)
            rows = cursor.fetchall()
        conversions = self._converters(connection, tuple(names))
        return [_converted(row, conversions, connection) for row in rows]

    def _where(self, connection: BaseDatabaseWrapper, where: Mapping[str, Any]) -> tuple[str, list[Any]]:
        names = self._quoted(connection)
        conditions = (f"{names[name]} {'IS NULL' if value is None else '= %s'}" for name, value in where.items())
        known = {name: value for name, value in where.items() if value is not None}
        return " AND ".join(conditions), self._prepared(connection, known)

    def _prepared(self, connection: BaseDatabaseWrapper, values: Mapping[str, Any]) -> list[Any]:
        return [self._fields[name].get_db_prep_save(value, connection=connection) for name, value in values.items()]

    def _execute(self, connection: BaseDatabaseWrapper, statement: str, params: Iterable[Any]) -> int:
        with connection.cursor() as cursor:
            cursor.execute(statement, list(params))
            return int(cursor.rowcount)

    def _head(self, connection: BaseDatabaseWrapper) -> str:
        names = self._quoted(connection)
        return f"INSERT INTO {self.quoted(connection)} ({', '.join(names[name] for name in self._names)}) VALUES"

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


def _converted(row: Sequence[Any], conversions: list[_Conversion], connection: BaseDatabaseWrapper) -> tuple[Any, ...]:
    if not conversions:
        return tuple(row)
    values = list(row)
    for place, column, several in conversions:
        for convert in several:
            values[place] = convert(values[place], column, connection)
    return tuple(values)
