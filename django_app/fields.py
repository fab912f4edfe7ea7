"""Model fields that mean the same on every database."""

from __future__ import annotations

from typing import Any

from django.db import models
from django.db.backends.base.base import BaseDatabaseWrapper

from lrp_celery.tracking.store import MAX_ID


class CallIdField(models.CharField):  # type: ignore[type-arg]  # not subscriptable at run time
    """A call id: up to 200 characters, compared byte by byte on every database.

    The collation is asked of the vendor when the column is made, so that one migration
    serves all of them.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        kwargs.setdefault("max_length", MAX_ID)
        super().__init__(*args, **kwargs)

    def db_type(self, connection: BaseDatabaseWrapper) -> str | None:
        """Spell the type so that PostgreSQL gets no second index for LIKE: bytewise, the first serves it."""
        declared = super().db_type(connection)
        if declared is None or connection.vendor != "postgresql":
            return declared
        return declared.replace("varchar", "character varying")

    def db_parameters(self, connection: BaseDatabaseWrapper) -> dict[str, Any]:
        """Add the vendor's bytewise collation to what Django knows of the column."""
        parameters: dict[str, Any] = dict(super().db_parameters(connection))
        parameters["collation"] = bytewise_collation(connection)
        return parameters


def bytewise_collation(connection: BaseDatabaseWrapper) -> str | None:
    """Return the collation under which texts are equal only if their bytes are; None: the default does it."""
    if connection.vendor == "postgresql":
        return "C"
    if connection.vendor == "mysql":
        # The plain _bin collations ignore trailing spaces.
        return "utf8mb4_nopad_bin" if getattr(connection, "mysql_is_mariadb", False) else "utf8mb4_0900_bin"
    return None
