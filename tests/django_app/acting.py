"""Calls that can be acted on: of procedures, with their messages, as they would be by real ones."""

import re

from celery import Celery
from kombu import Connection

from django_app.stores import DjangoTrackingStore
from lrp_celery import procedure
from lrp_celery.procedures.envelope import Envelope
from lrp_celery.tracking.keeping import message_of
from lrp_celery.tracking.owned import Delivery, Settlement, Terms
from lrp_celery.tracking.record import Turn
from lrp_celery.tracking.reports import CallFacts, Enqueued, ErrorFacts, Outcome, RunFacts
from lrp_celery.tracking.status import CallStatus

QUEUE = "acting"
SECRET = "the-secret-of-the-payload"

app = Celery("acting", broker="memory://", set_as_current=False)
app.conf.task_default_queue = QUEUE


@procedure
@app.task(name="acting.report", shared=False)
def report(month: str, password: str = "") -> str:
    return month


@app.task(name="acting.mail", shared=False)
def mail(to: str, password: str = "") -> None:
    """A task that is no procedure."""


app.finalize()


def sent():
    """Take all messages; return the ids of their calls."""
    found = []
    with Connection("memory://") as connection:
        while (message := connection.default_channel.basic_get(QUEUE, no_ack=True)) is not None:
            found.append(message.headers["id"])
    return found


def waiting(month="2026-10"):
    return report.call(month, password=SECRET)


def running(month="2026-10"):
    call_id = waiting(month)
    delivery = Delivery(
        call_id=call_id,
        turn=Turn(),
        generation=0,
        facts=CallFacts(task="acting.report"),
        terms=Terms(),
        run=RunFacts(token=f"run-{call_id}", worker="w", pid=7),
    )
    assert DjangoTrackingStore().claim(delivery).verdict == "granted"
    return call_id


def ended(status=CallStatus.FAILED, month="2026-10"):
    call_id = running(month)
    error = ErrorFacts(type="ValueError", message="bad") if status in {"failed", "parked"} else ErrorFacts()
    kept = '"' + SECRET + '"'
    settlement = Settlement(outcome=Outcome(status=CallStatus(status), error=error), result=kept, error=kept)
    assert DjangoTrackingStore().settle(call_id, f"run-{call_id}", settlement) is not None
    return call_id


def observed(call_id, status=None):
    store = DjangoTrackingStore()
    store.record_enqueue(call_id, "plain")
    if status is not None:
        store.record_terminal(call_id, status)
    return call_id


def mailed(call_id="mailed", status="failed", to="ada@example.com"):
    """Make a call of a task that is no procedure, whose arguments are kept, and end it."""
    store = DjangoTrackingStore()
    facts = CallFacts(task="acting.mail", target_summary="('ada@example.com', [redacted])")
    message = message_of("acting.mail", [to, SECRET], {})
    assert store.report(Enqueued(call_id=call_id, facts=facts, message=message))
    assert store.record_terminal(call_id, status)
    return call_id


def arguments_of(call_id):
    return Envelope.from_json(DjangoTrackingStore().payload(call_id).message).args


def confirmation(response):
    """Return what the page that asks once more would send."""
    form = re.search(r'<form method="post" class="lrp-act">.*?</form>', response.content.decode(), re.DOTALL)
    if form is None:
        return None
    fields = re.findall(r'<input type="hidden" name="([^"]+)" value="([^"]*)">', form.group(0))
    return {name: value.replace("&quot;", '"') for name, value in fields}
