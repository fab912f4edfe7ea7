"""The record of what people did to calls."""

from __future__ import annotations

import logging
from typing import Final

from django.db import Error

from django_app.clock import NOW
from django_app.models import ActionLog
from django_app.stores.sessions import CallerSession, Session, own_session
from django_app.stores.tables import Table
from lrp_celery.core.text import clean
from lrp_celery.procedures.actions import Action
from lrp_celery.tracking.store import MAX_NAME

logger = logging.getLogger("lrp_celery.actions")

_actions: Final = Table(ActionLog)


class ActionWriter:
    """Writes actions to the database `alias`, whatever becomes of the caller's transaction. Never raises."""

    def __init__(self, alias: str) -> None:
        self._alias = alias

    def write(self, action: Action, *, callers: bool = False) -> None:
        """Keep it; `callers`: on the caller's connection, because only that sees its own database."""
        session: Session = CallerSession(self._alias) if callers else own_session(self._alias)
        try:
            self._insert(session, action)
        except Error as error:
            session.failed()
            logger.error("It is not recorded that %s: %s", action, error)  # noqa: TRY400 - the traceback says nothing
        finally:
            session.release()

    def _insert(self, session: Session, action: Action) -> None:
        connection = session.connection()
        with session.single():
            values = {
                "at": NOW,
                "by": action.by,
                "deed": action.deed.value,
                "call_id": action.call_id,
                "reason": action.reason,
                "outcome": clean(action.outcome, MAX_NAME),
            }
            _actions.insert(connection, values)
