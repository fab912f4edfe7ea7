"""Procedures to call over HTTP, users who call them, and workers' words on what became of it."""

import json
from dataclasses import dataclass, field

from celery import Celery

from django_app.models import Call
from django_app.stores import DjangoTrackingStore
from lrp_celery import procedure
from lrp_celery.core import codec
from lrp_celery.core.text import dotted_name
from lrp_celery.procedures.failures import StoredError
from lrp_celery.tracking.owned import Delivery, Settlement, Terms
from lrp_celery.tracking.record import Turn
from lrp_celery.tracking.reports import CallFacts, ErrorFacts, Outcome, RunFacts
from lrp_celery.tracking.status import CallStatus

app = Celery("http", broker="memory://", set_as_current=False)


@procedure(timeout=600, sensitive=["password"])
@app.task(name="http.report", shared=False)
def report(month: str, copies: int = 1, password: str = "") -> dict[str, int]:
    return {month: copies}


@procedure(permission="auth.add_group")
@app.task(name="http.guarded", shared=False)
def guarded() -> None:
    return None


@app.task(name="http.plain", shared=False)
def plain() -> None:
    return None


app.finalize()

__all__ = ["Call", "DjangoTrackingStore"]

REPORTS = "/lrp/procedures/http.report/calls"
JSON = "application/json"


def of(call_id, rest=""):
    return f"/lrp/calls/{call_id}{rest}"


# --- who asks


@dataclass
class User:
    """As much of a user as the API asks for; real ones are met in test_sessions."""

    name: str
    rights: frozenset[str] = frozenset()
    is_active: bool = True
    is_authenticated: bool = True

    def get_username(self):
        return self.name

    def has_perm(self, right):
        return right in self.rights


@dataclass
class Doorman:
    """Knows users by a token; it is what HTTP_AUTHENTICATE names."""

    users: dict[str, User] = field(default_factory=dict)

    def __call__(self, request):
        return self.users.get(request.headers.get("Authorization", ""))


DOORMAN = Doorman()


def user(name, *rights, **more):
    """Return the headers by which a user with these rights of ours is known."""
    full = frozenset(right if "." in right else f"lrp_celery.{right}" for right in rights)
    DOORMAN.users[f"Bearer {name}"] = User(name, full, **more)
    return {"Authorization": f"Bearer {name}"}


class Odd(Exception):
    """Neither builtin nor among the `throws` of a task."""


# --- what workers say


def running(call_id, task="http.report"):
    """Let a worker claim the call."""
    delivery = Delivery(
        call_id=call_id,
        turn=Turn(),
        generation=0,
        facts=CallFacts(task=task),
        terms=Terms(),
        run=RunFacts(token=f"run-{call_id}", worker="w", pid=7),
    )
    assert DjangoTrackingStore().claim(delivery).verdict == "granted"
    return call_id


def ended(call_id, status=CallStatus.SUCCEEDED, *, result=None, error=None, task="http.report"):
    """Let a worker run the call to its end."""
    running(call_id, task)
    facts = ErrorFacts()
    kept = None
    if error is not None:
        facts = ErrorFacts(type=dotted_name(type(error)), message=str(error), traceback="line 1, in the worker")
        kept = StoredError(type=facts.type, message=facts.message, args=error.args, traceback=facts.traceback).to_json()
    settlement = Settlement(outcome=Outcome(status=status, error=facts), result=codec.dumps(result), error=kept)
    assert DjangoTrackingStore().settle(call_id, f"run-{call_id}", settlement) is not None
    return call_id


def row(call_id):
    """Return all that is stored of a call."""
    store = DjangoTrackingStore()
    record = store.look(call_id)
    return None if record is None else (record.values(), store.payload(call_id))


def send(client, method, path, body=None, headers=None, **more):
    """Send a request with a JSON body, if there is one."""
    content = {} if body is None else {"data": json.dumps(body), "content_type": JSON}
    return client.generic(method, path, headers=headers, **content, **more)
